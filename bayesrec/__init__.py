"""bayesrec: Bayesian transfer learning for recommender systems.

*Interactions* go into a *Model*; a *Method* turns the two into a *Posterior*; a *Rule* turns a posterior into a
ranking.
"""

from bayesrec import data, errors, metrics, models, rules
from bayesrec.data import Interactions, split
from bayesrec.diagnostics import TransferReport, assess_transfer, negative_transfer, relevance, source_weight
from bayesrec.inference import Gibbs, fit, load, sample_prior
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import Posterior
from bayesrec.ranking import recommend

__version__ = "0.1.0"
__all__ = [
    "Gaussian",
    "Gibbs",
    "Interactions",
    "Posterior",
    "TransferReport",
    "assess_transfer",
    "data",
    "errors",
    "fit",
    "load",
    "metrics",
    "models",
    "negative_transfer",
    "recommend",
    "relevance",
    "rules",
    "sample_prior",
    "source_weight",
    "split",
]
