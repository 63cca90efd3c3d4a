"""Inference: fit, its methods, and loading what was saved."""

from __future__ import annotations

from pathlib import Path

from bayesrec.inference.base import Method, fit, sample_prior
from bayesrec.inference.gibbs import Gibbs
from bayesrec.inference.nuts import NUTS
from bayesrec.inference.svi import SVI
from bayesrec.inference.vmp import VMP
from bayesrec.posterior import Posterior, store

__all__ = ["NUTS", "SVI", "VMP", "Gibbs", "Method", "fit", "load", "sample_prior"]


def load(path: str | Path) -> Posterior:
    """Read a posterior that :meth:`Posterior.save` wrote. Stable.

    Only registered classes are built; nothing in the folder is executed.

    Raises
    ------
    LoadError
        No saved posterior there, an incomplete or corrupt one, or one of a newer version.

    Examples
    --------
    >>> import tempfile, bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     br.load(posterior.save(folder + "/model")).model
    PMF(rank=1, likelihood=Gaussian(user_noise=True), features=False, activity=False)
    """
    return Posterior(**store.load(path, {"Gibbs": Gibbs, "NUTS": NUTS, "SVI": SVI, "VMP": VMP}))
