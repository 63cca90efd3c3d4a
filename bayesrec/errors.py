"""Errors and warnings of bayesrec: one small family, caught together by `BayesrecError`."""

from __future__ import annotations


class BayesrecError(Exception):
    """Base class of every error that bayesrec raises on purpose. Stable."""


class DataError(BayesrecError, ValueError):
    """A table, an id or an option does not fit; the message names it and says what to do. Stable."""


class UnsupportedMethodError(BayesrecError):
    """The model cannot be fitted by this method, or cannot answer this question. Stable."""


class NotFittedError(BayesrecError):
    """The answer needs a fitted posterior. Stable."""


class SamplingError(BayesrecError, FloatingPointError):
    """A sampler met a number that is not finite or a matrix that is not positive definite. Stable."""


class LoadError(BayesrecError):
    """A saved file is damaged, of another format, or names a class that is not registered. Stable."""


class MissingExtraError(BayesrecError, ImportError):
    """An optional package is not installed; the message names the extra that brings it. Stable."""


class BayesrecWarning(UserWarning):
    """Base class of every warning of bayesrec. Stable."""


class DataWarning(BayesrecWarning):
    """A table was usable only after a change, for example after dropping repeated rows. Stable."""


class ConvergenceWarning(BayesrecWarning):
    """The sampler or the optimiser has not converged; answers may be off. Stable."""


class SlowWarning(BayesrecWarning):
    """What was asked for will take long; the message has the estimate and a faster way. Stable."""


class NegativeTransferWarning(BayesrecWarning):
    """The source seems to make target predictions worse. Stable."""
