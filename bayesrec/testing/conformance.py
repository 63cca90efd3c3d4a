"""ModelConformance: the class that a model's test file subclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import pandas as pd
import pytest

from bayesrec.inference import NUTS, SVI, VMP, Gibbs, Method
from bayesrec.inference.vmp import fits
from bayesrec.likelihoods import Gaussian, Likelihood
from bayesrec.models.base import Model
from bayesrec.testing import agreement, draws, prediction
from bayesrec.testing.case import Case, example_frame, suited

__all__ = ["ModelConformance"]

Check = Callable[["ModelConformance", Case], None]


def _of_the_model(test: Check) -> Check:
    """Mark a check that looks at the model, given some draws: it runs with the first method alone."""
    test.columns = "first"  # type: ignore[attr-defined]
    return test


def _against_gibbs(test: Check) -> Check:
    """Mark a check that compares another method with Gibbs."""
    test.columns = "others"  # type: ignore[attr-defined]
    return test


def _of_refusals(test: Check) -> Check:
    """Mark a check of the methods that the model refuses."""
    test.columns = "refused"  # type: ignore[attr-defined]
    return test


def _label(value: Any) -> str:
    """Class of a frozen value with the fields that differ from their defaults."""
    changed = [f for f in dataclasses.fields(value) if getattr(value, f.name) != f.default]
    options = ",".join(f"{f.name}={getattr(value, f.name)!r}" for f in changed)
    return type(value).__name__ + (f"({options})" if options else "")


class ModelConformance:
    """Everything that the rest of the package takes for granted about a model, as pytest tests. Provisional.

    Subclass it under a name that begins with ``Test`` and set ``model`` and ``uses_source``. The tests are a grid:
    a check of the fit runs for every likelihood and every method, a check of the model alone once for every
    likelihood, and every method but Gibbs is held against Gibbs. A test is called ``test_row_order[Gaussian-SVI]``.
    Cells of NUTS, and of other likelihoods than the model's own under SVI and VMP, carry the marker ``slow``.

    One short fit is shared by the tests of a cell. Seeds are fixed. Were they not, relabelling would fail by chance
    once in a thousand runs of a cell, and agreement with Gibbs as :mod:`bayesrec.testing.agreement` says.

    Attributes
    ----------
    model : Model
        The model to test, of a small rank.
    uses_source : bool
        Whether source rows may change what the model says of the target.
    likelihoods : tuple of Likelihood
        Likelihoods to give the model, besides its own. Where one cannot have produced the ratings of ``frame()`` they are
        turned into levels, clicks or counts, :func:`bayesrec.testing.suited`. SVI has to refuse those that it cannot fit; VMP has
        to refuse all but Gaussian, and every model but those of this package for which it has closed forms.
    slow : tuple of Likelihood
        More of them, whose cells carry the marker ``slow``.
    methods : tuple of Method
        How to fit it; short, and Gibbs first. Agreement uses longer fits of its own.
    refuses : tuple of type
        Methods that the model cannot run. Their one check is that ``fit`` raises UnsupportedMethodError before it
        does any work.

    Examples
    --------
    In a test file, where pytest finds it:

    >>> from bayesrec.models import PMF
    >>> class TestMyModel(ModelConformance):
    ...     model = PMF(rank=1)
    ...     uses_source = False

    Each check is a test of its own, and can be run by hand on a case:

    >>> TestMyModel().test_prior_samples_dims(Case(TestMyModel.model, TestMyModel.uses_source))
    """

    model: ClassVar[Model]
    uses_source: ClassVar[bool]
    likelihoods: ClassVar[tuple[Likelihood, ...]] = (Gaussian(), Gaussian(user_noise=False))
    slow: ClassVar[tuple[Likelihood, ...]] = ()
    methods: ClassVar[tuple[Method, ...]] = (
        Gibbs(draws=40, warmup=20, chains=2),
        VMP(passes=5, draws=15, chains=2),
        SVI(steps=5, draws=15, chains=2),
        NUTS(draws=15, warmup=10, chains=2, max_tree_depth=3),
    )
    refuses: ClassVar[tuple[type[Method], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("test_agrees_with_gibbs", "test_refuses_at_once"):
            if name not in vars(cls):  # pytest would report a test without cells as skipped
                test = vars(ModelConformance)[name]
                setattr(cls, name, test if any(cls._columns(test.columns, one) for one in cls._rows()) else None)

    @classmethod
    def frame(cls) -> pd.DataFrame:
        """Return the table to fit: user, item, domain ("target" among them), rating. Override for other ratings."""
        return example_frame()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Lay out the grid: pytest calls this for each test of the class."""
        if "case" not in metafunc.fixturenames:
            return
        metafunc.config.addinivalue_line("markers", "slow: fits of minutes")
        cells = []
        for likelihood in self._rows():
            which = getattr(metafunc.function, "columns", "all")
            for method in self._columns(which, likelihood):
                other = likelihood != self.model.likelihood and not isinstance(method, Gibbs)
                slow = (other and which != "refused") or likelihood in self.slow or isinstance(method, NUTS)
                marks = [pytest.mark.slow] if slow else []
                name = f"{_label(likelihood)}-{type(method).__name__}"
                cells.append(pytest.param((likelihood, method), id=name, marks=marks))
        metafunc.parametrize("case", cells, indirect=True, scope="class")

    @classmethod
    def _rows(cls) -> list[Likelihood]:
        """Likelihoods that the model gets."""
        return list(dict.fromkeys((*cls.likelihoods, cls.model.likelihood, *cls.slow)))

    @classmethod
    def _columns(cls, which: str, likelihood: Likelihood) -> list[Method]:
        """Methods that a test runs with."""
        refuses: tuple[type[Any], ...] = cls.refuses if likelihood.svi else (*cls.refuses, SVI)
        if not fits(dataclasses.replace(cls.model, likelihood=likelihood)):
            refuses = (*refuses, VMP)
        if which == "refused":
            return [method for method in cls.methods if isinstance(method, refuses)]
        accepted = [method for method in cls.methods if not isinstance(method, refuses)]
        if which == "others":
            return [method for method in accepted if not isinstance(method, Gibbs)]
        return accepted[:1] if which == "first" else accepted

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> Case:
        """Return the model with the likelihood and the method of a cell, the table and one fit."""
        likelihood, method = request.param
        model = dataclasses.replace(cls.model, likelihood=likelihood)
        return Case(model, cls.uses_source, suited(cls.frame(), likelihood), method=method)

    def test_draws_match_dims(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.draws_match_dims`."""
        draws.draws_match_dims(case)

    @_of_the_model
    def test_prior_samples_dims(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.prior_samples_dims`."""
        draws.prior_samples_dims(case)

    @_of_the_model
    def test_score_broadcasts(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.score_broadcasts`."""
        draws.score_broadcasts(case)

    @_of_the_model
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

    @_of_the_model
    def test_blocks_leave_the_state(self, case: Case) -> None:
        """See :func:`bayesrec.testing.draws.blocks_leave_the_state`."""
        draws.blocks_leave_the_state(case)

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

    @_of_the_model
    def test_unknown_user(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_user`."""
        prediction.unknown_user(case)

    @_of_the_model
    def test_unknown_item(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_item`."""
        prediction.unknown_item(case)

    @_of_the_model
    def test_unknown_both(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.unknown_both`."""
        prediction.unknown_both(case)

    def test_diagnostics_with_chains(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.diagnostics_with_chains`."""
        prediction.diagnostics_with_chains(case)

    def test_datatree(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.datatree`."""
        prediction.datatree(case)

    @_of_the_model
    def test_prior_predictive_scale(self, case: Case) -> None:
        """See :func:`bayesrec.testing.prediction.prior_predictive_scale`."""
        prediction.prior_predictive_scale(case)

    @_against_gibbs
    def test_agrees_with_gibbs(self, case: Case) -> None:
        """See :func:`bayesrec.testing.agreement.agrees_with_gibbs`."""
        agreement.agrees_with_gibbs(case)

    @_of_refusals
    def test_refuses_at_once(self, case: Case) -> None:
        """See :func:`bayesrec.testing.agreement.refuses_at_once`."""
        agreement.refuses_at_once(case)
