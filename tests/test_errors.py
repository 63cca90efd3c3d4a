"""The family of errors and warnings."""

from __future__ import annotations

import inspect

import pytest

from bayesrec import errors

ERRORS = [
    errors.DataError,
    errors.UnsupportedMethodError,
    errors.NotFittedError,
    errors.SamplingError,
    errors.LoadError,
    errors.MissingExtraError,
]
WARNINGS = [errors.DataWarning, errors.ConvergenceWarning, errors.SlowWarning, errors.NegativeTransferWarning]


@pytest.mark.parametrize("error", ERRORS)
def test_one_base_catches_every_error(error):
    with pytest.raises(errors.BayesrecError, match="row 3"):
        raise error("row 3")


def test_errors_are_also_what_python_users_expect():
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.MissingExtraError, ImportError)
    assert not issubclass(errors.LoadError, ValueError)


@pytest.mark.parametrize("warning", WARNINGS)
def test_warnings_are_user_warnings_of_one_family(warning):
    assert issubclass(warning, errors.BayesrecWarning)
    assert issubclass(errors.BayesrecWarning, UserWarning)
    assert not issubclass(warning, errors.BayesrecError)


def test_the_module_holds_this_family_only_and_documents_it():
    classes = [thing for _, thing in inspect.getmembers(errors, inspect.isclass)]
    assert set(classes) == {*ERRORS, *WARNINGS, errors.BayesrecError, errors.BayesrecWarning}
    assert all(cls.__module__ == "bayesrec.errors" and cls.__doc__.endswith("Stable.") for cls in classes)
