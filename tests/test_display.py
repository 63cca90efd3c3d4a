"""What a notebook shows: tables with the right cells, and every name of the caller escaped."""

from __future__ import annotations

import html.parser
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.diagnostics import verdict
from bayesrec.diagnostics.verdict import CHOICE, HeldOut
from bayesrec.errors import NegativeTransferWarning

OURS = {"table", "thead", "tbody", "tr", "th", "td", "caption", "p", "strong"}
BAD = "<b>&\"'"  # a name that would be a tag


class Page(html.parser.HTMLParser):
    """Tables as lists of rows, paragraphs as sentences; a tag that is not closed, or not ours, is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.captions, self.paragraphs = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag, attrs):
        assert tag in OURS, f"<{tag}> is not ours"
        assert not attrs
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "p":
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += text
        elif self.open[-1] == "caption":
            self.captions.append(text)
        else:
            assert "p" in self.open, f"text outside of everything: {text!r}"
            self.paragraphs[-1] += text


def page(thing):
    return Page(thing._repr_html_())


def renamed(frame, source=BAD, target="film"):
    return frame.assign(domain=frame["domain"].map({"source": source, "target": target}))


def test_the_reader_sees_what_is_not_escaped():
    for text in ("<p><b>x</b></p>", "<p>x", "<table>x</table>", "<p class=x>x</p>"):
        with pytest.raises(AssertionError):
            Page(text)


def test_interactions(frame):
    shown = page(br.Interactions.from_frame(renamed(frame), target="film"))
    source, target = (frame[frame["domain"] == name] for name in ("source", "target"))
    want = [
        [name, role, str(len(part)), str(part["user"].nunique()), str(part["item"].nunique())]
        for name, role, part in ((BAD, "source", source), ("film", "target", target))
    ]
    (table,) = shown.tables
    assert table[0] == ["domain", "role", "rows", "users", "items", "density"]
    assert [row[:-1] for row in table[1:]] == want
    assert [row[-1] for row in table[1:]] == [f"{int(n) / (int(u) * int(i)):.2%}" for _, _, n, u, i in want]
    assert shown.captions == ["Interactions, users shared"]


def test_posterior(frame):
    method = br.Gibbs(draws=6, warmup=4, chains=2)
    data = br.Interactions.from_frame(renamed(frame), target="film")
    posterior = br.fit(br.models.TransferMF(rank=2), data, method, progress=False)
    fit, sites = page(posterior).tables
    size = sum(array.nbytes for array in posterior.draws.values()) / 2**20
    assert fit == [
        ["Posterior", repr(posterior.model)],
        ["method", repr(posterior.method)],
        ["draws", "2 chains x 6 draws"],
        ["target", "film"],
        ["sources", BAD],
        ["users", "40"],
        ["items", "27"],
        ["ratings", str(len(frame))],
        ["size", f"{size:.1f} MiB"],
    ]
    assert sites[0] == ["site", "axes", "shape"]
    assert [row[0] for row in sites[1:]] == list(posterior.draws)
    rows = {name: (axes, shape) for name, axes, shape in sites[1:]}
    assert rows["user_vector"] == ("user, latent_component", "40 x 3")
    assert rows["item_vector"] == ("item, latent_component", "27 x 3")
    for name, array in posterior.draws.items():
        axes, shape = rows[name]
        assert shape == ("1" if array.ndim == 2 else " x ".join(str(n) for n in array.shape[2:]))
        assert len(axes.split(", ")) == max(array.ndim - 2, 1)
        assert (axes == "a number") == (array.ndim == 2)
    bare = replace(posterior, data=data.mask(np.zeros(len(data), dtype=bool)))
    assert ["ratings", "saved without them"] in page(bare).tables[0]


def test_posterior_of_shared_items_is_the_callers(frame):
    table = frame.rename(columns={"user": "item", "item": "user"})
    data = br.Interactions.from_frame(table, target="target", shared="items")
    posterior = br.fit(br.models.PMF(rank=1), data.only_target(), br.Gibbs(draws=2, warmup=2, chains=1), progress=False)
    fit, sites = page(posterior).tables
    assert ["sources", "none"] in fit
    users, items = (frame.loc[frame["domain"] == "target", "item"].nunique(), frame["user"].nunique())
    assert (dict(fit)["users"], dict(fit)["items"]) == (str(users), str(items))
    shapes = {name: (axes, shape) for name, axes, shape in sites}
    assert shapes["user_vector"] == ("item, latent_component", f"{items} x 2")
    assert shapes["item_vector"] == ("user, latent_component", f"{users} x 2")


def report(data, deltas, own=(0, 3, 9), labels=("TransferMF", "PMF")):
    """A report on users of three regimes, 30 each with 4 ratings, whose differences are as given."""
    n_own = np.repeat(own, 30)
    delta = np.repeat(np.asarray(deltas, dtype=float), 30) + np.tile([-0.05, 0.05], 15 * len(own))
    user = np.repeat(np.arange(len(delta)), 4)
    without = np.full((4, len(user)), -1.0)
    part = HeldOut(pd.RangeIndex(len(delta)), user, n_own, without + delta[user] / 4, without, delta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeTransferWarning)
        return verdict.report([part], data, labels, 0.0, 0)


@pytest.mark.parametrize(
    ("deltas", "words", "verdicts"),
    [
        ((1, 1, 1), "The source helps", ["positive"] * 3),
        ((-1, -1, -1), "The source hurts", ["negative"] * 3),
        ((0, 0, 0), "Undetermined", ["undetermined"] * 3),
        ((2, -1, 0), "The source helps", ["positive", "negative", "undetermined"]),
    ],
)
def test_transfer_report(frame, deltas, words, verdicts):
    data = br.Interactions.from_frame(renamed(frame), target="film")
    found = report(data, deltas, labels=("TransferMF<i>", "PMF"))
    shown = page(found)
    assert shown.paragraphs[0].startswith(f"{words}: ")
    assert BAD in shown.paragraphs[0]
    assert "TransferMF<i> minus PMF" in shown.paragraphs[1]
    assert shown.paragraphs[2] == f"Probability of negative transfer: {found.probability:.3f}."
    assert shown.paragraphs[-1] == CHOICE
    (table,) = shown.tables
    assert table[0] == ["users with", "verdict", "delta", "SE", "delta a rating", "users", "ratings", "P(negative)"]
    assert [row[:2] for row in table[1:]] == [
        [name, word] for name, word in zip(("no target rating", "1 to 5", "more"), verdicts, strict=True)
    ]
    assert [row[2] for row in table[1:]] == [f"{30 * delta:+.1f}" for delta in deltas]
    for row, (_, regime) in zip(table[1:], found.regimes.iterrows(), strict=True):
        assert row[3:] == [
            f"{regime['se']:.1f}",
            f"{regime['delta_per_row']:+.4f}",
            "30",
            "120",
            f"{regime['probability']:.3f}",
        ]


def test_a_regime_nobody_is_in_has_no_row(data):
    (table,) = page(report(data, (1, 1), own=(0, 9))).tables
    assert [row[0] for row in table[1:]] == ["no target rating", "more"]


@pytest.mark.filterwarnings("ignore::bayesrec.errors.ConvergenceWarning")
def test_evaluation(data):
    class Shy(br.models.PMF):
        """A model whose name is a tag."""

    Shy.__name__ = "<b>&"
    found = br.evaluate(Shy(rank=1), data, br.Gibbs(draws=4, warmup=4, chains=2), ["cold", "warm"])
    text = found._repr_html_()
    assert text.count("<table>") == text.count("</table>") == 2
    shown = Page(text.replace("<b>", "").replace("</b>", ""))  # the best value is bold
    values = found.table("rmse").set_index(["split", "model"])["value"]
    for split, rows in zip(("cold", "warm"), shown.tables, strict=True):
        place = rows[0].index("RMSE")
        cells = {model: cells[place - 1].split(" ")[0] for model, *cells in rows[1:]}
        assert cells == {name: "-" if np.isnan(x) else f"{x:.4f}" for name, x in values[split].items()}
        assert "<b>&" in cells
    assert "<b>&</b>" not in text
    assert "&lt;b&gt;&amp;" in text
