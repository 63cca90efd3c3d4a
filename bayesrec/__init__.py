"""bayesrec: Bayesian transfer learning for recommender systems.

*Interactions* go into a *Model*; a *Method* turns the two into a *Posterior*; a *Rule* turns a posterior into a
ranking.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesrec import baselines, data, datasets, errors, interop, metrics, models, rules
    from bayesrec.data import Interactions, split
    from bayesrec.diagnostics import (
        PowerChoice,
        Stack,
        TransferReport,
        Worth,
        assess_transfer,
        choose_power,
        load,
        negative_transfer,
        relevance,
        source_weight,
        stack,
        transfer_datatree,
        worth_in_ratings,
    )
    from bayesrec.diagnostics.borrowing import borrowing
    from bayesrec.diagnostics.conflict import conflict
    from bayesrec.diagnostics.spread import compare_spread
    from bayesrec.elicitation import next_question
    from bayesrec.evaluation import Evaluation, RankingEvaluation, evaluate, evaluate_ranking
    from bayesrec.exploration import Replay, replay
    from bayesrec.inference import NUTS, SVI, VMP, Gibbs, fit, sample_prior
    from bayesrec.likelihoods import Bernoulli, Gaussian, Implicit, Ordinal, Poisson, StudentT
    from bayesrec.posterior import Posterior
    from bayesrec.ranking import recommend
    from bayesrec.reports import report
    from bayesrec.sources import SourcePrior

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first asked for: `bayesrec --help` needs no torch.
_HOME = {
    "Bernoulli": "likelihoods",
    "Evaluation": "evaluation",
    "Gaussian": "likelihoods",
    "Gibbs": "inference",
    "Implicit": "likelihoods",
    "Interactions": "data",
    "NUTS": "inference",
    "Ordinal": "likelihoods",
    "Poisson": "likelihoods",
    "Posterior": "posterior",
    "PowerChoice": "diagnostics",
    "RankingEvaluation": "evaluation",
    "Replay": "exploration",
    "SVI": "inference",
    "SourcePrior": "sources",
    "Stack": "diagnostics",
    "StudentT": "likelihoods",
    "TransferReport": "diagnostics",
    "VMP": "inference",
    "Worth": "diagnostics",
    "assess_transfer": "diagnostics",
    "baselines": "",
    "borrowing": "diagnostics",
    "choose_power": "diagnostics",
    "compare_spread": "diagnostics.spread",
    "conflict": "diagnostics",
    "data": "",
    "datasets": "",
    "errors": "",
    "evaluate": "evaluation",
    "evaluate_ranking": "evaluation",
    "fit": "inference",
    "interop": "",
    "load": "diagnostics",
    "metrics": "",
    "models": "",
    "negative_transfer": "diagnostics",
    "next_question": "elicitation",
    "recommend": "ranking",
    "relevance": "diagnostics",
    "replay": "exploration",
    "report": "reports",
    "rules": "",
    "sample_prior": "inference",
    "source_weight": "diagnostics",
    "split": "data",
    "stack": "diagnostics",
    "transfer_datatree": "diagnostics",
    "worth_in_ratings": "diagnostics",
}
__all__ = [
    "Bernoulli",
    "Evaluation",
    "Gaussian",
    "Gibbs",
    "Implicit",
    "Interactions",
    "NUTS",
    "Ordinal",
    "Poisson",
    "Posterior",
    "PowerChoice",
    "RankingEvaluation",
    "Replay",
    "SVI",
    "SourcePrior",
    "Stack",
    "StudentT",
    "TransferReport",
    "VMP",
    "Worth",
    "assess_transfer",
    "baselines",
    "borrowing",
    "choose_power",
    "compare_spread",
    "conflict",
    "data",
    "datasets",
    "errors",
    "evaluate",
    "evaluate_ranking",
    "fit",
    "interop",
    "load",
    "metrics",
    "models",
    "negative_transfer",
    "next_question",
    "recommend",
    "relevance",
    "replay",
    "report",
    "rules",
    "sample_prior",
    "source_weight",
    "split",
    "stack",
    "transfer_datatree",
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
