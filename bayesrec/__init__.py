"""bayesrec: Bayesian transfer learning for recommender systems.

*Interactions* go into a *Model*; a *Method* turns the two into a *Posterior*; a *Rule* turns a posterior into a
ranking.
"""

from bayesrec import data, errors, models
from bayesrec.data import Interactions, split
from bayesrec.inference import Gibbs, fit, load, sample_prior
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import Posterior

__version__ = "0.1.0"
__all__ = [
    "Gaussian",
    "Gibbs",
    "Interactions",
    "Posterior",
    "data",
    "errors",
    "fit",
    "load",
    "models",
    "sample_prior",
    "split",
]
