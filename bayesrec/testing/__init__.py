"""The conformance suite: what every new model, likelihood or method must pass. Provisional; needs pytest.

A test file for a new model is five lines::

    from bayesrec.testing import ModelConformance
    from mypackage import MyModel

    class TestMyModel(ModelConformance):
        model = MyModel(rank=2)
        uses_source = True
"""

from bayesrec.testing.case import Case, example_frame, suited
from bayesrec.testing.conformance import ModelConformance
from bayesrec.testing.sbc import Ranks, ecdf_band, per_draw, sbc_ranks, uniform

__all__ = [
    "Case",
    "ModelConformance",
    "Ranks",
    "ecdf_band",
    "example_frame",
    "per_draw",
    "sbc_ranks",
    "suited",
    "uniform",
]
