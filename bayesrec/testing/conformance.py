"""ModelConformance: the class that a model's test file subclasses."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
import pytest

from bayesrec.inference import Gibbs, Method
from bayesrec.models.base import Model
from bayesrec.testing import draws, prediction
from bayesrec.testing.case import Case, example_frame

__all__ = ["ModelConformance"]


class ModelConformance:
    """Everything that the rest of the package takes for granted about a model, as pytest tests. Provisional.

    Subclass it under a name that begins with ``Test`` and set the attributes. One short fit is shared by the tests of
    a class. The test of relabelling fails by chance once in a thousand runs; its seed is fixed.

    Attributes
    ----------
    model : Model
        The model to test, of a small rank.
    uses_source : bool
        Whether source rows may change what the model says of the target.
    method : Method
        How to fit it; short.
    """

    model: ClassVar[Model]
    uses_source: ClassVar[bool]
    method: ClassVar[Method] = Gibbs(draws=40, warmup=20, chains=2)

    @classmethod
    def frame(cls) -> pd.DataFrame:
        """Return the table to fit: user, item, domain ("target" among them), rating. Override for other ratings."""
        return example_frame()

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> Case:
        """Return the model with its table and one fit."""
        return Case(cls.model, cls.uses_source, cls.frame(), method=cls.method)

    def test_draws_match_dims(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.draws_match_dims`."""
        draws.draws_match_dims(case)

    def test_prior_samples_dims(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.prior_samples_dims`."""
        draws.prior_samples_dims(case)

    def test_score_broadcasts(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.score_broadcasts`."""
        draws.score_broadcasts(case)

    def test_batched_log_density(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.batched_log_density`."""
        draws.batched_log_density(case)

    def test_stated_log_density(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.stated_log_density`."""
        draws.stated_log_density(case)

    def test_equal_seeds(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.equal_seeds`."""
        draws.equal_seeds(case)

    def test_no_global_state(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.no_global_state`."""
        draws.no_global_state(case)

    def test_model_unchanged(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.model_unchanged`."""
        draws.model_unchanged(case)

    def test_save_and_load(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.save_and_load`."""
        draws.save_and_load(case)

    def test_relabelling(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.relabelling`."""
        prediction.relabelling(case)

    def test_row_order(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.row_order`."""
        prediction.row_order(case)

    def test_source_is_used(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.source_is_used`."""
        prediction.source_is_used(case)

    def test_unknown_user(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_user`."""
        prediction.unknown_user(case)

    def test_unknown_item(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_item`."""
        prediction.unknown_item(case)

    def test_unknown_both(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_both`."""
        prediction.unknown_both(case)

    def test_diagnostics_with_chains(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.diagnostics_with_chains`."""
        prediction.diagnostics_with_chains(case)

    def test_datatree(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.datatree`."""
        prediction.datatree(case)

    def test_prior_predictive_scale(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.prior_predictive_scale`."""
        prediction.prior_predictive_scale(case)
