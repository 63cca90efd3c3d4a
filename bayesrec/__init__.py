"""bayesrec: Bayesian transfer learning for recommender systems.

*Interactions* go into a *Model*; a *Method* turns the two into a *Posterior*; a *Rule* turns a posterior into a
ranking.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesrec import data, datasets, errors, interop, metrics, models, rules
    from bayesrec.data import Interactions, split
    from bayesrec.diagnostics import (
        Stack,
        TransferReport,
        Worth,
        assess_transfer,
        negative_transfer,
        relevance,
        source_weight,
        stack,
        worth_in_ratings,
    )
    from bayesrec.evaluation import Evaluation, evaluate
    from bayesrec.inference import NUTS, SVI, Gibbs, fit, load, sample_prior
    from bayesrec.likelihoods import Gaussian
    from bayesrec.posterior import Posterior
    from bayesrec.ranking import recommend
    from bayesrec.reports import report
    from bayesrec.sources import SourcePrior

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first asked for: `bayesrec --help` needs no torch.
_HOME = {
    "Evaluation": "evaluation",
    "Gaussian": "likelihoods",
    "Gibbs": "inference",
    "Interactions": "data",
    "NUTS": "inference",
    "Posterior": "posterior",
    "SVI": "inference",
    "SourcePrior": "sources",
    "Stack": "diagnostics",
    "TransferReport": "diagnostics",
    "Worth": "diagnostics",
    "assess_transfer": "diagnostics",
    "data": "",
    "datasets": "",
    "errors": "",
    "evaluate": "evaluation",
    "fit": "inference",
    "interop": "",
    "load": "inference",
    "metrics": "",
    "models": "",
    "negative_transfer": "diagnostics",
    "recommend": "ranking",
    "relevance": "diagnostics",
    "report": "reports",
    "rules": "",
    "sample_prior": "inference",
    "source_weight": "diagnostics",
    "split": "data",
    "stack": "diagnostics",
    "worth_in_ratings": "diagnostics",
}
__all__ = [
    "Evaluation",
    "Gaussian",
    "Gibbs",
    "Interactions",
    "NUTS",
    "Posterior",
    "SVI",
    "SourcePrior",
    "Stack",
    "TransferReport",
    "Worth",
    "assess_transfer",
    "data",
    "datasets",
    "errors",
    "evaluate",
    "fit",
    "interop",
    "load",
    "metrics",
    "models",
    "negative_transfer",
    "recommend",
    "relevance",
    "report",
    "rules",
    "sample_prior",
    "source_weight",
    "split",
    "stack",
    "worth_in_ratings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bayesrec' has no attribute {name!r}")
    home = _HOME[name]
    value = (
        getattr(importlib.import_module(f"bayesrec.{home}"), name)
        if home
        else importlib.import_module(f"bayesrec.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
