"""Likelihoods: how a rating comes about once its expected value ``eta`` is known."""

from __future__ import annotations

from bayesrec.likelihoods.base import Fitted, Latents, Likelihood, Units
from bayesrec.likelihoods.by_domain import ByDomain
from bayesrec.likelihoods.gaussian import Gaussian
from bayesrec.likelihoods.implicit import Implicit
from bayesrec.likelihoods.ordinal import Bernoulli, Ordinal
from bayesrec.likelihoods.poisson import Poisson
from bayesrec.likelihoods.student import StudentT

__all__ = [
    "Bernoulli",
    "ByDomain",
    "Fitted",
    "Gaussian",
    "Implicit",
    "Latents",
    "Likelihood",
    "Ordinal",
    "Poisson",
    "StudentT",
    "Units",
]
