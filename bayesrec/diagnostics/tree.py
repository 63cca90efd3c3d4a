"""What a posterior says of its source, in ArviZ's DataTree."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.diagnostics.borrowing import of_users
from bayesrec.diagnostics.conflict import tested
from bayesrec.diagnostics.informed import checked_draws, informed, needs_rows
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import Posterior
from bayesrec.posterior.arviz import called, coordinates

__all__ = ["transfer_datatree"]


def transfer_datatree(posterior: Posterior, draws: int = 100, log_likelihood: bool = True) -> Any:
    """ArviZ: the groups of :meth:`Posterior.to_datatree`, and ``transfer``, what each draw says of the source. Provisional.

    Parameters
    ----------
    posterior : Posterior
    draws : int
        Number of draws in that group, evenly spaced in each chain.
    log_likelihood : bool
        As for :meth:`Posterior.to_datatree`.

    Returns
    -------
    xarray.DataTree
        The group ``transfer`` has ``relevance`` (chain, draw, source, user), and (chain, draw, user) each: ``n0`` and ``pull``
        (see :func:`bayesrec.borrowing`), ``p_source``, ``p_population`` and ``support`` (see :func:`bayesrec.conflict`; NaN
        without target ratings, left out for other likelihoods than a Gaussian). The coordinate ``draw`` has the places of the
        draws in their chains.

    Raises
    ------
    DataError
        Fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> tree = transfer_datatree(posterior, draws=10)
    >>> tree["transfer"]["n0"].dims, tree["transfer"]["n0"].shape
    (('chain', 'draw', 'user'), (2, 5, 30))
    """
    from arviz_base import from_dict

    draws = checked_draws(draws)
    posterior.require_data("transfer_datatree")
    needs_rows(posterior, "transfer_datatree")
    data, chains = posterior.data, posterior.n_chains
    picked = np.unique(np.linspace(0, posterior.n_draws - 1, max(1, draws // chains)).astype(int))
    places = [(chain, int(draw)) for chain in range(chains) for draw in picked]
    n = np.bincount(data.user[data.is_target], minlength=data.n_users)
    names = ["n0", "pull"]
    if isinstance(posterior.model.likelihood, Gaussian):
        names += ["p_source", "p_population", "support"]
    rows, relevance = [], []
    for one in informed(posterior, np.arange(data.n_users), places):
        parts = [of_users(posterior, one)]
        if len(names) > 2:
            parts.append(np.where(n > 0, tested(one, n), np.nan))
        rows.append(np.concatenate(parts))
        relevance.append(one.informants.relevance)

    def shaped(values: list[np.ndarray]) -> np.ndarray:
        return np.stack(values).reshape(chains, len(picked), *values[0].shape)

    user, labels = called(posterior, "user"), coordinates(posterior)
    group = dict(zip(names, np.moveaxis(shaped(rows), 2, 0), strict=True))
    dims, coords = {name: [user] for name in group}, {user: labels["user"], "draw": picked}
    if len(relevance[0]):
        group["relevance"], dims["relevance"] = shaped(relevance), ["source", user]
        coords["source"] = labels["source"]
    tree = posterior.to_datatree(log_likelihood)
    tree["transfer"] = from_dict({"transfer": group}, dims=dims, coords=coords).children["transfer"]
    return tree
