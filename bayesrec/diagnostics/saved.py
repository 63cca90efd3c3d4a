"""Loading what was saved: a posterior, or a stack of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bayesrec import inference
from bayesrec.diagnostics.mixture import FORMAT, META, ROWS, Stack, breadth
from bayesrec.diagnostics.simple import Simple
from bayesrec.errors import BayesrecError, LoadError
from bayesrec.posterior import Posterior

__all__ = ["load"]


def load(path: str | Path) -> Posterior | Stack:
    """Read what :meth:`Posterior.save` or :meth:`Stack.save` wrote. Stable.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    Posterior or Stack
        What was saved there.

    Raises
    ------
    LoadError
        Nothing saved there, something incomplete or corrupt, or of a newer version. Only registered classes are built; nothing
        in the folder is executed.

    Examples
    --------
    >>> import tempfile
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     br.load(posterior.save(folder + "/model")).model
    PMF(rank=1, likelihood=Gaussian(user_noise=True), features=False, activity=False)
    """
    folder = Path(path)
    return _stack(folder) if (folder / META).is_file() else inference.load(folder)


def _stack(folder: Path) -> Stack:
    try:
        meta = json.loads((folder / META).read_text())
        if meta["format"] > FORMAT:
            raise LoadError(
                f"{str(folder)!r} was written by a newer bayesrec (format {meta['format']}; this one reads up to {FORMAT}). "
                "Upgrade bayesrec."
            )
        simple = meta.get("baselines", {})  # format 1 had neither these nor an objective
        fits = {name: inference.load(folder / f"arm-{k}") for k, name in enumerate(meta["arms"]) if name not in simple}
        most = max(fits.values(), key=lambda arm: breadth(arm.data))
        arms = {
            name: fits[name] if name in fits else Simple.named(simple[name], most.data, most.schema)
            for name in meta["arms"]
        }
        objective = meta.get("objective", "log_score")
        return Stack(arms, pd.DataFrame(**meta["weights"]), pd.read_parquet(folder / ROWS), objective)
    except LoadError:
        raise
    except (BayesrecError, LookupError, TypeError, ValueError, OSError) as error:
        raise LoadError(f"{str(folder)!r} cannot be read: {type(error).__name__}: {error}") from error
