"""Diagnostics: what a prediction owes to whom, whether the source hurts, calibration."""

from bayesrec.diagnostics.borrowing import borrowing
from bayesrec.diagnostics.conflict import conflict
from bayesrec.diagnostics.mixture import Stack
from bayesrec.diagnostics.powers import PowerChoice, choose_power
from bayesrec.diagnostics.saved import load
from bayesrec.diagnostics.stacking import stack
from bayesrec.diagnostics.tree import transfer_datatree
from bayesrec.diagnostics.verdict import TransferReport, assess_transfer, negative_transfer
from bayesrec.diagnostics.weights import relevance, source_weight
from bayesrec.diagnostics.worth import Worth, worth_in_ratings

__all__ = [
    "PowerChoice",
    "Stack",
    "TransferReport",
    "Worth",
    "assess_transfer",
    "borrowing",
    "choose_power",
    "conflict",
    "load",
    "negative_transfer",
    "relevance",
    "source_weight",
    "stack",
    "transfer_datatree",
    "worth_in_ratings",
]
