"""Diagnostics: what a prediction owes to whom, whether the source hurts, calibration."""

from bayesrec.diagnostics.mixture import Stack
from bayesrec.diagnostics.stacking import stack
from bayesrec.diagnostics.verdict import TransferReport, assess_transfer, negative_transfer
from bayesrec.diagnostics.weights import relevance, source_weight
from bayesrec.diagnostics.worth import Worth, worth_in_ratings

__all__ = [
    "Stack",
    "TransferReport",
    "Worth",
    "assess_transfer",
    "negative_transfer",
    "relevance",
    "source_weight",
    "stack",
    "worth_in_ratings",
]
