"""Evaluation: models x methods x splits x seeds in one table, always beside the simple baselines."""

from bayesrec.evaluation.ranking import RankingEvaluation, evaluate_ranking
from bayesrec.evaluation.result import Evaluation
from bayesrec.evaluation.run import evaluate

__all__ = ["Evaluation", "RankingEvaluation", "evaluate", "evaluate_ranking"]
