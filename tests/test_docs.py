"""Documents keep their word: code blocks run, links lead somewhere, model pages agree with the code."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import bayesrec as br

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
MODEL_PAGES = {"pmf": "PMF", "collective": "CollectiveMF", "transfer": "TransferMF"}
BESIDE = ("plots", "testing")  # public modules that `bayesrec.__all__` does not name
NO_EXAMPLE = {
    "bayesrec.interop.to_surprise": "needs Surprise, which no test environment has to hold",
    "bayesrec.interop.lenskit_lists": "needs LensKit, which no test environment has to hold",
}


def blocks():
    for page in PAGES:
        for k, match in enumerate(BLOCK.finditer(page.read_text())):
            yield pytest.param(match[1], id=f"{page.relative_to(ROOT)}-{k}")


@pytest.mark.parametrize("code", list(blocks()))
@pytest.mark.filterwarnings("default::bayesrec.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("default::bayesrec.errors.NegativeTransferWarning")
def test_code_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<docs>", "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", MODEL_PAGES)
def test_model_page_lists_every_site(name):
    text = (ROOT / f"docs/models/{name}.md").read_text()
    model = getattr(br.models, MODEL_PAGES[name])()
    for site in model.latent_dims:
        assert f"`{site}`" in text, f"docs/models/{name}.md does not mention the site {site}"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "Assumptions and limits"
    assert {"Generative process", "Latents", "Inference", "References"} <= set(headings)


def test_cited_keys_exist():
    listed = re.findall(r"@\w+\{([^,]+),", (ROOT / "docs/references.bib").read_text())
    keys = set(listed)
    assert len(keys) == len(listed) > 20
    cite = re.compile(r"`([a-z]+[0-9]{4}[a-z0-9]*)`")
    cited = {page: cite.findall(page.read_text()) for page in [*PAGES, *(ROOT / "bayesrec").rglob("*.py")]}
    for page, found in cited.items():
        assert set(found) <= keys, f"{page.name} cites {sorted(set(found) - keys)}"
    assert {"mcsherry2008", "tipping1999", "hoffman2014"} <= {key for found in cited.values() for key in found}


@pytest.mark.parametrize(("kind", "page"), [("concept", "concepts.md"), ("transfer", "transfer.md")])
def test_pictures_say_how_they_were_made(kind, page):
    text, script = (ROOT / "docs" / page).read_text(), (ROOT / "docs/figures.py").read_text()
    drawn = re.findall(r'"(\w+)": \w+[,}]', re.search(rf'"{kind}": (\{{.+?\}})', script)[1])
    assert drawn
    assert {f"{kind}_{name}.svg" for name in drawn} == {path.name for path in (ROOT / "docs/images").glob(f"{kind}_*")}
    for name in drawn:
        assert f"(images/{kind}_{name}.svg)" in text, f"{page} does not show {name}"
        assert f"`python docs/figures.py {name}`" in text, f"{page} does not say what made {name}"


def names_of(module):
    """The public names of a module: ``__all__``, or what it defines itself."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return list(getattr(module, "__all__", own))


def public():
    """Every public name, as {dotted path: object}, the modules among them."""
    out = {f"bayesrec.{name}": getattr(br, name) for name in br.__all__}
    todo = [value for value in out.values() if isinstance(value, ModuleType)]
    todo += [importlib.import_module(f"bayesrec.{name}") for name in BESIDE]
    for module in todo:
        for name in names_of(module):
            value = getattr(module, name)
            out[f"{module.__name__}.{name}"] = value
            if isinstance(value, ModuleType) and value not in todo:
                todo.append(value)
    return out


def documented():
    """Every entry of the reference, as {dotted path: object}."""
    out = {}
    for page in (ROOT / "docs/api").glob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            assert path not in out, f"{path} has two entries"
            home, _, name = path.rpartition(".")
            value = getattr(importlib.import_module(home), name, None)
            assert value is not None, f"docs/api/{page.name}: there is no {path}"
            out[path] = value
    return out


def without_entry(names, entries):
    """Public names without an entry: one of the same name for the same object, wherever it is defined."""
    have = {(path.rpartition(".")[2], id(value)) for path, value in entries.items()}
    return sorted(path for path, value in names.items() if (path.rpartition(".")[2], id(value)) not in have)


def without_example(names):
    """Public functions and classes without an example in their docstring or, for a class, in that of a public method."""
    out = []
    for path, value in names.items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            continue
        if inspect.isclass(value):
            docs = [value.__doc__, *(getattr(value, name).__doc__ for name in vars(value) if not name.startswith("_"))]
        elif inspect.isfunction(value):
            docs = [value.__doc__]
        else:
            continue
        if not any(re.search(r"Examples\n\s*--------\n.*>>> ", doc or "", re.DOTALL) for doc in docs):
            out.append(path)
    return sorted(out)


def test_every_public_name_has_an_entry():
    missing = without_entry(public(), documented())
    assert not missing, f"docs/api has no entry for {missing}"


def test_every_public_name_has_an_example():
    missing = set(without_example(public()))
    assert missing - set(NO_EXAMPLE) == set(), "no example in the docstring"
    assert set(NO_EXAMPLE) <= missing, "has an example by now: take it off the list"


def test_guards_name_what_is_missing():
    names, entries = public(), documented()
    gone = {path: value for path, value in entries.items() if not path.endswith((".ucb", ".Interactions", ".holdout"))}
    lost = ["bayesrec.Interactions", "bayesrec.data.Interactions", "bayesrec.data.split.holdout", "bayesrec.rules.ucb"]
    assert without_entry(names, gone) == lost
    home = next(path for path, value in entries.items() if value is br.rules.ucb)
    other = entries | {home: br.rules.lcb}
    assert without_entry(names, other) == ["bayesrec.rules.ucb"]

    class Bare:
        """Nothing to see."""

        def method(self):
            """Nor here."""

    class Shown:
        def method(self):
            """Here.

            Examples
            --------
            >>> 1
            1
            """

    def prose():
        """Write ``>>> br.fit`` to fit."""

    assert without_example(
        {"a.Bare": Bare, "a.Shown": Shown, "a.prose": prose, "a.DataError": br.errors.DataError}
    ) == [
        "a.Bare",
        "a.prose",
    ]
