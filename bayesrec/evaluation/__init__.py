"""Evaluation: models x methods x splits x seeds in one table, always beside the simple baselines."""

from bayesrec.evaluation.result import Evaluation
from bayesrec.evaluation.run import evaluate

__all__ = ["Evaluation", "evaluate"]
