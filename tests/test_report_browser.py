"""The report in a real browser: nothing wider than the screen, nothing fetched, nothing complained about."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import bayesrec as br
from bayesrec.reports import facts, report

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright, of the extra 'dev'")
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROME is None, reason="no Chromium on the PATH"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),
]
LONG = "a name without any place to break it " + "x" * 80


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages with a verdict, for shared users and shared items, and without a source; long names of items and domains."""
    folder = tmp_path_factory.mktemp("pages")
    frame, _ = br.data.synthetic.cross_domain(n_users=90, n_items=(30, 25), n_ratings=(12, 10), rank=1, n_cold=5)
    frame["item"] = np.where(frame["item"] < 12, "short ", LONG) + frame["item"].astype(str)
    frame["domain"] = frame["domain"].replace({"source": "books-and-other-long-reads", "target": "music"})
    data = br.Interactions.from_frame(frame, target="music", value="value")
    train, cold = br.split.cold_users(data, fraction=0.4, seed=0)
    method = br.Gibbs(draws=20, warmup=20, chains=4)
    arm = br.fit(br.models.TransferMF(rank=1), train, method, progress=False)
    bare = br.fit(br.models.PMF(rank=1), train, method, progress=False)
    with facts.quiet(br.errors.NegativeTransferWarning):
        full = report(arm, folder / "full.html", without=bare, test=cold, progress=False)
    names = {"user": "item", "item": "user"}
    films = br.Interactions.from_frame(
        train.to_frame().rename(columns=names), target="music", value="value", shared="items"
    )
    other = br.fit(br.models.TransferMF(rank=1), films, method, progress=False)
    other_bare = br.fit(br.models.PMF(rank=1), films, method, progress=False)
    with facts.quiet(br.errors.NegativeTransferWarning):
        held_out = cold.to_frame().rename(columns=names)
        items = report(other, folder / "items.html", without=other_bare, test=held_out, progress=False)
    return {
        "full": full,
        "items": items,
        "pmf": report(bare, folder / "pmf.html", test=cold),
        "none": report(arm, folder / "n.html", folds=0),
    }


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"{CHROME} does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def show(browser):
    """Open a page at a width; what it asked for and complained about is in ``heard``."""
    contexts = []

    def call(path: Path, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        return page

    yield call
    for context in contexts:
        context.close()


WIDER = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map(e => e.tagName + ' ' + e.className)"""


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("name", ["full", "items", "pmf", "none"])
def test_no_page_is_wider_than_its_screen(pages, show, name, width):
    page = show(pages[name], width)
    for opened in (False, True):
        if opened:
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDER) == []
    assert page.heard == [pages[name].as_uri()], "one request, for the page itself, and a silent console"


def test_a_planted_wide_element_is_seen(pages, show):
    page = show(pages["full"], 360)
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<p style=\"width:500px\">wide</p>')")
    assert page.evaluate("document.documentElement.scrollWidth") > 360
    assert page.evaluate(WIDER) == ["P "]
    page.evaluate("console.error('planted'); fetch('http://127.0.0.1:9/x').catch(() => 0)")
    page.wait_for_timeout(100)
    assert "planted" in page.heard
    assert any("127.0.0.1:9" in heard for heard in page.heard)


def test_headings_and_pictures_are_there_for_everybody(pages, show):
    page = show(pages["full"], 360)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels.count(2) == 9
    assert all(b - a <= 1 for a, b in zip(levels[:-1], levels[1:], strict=True))
    assert page.get_by_role("heading", name="What to do now").is_visible()
    assert page.get_by_role("img", name=re.compile("Histogram of users")).is_visible()
    assert page.get_by_role("columnheader", name="90% range").count() == 2
    assert page.get_by_role("listitem").filter(has_text="Newcomers: no rating yet").is_visible()
    page.get_by_text("What to do now").first.click()
    assert page.evaluate("location.hash") == "#do"


def colours(page):
    script = """() => {const bar = document.querySelector('svg rect.source'), s = getComputedStyle;
        const note = document.querySelector('p.note');
        return [s(document.body).backgroundColor, s(document.body).color, s(bar).fill, s(note).color]}"""
    return [[int(x) for x in re.findall(r"\d+", colour)[:3]] for colour in page.evaluate(script)]


def contrast(a, b):
    """WCAG 2 contrast ratio."""

    def light(rgb):
        x = np.array(rgb) / 255
        x = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        return x @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_dark_is_dark_and_both_can_be_read(pages, show):
    light, dark = (colours(show(pages["full"], 1280, scheme)) for scheme in ("light", "dark"))
    assert sum(light[0]) > 700
    assert sum(dark[0]) < 120
    for back, ink, bar, note in (light, dark):
        assert contrast(back, ink) > 7
        assert contrast(back, note) > 4.5
        assert contrast(back, bar) > 3
    assert light[2] != dark[2], "the plots follow the scheme"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_bars_can_be_read(pages, show, scheme):
    page = show(pages["full"], 1280, scheme)
    script = """() => [...document.querySelectorAll('svg text')].filter(t => /^on-/.test(t.className.baseVal)).map(t => [
        getComputedStyle(t).fill,
        getComputedStyle(t.parentNode.querySelector('rect.' + t.className.baseVal.slice(3))).fill])"""
    pairs = page.evaluate(script)
    assert len(pairs) > 3
    for pair in pairs:
        text, bar = ([int(x) for x in re.findall(r"\d+", colour)[:3]] for colour in pair)
        assert contrast(text, bar) >= 4.5, (text, bar)


def test_paper_is_white_and_shows_the_details(pages, show):
    page = show(pages["full"], 800, "dark")
    inside = page.locator("details p").first
    assert not inside.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert sum(colours(page)[0]) == 3 * 255
    assert inside.evaluate("e => e.getBoundingClientRect().height") > 10
    assert page.pdf()[:5] == b"%PDF-"
