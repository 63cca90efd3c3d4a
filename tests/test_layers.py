"""The layer rule, read off the imports: a module imports lower layers only. The checker is tested on planted faults."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bayesrec

ROOT = Path(bayesrec.__file__).parent
LAYERS = (
    ("errors", "files"),
    ("data",),
    ("datasets",),
    ("tables",),
    ("jit", "vectors", "workers"),
    ("lanes", "streams", "tiles"),
    ("rows",),
    (
        "batched",
        "cuts",
        "kernels",
        "linear_maps",
        "mixtures",
        "privacy",
        "ranking_metrics",
        "slices",
        "sorting",
        "tails",
    ),
    ("table",),
    ("conjugate", "counts", "distributions", "blocks", "metrics", "sources", "sums"),
    ("whole", "baselines"),
    ("likelihoods",),
    ("models",),
    ("posterior",),
    ("inference",),
    ("rules", "diagnostics"),
    ("ranking",),
    ("elicitation", "exploration", "interop"),
    ("evaluation",),
    ("plots",),
    ("reports",),
    ("demo",),
    ("cli",),
)
LEVEL = {name: k for k, layer in enumerate(LAYERS) for name in layer}
CONCRETE = {"bayesrec.models.pmf", "bayesrec.models.collective", "bayesrec.models.transfer"}
CONCRETE |= {f"bayesrec.models.{name}" for name in ("PMF", "CollectiveMF", "TransferMF")}
PANDAS_FREE = (
    "models",
    "likelihoods",
    "conjugate",
    "counts",
    "cuts",
    "kernels",
    "lanes",
    "linear_maps",
    "mixtures",
    "rows",
    "slices",
    "sorting",
    "tails",
    "table",
    "tiles",
    "vectors",
    "whole",
    "blocks",
    "distributions",
    "rules",
    "metrics",
    "ranking_metrics",
    "privacy",
)


def imports(tree):
    """Full dotted names that a module imports, inside functions too, but for `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def attributes(tree):
    """Dotted attribute chains such as ``pyro.sample``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, at = [node.attr], node.value
            while isinstance(at, ast.Attribute):
                parts, at = [at.attr, *parts], at.value
            if isinstance(at, ast.Name):
                yield ".".join([at.id, *parts])


def faults(name, source):
    """What is wrong with the module ``name`` ("models.pmf"), as sentences."""
    tree, top = ast.parse(source), name.split(".")[0]
    if len(source.splitlines()) > 400:
        yield f"{name} has more than 400 lines"
    found = [*imports(tree)]
    for full in found:
        outside = full.split(".")[0]
        if outside in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
            yield f"{name} imports {outside}"
        if outside == "matplotlib" and top not in ("plots", "reports"):
            yield f"{name} imports matplotlib"
        if outside == "pandas" and top in PANDAS_FREE:
            yield f"{name} imports pandas"
        if full in ("pyro.sample", "torch.load", "torch.save"):
            yield f"{name} imports {full} by name"
        if outside == "bayesrec" and top not in ("testing", "__init__"):
            parts = full.split(".")
            other = parts[1] if len(parts) > 1 else ""
            if other == "" or other not in LEVEL:
                yield f"{name} imports {full}, which belongs to no layer"
            elif other != top and not (LEVEL[other] < LEVEL.get(top, -1)):
                yield f"{name} imports {full}, which is not below it"
            if top == "datasets" and other not in ("errors", "data", "datasets"):
                yield f"{name} imports {full}; datasets need data only"
            if full.startswith(tuple(CONCRETE)) and not full.startswith(f"bayesrec.{name}"):
                if top == "inference":
                    yield f"{name} imports the concrete model {full}"
                if top == "models" and name != "models.__init__":
                    yield f"{name} imports another model, {full}"
    chains = set(attributes(tree))
    if "pyro.sample" in chains and top not in ("models", "likelihoods", "inference"):
        yield f"{name} samples with Pyro"
    if {"pyro.param", "torch.load", "torch.save", "pyro.clear_param_store"} & chains:
        yield f"{name} uses global parameters, or torch's pickle"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and getattr(node.value, "value", True) is not False
        ):
            yield f"{name} allows pickle"


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text()


MODULES = dict(modules())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_is_below_it(name):
    assert [*faults(name, MODULES[name])] == []


def test_every_module_has_a_layer():
    tops = {name.split(".")[0] for name in MODULES} - {"__init__", "testing", "datasets"}
    assert tops <= set(LEVEL), f"{tops - set(LEVEL)} belong to no layer"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("data.split", "from bayesrec.models import base", "not below it"),
        ("metrics", "from bayesrec import conjugate", "not below it"),  # a neighbour in its own layer
        ("models.base", "def f():\n    from bayesrec.posterior import Posterior", "not below it"),
        ("posterior.store", "import bayesrec.inference.gibbs", "not below it"),
        ("posterior.store", "import bayesrec", "no layer"),
        ("posterior.store", "from bayesrec import nowhere", "no layer"),
        ("models.pmf", "from bayesrec.models.transfer import TransferMF", "another model"),
        ("models.pmf", "from bayesrec.models import CollectiveMF", "another model"),
        ("inference.gibbs", "from bayesrec.models import PMF", "concrete model"),
        ("inference.gibbs", "from bayesrec.models.transfer import TransferMF", "concrete model"),
        ("posterior.fold", "import pyro\n\ndef f():\n    return pyro.sample('x', 1)", "samples with Pyro"),
        ("posterior.fold", "from pyro import sample", "by name"),
        ("models.base", "import pandas as pd", "imports pandas"),
        ("kernels", "def f():\n    from pandas import DataFrame", "imports pandas"),
        ("diagnostics.verdict", "import matplotlib.pyplot as plt", "matplotlib"),
        ("posterior.store", "import pickle", "pickle"),
        ("posterior.store", "import torch\ntorch.save(1, 'x')", "pickle"),
        ("posterior.store", "import numpy as np\nnp.load('x', allow_pickle=True)", "allows pickle"),
        ("datasets.movielens", "from bayesrec.likelihoods import Gaussian", "data only"),
        ("rules", "\n" * 401, "400 lines"),
        ("models.base", "if TYPE_CHECKING:\n    pass\nelse:\n    import pandas", "imports pandas"),
    ],
)
def test_the_checker_sees_a_planted_fault(name, source, message):
    assert any(message in fault for fault in faults(name, source)), [*faults(name, source)]


def test_what_is_allowed_is_no_fault():
    for name, source in (
        ("posterior.fold", "if TYPE_CHECKING:\n    from bayesrec.inference import Gibbs"),
        ("posterior.fold", "from bayesrec.posterior import predictive"),
        ("models.pmf", "from bayesrec.models.single import SingleVector"),
        ("models.__init__", "from bayesrec.models.pmf import PMF"),
        ("diagnostics.verdict", "from bayesrec.models import PMF"),
        ("testing.case", "from bayesrec.cli import app"),
        ("models.pmf", "import pyro\npyro.sample('x', 1)"),
        ("data.build", "import pandas"),
    ):
        assert [*faults(name, source)] == []
