"""Posterior: draws always (chain, draw, *event), whatever the method, and what is computed from them."""

from bayesrec.posterior.posterior import Posterior

__all__ = ["Posterior"]
