"""Likelihoods: how a rating comes about once its expected value ``eta`` is known."""

from __future__ import annotations

from bayesrec.likelihoods.base import Fitted, Latents, Likelihood, Units
from bayesrec.likelihoods.gaussian import Gaussian
from bayesrec.likelihoods.ordinal import Bernoulli, Ordinal

__all__ = ["Bernoulli", "Fitted", "Gaussian", "Latents", "Likelihood", "Ordinal", "Units"]
