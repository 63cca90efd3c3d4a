"""Documents keep their word: code blocks run, links lead somewhere, model pages agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bayesrec as br

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
MODEL_PAGES = {"pmf": "PMF", "collective": "CollectiveMF", "transfer": "TransferMF"}


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
    keys = set(re.findall(r"@\w+\{([^,]+),", (ROOT / "docs/references.bib").read_text()))
    assert len(keys) > 20
    for page in (ROOT / "docs/models").glob("*.md"):
        part = page.read_text().split("## References")[-1]
        for key in re.findall(r"`([a-z]+[0-9]{4}[a-z0-9]*)`", part):
            assert key in keys, f"{page.name} cites {key}"
