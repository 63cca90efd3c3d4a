"""How wide the spreads of a method are beside those of Gibbs, on a part of the users."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.seeds import checked_seed, generator
from bayesrec.data.split import holdout
from bayesrec.errors import DataError
from bayesrec.inference import Gibbs
from bayesrec.inference.base import Method, fit, whole_fits
from bayesrec.models.base import Model
from bayesrec.posterior import Posterior

__all__ = ["compare_spread"]

LEAST = 20  # users


def compare_spread(
    model: Model,
    data: Interactions,
    method: Method,
    *,
    users: int = 300,
    against: Method | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Fit a part of the users by a method and by Gibbs, and compare how sure they are. Provisional.

    Variational fits are too sure; by how much depends on the data. This is what can be known of it where Gibbs cannot fit all of
    them: the users taken have all their ratings, a tenth of those in the target held out.

    Parameters
    ----------
    model : Model
    data : Interactions
    method : Method
        For example ``SVI()`` or ``VMP()``.
    users : int
        How many of the users with target ratings, at random.
    against : Method, optional
        By default ``Gibbs(draws=200, warmup=200, chains=4)``.
    seed : int
    progress : bool

    Returns
    -------
    DataFrame
        A row for each held-out rating: user, item, mean and sd of its *expected* rating, without noise, under the method,
        mean_gibbs and sd_gibbs, and ratio, of the sds. The median ratio is what the spread of the method is worth;
        ``posterior.widened(1 / ratio)`` about makes up for it.

    Raises
    ------
    DataError
        Fewer than 20 users.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(12, 12), n_ratings=(8, 8))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method, gibbs = br.VMP(draws=50, chains=2, tolerance=0.01), br.Gibbs(draws=50, warmup=50, chains=2)
    >>> found = compare_spread(br.models.PMF(rank=1), data, method, users=30, against=gibbs, progress=False)
    >>> found.columns.tolist(), bool(0.3 < found["ratio"].median() < 1.5)
    (['user', 'item', 'mean', 'sd', 'mean_gibbs', 'sd_gibbs', 'ratio'], True)
    """
    seed = checked_seed(seed)
    other = Gibbs(draws=200, warmup=200, chains=4) if against is None else against
    for value, kind, name in (
        (model, Model, "model"),
        (data, Interactions, "data"),
        (method, Method, "method"),
        (other, Method, "against"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}.")
    if isinstance(users, bool) or not isinstance(users, (int, np.integer)) or users < LEAST:
        raise DataError(f"users must be a whole number of at least {LEAST}, not {users!r}")
    whole = data if data.shared == "users" else data.transposed()
    known = np.unique(whole.user[whole.is_target])
    if len(known) < LEAST:
        raise DataError(
            f"only {len(known)} {data.entity}s have target ratings; at least {LEAST} are needed to compare spreads"
        )
    chosen = generator(seed).choice(known, min(users, len(known)), replace=False)
    train, test = holdout(whole.mask(np.isin(whole.user, chosen)), fraction=0.1, seed=seed)
    with whole_fits("spreads are not compared"):
        ours = fit(model, train, method, seed=seed, progress=progress)
        theirs = fit(model, train, other, seed=seed, progress=progress)
    mean, sd = _expected(ours, test)
    mean_gibbs, sd_gibbs = _expected(theirs, test)
    first, second = test.users.decode(test.user), test.items.decode(test.item)
    ids = dict(zip(whole.columns.sides, (first, second), strict=True))
    table = {"user": ids["user"], "item": ids["item"], "mean": mean, "sd": sd}
    return pd.DataFrame(table | {"mean_gibbs": mean_gibbs, "sd_gibbs": sd_gibbs, "ratio": sd / sd_gibbs})


def _expected(posterior: Posterior, test: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd over the draws of what each row is expected to be, (row,)."""
    batch = posterior.data.encode(test)
    out = np.empty((2, len(test)))
    for rows, law in posterior.laws(batch):
        out[:, rows] = law.mean.mean(1), law.mean.std(1)
    return out[0], out[1]
