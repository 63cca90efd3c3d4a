"""Simple honest baselines: what any model has to beat. Each predicts from codes in one line."""

from bayesrec.baselines.base import Baseline
from bayesrec.baselines.bias import BiasBaseline, bias_transfer, global_mean, item_bias, item_user_bias, target_bias
from bayesrec.baselines.clicks import popularity, stacked_ppca
from bayesrec.baselines.stacked import stacked_svd

__all__ = [
    "Baseline",
    "BiasBaseline",
    "bias_transfer",
    "global_mean",
    "item_bias",
    "item_user_bias",
    "popularity",
    "stacked_ppca",
    "stacked_svd",
    "target_bias",
]
