"""Diagnostics: what a prediction owes to whom, whether the source hurts, calibration."""

from bayesrec.diagnostics.verdict import TransferReport, assess_transfer, negative_transfer
from bayesrec.diagnostics.weights import relevance, source_weight

__all__ = ["TransferReport", "assess_transfer", "negative_transfer", "relevance", "source_weight"]
