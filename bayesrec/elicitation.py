"""next_question: which ratings to ask a user for, so that little is left to be uncertain about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from bayesrec.data.frames import make_frame
from bayesrec.data.ids import shown
from bayesrec.errors import DataError
from bayesrec.posterior import Posterior, predictive
from bayesrec.ranking import candidates_of, excluded, ids_of, like_known, sides

__all__ = ["next_question"]


def next_question(posterior: Posterior, user: Any, n: int = 5, items: Any = None) -> Any:
    """Say which items a user should be asked to rate: those whose ratings settle most about all the others. Provisional.

    The question to ask first is the item whose rating reduces the variance of the expected ratings, summed over the
    candidates, most; the next one is chosen given the answer to the first, whatever it will be: in a normal model the
    variance that an answer leaves does not depend on the answer. The sum of variances is taken rather than the mutual
    information, which counts what is learned of tastes that no candidate appeals to, and has no units.

    * A user who was not in the fit has the population's covariance in each draw of items and hyperparameters, and the
      reductions are averaged over the draws: exact for a Gaussian likelihood, given the draw. For other likelihoods it is that
      of the latent responses.
    * For a user of the fit the covariance of the expected ratings is that of the draws, and expected ratings count as jointly
      normal. Few draws overstate what an answer settles: have at least some hundred.

    Parameters
    ----------
    posterior : Posterior
    user : id or sequence of ids
    n : int
        Number of questions for each user.
    items : sequence of ids, optional
        What can be asked and is to be predicted; by default the items with a target row in training. What the user has
        rated is left out.

    Returns
    -------
    DataFrame
        user, rank, item, reduction, left: the expected reduction of the summed variance by this answer, in squared rating units,
        and the share of the sum at the start that is left after this and the questions before it.

    Raises
    ------
    DataError
        No user, a user named twice, an unknown candidate, an ``n`` that is no whole number of at least 1.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=50, warmup=20, chains=2), progress=False)
    >>> questions = br.next_question(posterior, "somebody new", n=2)
    >>> questions.columns.tolist(), bool(questions["left"].is_monotonic_decreasing)
    (['user', 'rank', 'item', 'reduction', 'left'], True)

    References
    ----------
    Cohn, Ghahramani and Jordan (1996), Active learning with statistical models; Rubens et al. (2015), Active learning in
    recommender systems.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(f"n must be a whole number of at least 1, not {n!r}")
    if not isinstance(posterior, Posterior):
        raise DataError(f"next_question takes a Posterior, not a {type(posterior).__name__}; of a stack give it an arm")
    posterior.require_draws("next_question")
    people, things, domain = sides(posterior)
    ids = ids_of(user, "user")
    codes = people.encode(ids, domain)
    ids = pd.Index([people.ids[code] if code >= 0 else id_ for code, id_ in zip(codes, ids, strict=True)], dtype=object)
    if ids.has_duplicates:
        raise DataError(f"user {shown(ids[ids.duplicated()][0])} is named twice; name each user once.")
    candidates = candidates_of(posterior, items)
    if (codes >= 0).any():
        posterior.require_data("next_question for a user of the fit")
    seen = excluded(posterior, "seen" if len(posterior.data) else None, ids, codes)
    parts = []
    for place, (id_, code) in enumerate(zip(ids, codes, strict=True)):
        mine = candidates[~np.isin(candidates, seen.get(id_, ()))]
        if not len(mine):
            raise DataError(f"user {shown(id_)} has rated every candidate; there is nothing left to ask.")
        stranger = code < 0 and not posterior.data.columns.swapped
        roots, noise = _population(posterior, mine) if stranger else _drawn(posterior, int(code), mine)
        chosen, reduction, left = questions(roots, noise, int(n))
        table = {"place": place, "rank": np.arange(1, len(chosen) + 1), "item": mine[chosen], "reduction": reduction}
        parts.append(pd.DataFrame(table | {"left": left}))
    out, columns = pd.concat(parts, ignore_index=True), posterior.data.columns
    person, thing = columns.ids(columns.user, columns.item)
    names = like_known(ids, people, domain, posterior.data.layout.backend).take(out["place"].to_numpy())
    table = {person: names, "rank": out["rank"], thing: things.decode(out["item"])}
    return make_frame(table | {name: out[name] for name in ("reduction", "left")}, posterior.data.layout.backend)


def _population(posterior: Posterior, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots (draw, component, item) of the covariance of a stranger's expected ratings in each draw, and noise (draw, item)."""
    n, last, model = len(items), posterior.schema.n_domains - 1, posterior.model
    rows = predictive.compact(model, posterior.draws, posterior.schema, np.full(n, -1), items, np.full(n, last))
    eta, scale = model.score(rows.latents, rows.batch), float(posterior.schema.scale[-1])
    *_, sd = model.likelihood.components(eta, torch.zeros((), dtype=eta.dtype), rows.latents, rows.batch)
    design = model.vectors(rows.latents, rows.batch)[1].double().clone()
    design[..., 0] = 1.0
    chol = torch.linalg.cholesky(rows.population.user_cov[:, last].double())
    noise = np.broadcast_to(sd.double().numpy(), tuple(eta.shape))
    return scale * (design @ chol).mT.numpy(), (scale * noise) ** 2


def _drawn(posterior: Posterior, user: int, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same from the draws of a user of the fit: one root (1, draw, item), and the mean noise (1, item)."""
    draws = posterior.expected(user, items)
    last, n = posterior.schema.n_domains - 1, len(items)
    who, what = np.full(n, user), items
    first, second = (what, who) if posterior.data.columns.swapped else (who, what)
    laws = predictive.components(posterior.model, posterior.draws, posterior.schema, first, second, np.full(n, last))
    noise = np.concatenate([law.variance.mean(1) for _, law in laws])
    return ((draws - draws.mean(0)) / np.sqrt(max(len(draws) - 1, 1)))[None], noise[None]


def questions(roots: np.ndarray, noise: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose items one by one in one or several normal models whose reductions are averaged. Internal.

    Parameters
    ----------
    roots : ndarray, (model, component, item)
        The covariance of the items in a model is ``root.T @ root``.
    noise : ndarray, (model, item)
        Variance of a rating around its expectation.
    n : int

    Returns
    -------
    chosen : ndarray of int, (question,)
    reduction : ndarray, (question,)
        By which an answer reduces the sum of variances.
    left : ndarray, (question,)
        Share of the first sum that is left.
    """
    roots, free = np.array(roots, dtype=float), np.ones(roots.shape[2], dtype=bool)
    total = float((roots**2).sum((1, 2)).mean())
    chosen, reduction = [], []
    for _ in range(min(n, roots.shape[2])):
        variance = (roots**2).sum(1)
        # sum over i of cov_ij^2 = |root cov_.j|^2, by the inner products of components
        shared = np.matmul(roots @ roots.transpose(0, 2, 1), roots)
        gain = ((shared * roots).sum(1) / (variance + noise)).mean(0)
        best = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(best)
        reduction.append(float(gain[best]))
        free[best] = False
        # cov - cov_.j cov_j. / (var_j + noise_j) = root' (I - f f' / (var_j + noise_j)) root, and the middle has a root
        f, v, s = roots[:, :, best], variance[:, best], noise[:, best]
        step = 1.0 / (v + s + np.sqrt(s * (v + s)))
        roots = roots - (step[:, None] * f)[:, :, None] * np.matmul(f[:, None, :], roots)
    left = 1.0 - np.cumsum(reduction) / total if total > 0 else np.zeros(len(reduction))
    return np.array(chosen), np.array(reduction), left
