"""The report: what stands on the page, from which numbers, in which words, and that nothing but the page leaves it."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
import bayesrec.reports
from bayesrec import plots
from bayesrec.data.columns import Columns
from bayesrec.diagnostics import calibration, verdict
from bayesrec.errors import DataError, MissingExtraError
from bayesrec.reports import build, facts, report, sections, svg, words

METHOD = br.Gibbs(draws=20, warmup=20, chains=4)
EVIL = "<script>alert('x')</script>"
VOID = {"meta", "link", "br", "img"}
USER, ITEM = words.WORDS["user"], words.WORDS["item"]


class Page(HTMLParser):
    """Text, headings and tags of a page; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.headings, self.text = [], [], [], ""
        self.feed(text)
        assert self.stack == [], f"not closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.text += data
        if self.stack and re.fullmatch(r"h\d", self.stack[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def having(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def arms():
    """A fit with the source, one without, and held-out rows of users with 0, 3 and 7 ratings; ids that are HTML."""
    frame, _ = br.data.synthetic.cross_domain(n_users=120, n_items=(30, 25), n_ratings=(12, 10), rank=1, n_cold=6)
    frame["user"] = np.where(frame["user"] % 7 == 0, EVIL, "user ") + frame["user"].astype(str)
    frame["domain"] = frame["domain"].replace({"source": "books <b>", "target": "music & more"})
    titles = pd.DataFrame({"item": range(25), "title": [f"{EVIL} song {k}" for k in range(25)]})
    data = br.Interactions.from_frame(frame, target="music & more", value="value", item_features=titles)
    train, cold = br.split.cold_users(data, fraction=0.3, seed=0)
    train, few = br.split.cold_users(train, fraction=0.4, n_support=3, seed=1)
    train, warm = br.split.holdout(train, fraction=0.2, seed=0)
    test = pd.concat([x.to_frame() for x in (cold, few, warm)], ignore_index=True)
    arm = br.fit(br.models.TransferMF(rank=1), train, METHOD, progress=False)
    bare = br.fit(br.models.PMF(rank=1), train, METHOD, progress=False)
    with facts.quiet(br.errors.NegativeTransferWarning):
        found = br.negative_transfer(arm, bare, test)
    return SimpleNamespace(arm=arm, bare=bare, test=test, train=train, found=found)


@pytest.fixture(scope="module")
def text(arms, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert report(arms.arm, path, without=arms.bare, test=arms.test, progress=False) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_sections_come_in_the_order_of_the_reader(page):
    top = [name for level, name in page.headings if level == 2]
    assert top == [
        "What the source is worth",
        "Who gains and who is harmed",
        "Can the intervals be trusted?",
        "Examples",
        "Did the computation converge?",
        "The data",
        "What to do now",
        "What this page cannot say",
        "How this page was made",
    ]
    assert page.headings[0] == (1, "Should books <b> feed recommendations of music & more?")
    levels = [level for level, _ in page.headings]
    assert all(b <= a + 1 for a, b in zip(levels[:-1], levels[1:], strict=True)), "no heading level is skipped"
    assert verdict.CHOICE in page.text


def test_nothing_comes_from_outside(text, page):
    links = [attrs[k] for _, attrs in page.tags for k in ("src", "href", "action", "data", "poster") if k in attrs]
    assert set(links) == {"data:,", "#do"}
    assert not re.search(r"https?:|//[a-z]|url\(|@import|@font-face|<iframe|<img|<object", text)


def test_ids_titles_and_names_of_domains_are_text(text, page):
    assert "<script" not in text
    assert EVIL in page.text, "and they are shown"
    assert "books <b>" in page.text


def test_the_page_is_accessible(page):
    assert page.having("html") == [{"lang": "en"}]
    assert any(attrs.get("name") == "viewport" for attrs in page.having("meta"))
    for attrs in page.having("svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"].strip())
    assert {attrs.get("scope") for attrs in page.having("th")} == {"col", "row"}
    assert len(page.having("h1")) == 1
    assert len(page.having("summary")) == len(page.having("details")) >= 4
    anchors = [attrs["href"][1:] for attrs in page.having("a")]
    assert set(anchors) <= {attrs["id"] for _, attrs in page.tags if "id" in attrs}


def test_both_schemes_paper_and_phone_are_styled(text):
    for part in ("prefers-color-scheme: dark", "@media print", "details-content", "@media (max-width", "color-scheme"):
        assert part in text
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    for scheme in (text.split(":root {")[1], text.split(":root {")[2]):
        assert used <= set(re.findall(r"(--[\w-]+):", scheme.split("}")[0]))


def test_cards_and_sentences_carry_the_numbers_of_the_verdict(arms, page):
    found = arms.found
    assert list(found.regimes.index) == ["cold", "few", "warm"]
    for name, row in found.regimes.iterrows():
        assert f"{USER.kind[name].capitalize()}: {words.RATINGS[name]}" in page.text
        assert f"{int(row['n_users'])} users, {int(row['n_rows'])} ratings held out" in page.text
        assert words.chance(row["probability"])[1:] in page.text
    kinds = [attrs["class"].split()[1] for attrs in page.having("li") if attrs.get("class", "").startswith("verdict")]
    assert kinds == found.regimes["verdict"].tolist()
    error, bare = (np.sqrt(((found.rows["value"] - found.rows[c]) ** 2).mean()) for c in ("mean", "mean_without"))
    assert f"{error:.3f} rating points instead of {bare:.3f} ({error / bare - 1:+.1%}" in page.text
    better = (found.per_user["delta"] > 0).mean()
    assert f"{better:.0%} of {len(found.per_user)} tested users were predicted better" in page.text
    covered = ((found.rows["value"] >= found.rows["lower"]) & (found.rows["value"] <= found.rows["upper"])).mean()
    assert f"of the intervals that promise 90%, {covered:.0%} held the rating" in page.text
    assert "TransferMF(rank=1" in page.text
    assert "Gibbs(draws=20" in page.text


def test_a_finished_verdict_gives_the_same_page(arms, text, tmp_path):
    again = report(arms.arm, tmp_path / "r.html", verdict=arms.found).read_text()
    body, other = (re.sub(r"<dt>verdict</dt>.*?</dd>", "", x) for x in (text, again))
    assert body == other


def test_other_measures_stand_on_the_page(arms, text, page):
    found = arms.found.metrics
    assert (3, "In other measures") in page.headings
    for name in ("RMSE", "CRPS", "NDCG@10"):
        row = found.loc[name]
        cells = [f"{row['with_transfer']:.3f}", f"{row['without']:.3f}"]
        cells.append(f"{row['difference']:+.3f} ±\u00a0{facts.Z90 * row['se']:.3f}")
        cells.append(words.percent(row["harm"]))
        line = "".join(f"<td>{cell}</td>" for cell in cells)
        assert f"<th scope='row'>{words.MEASURES[name]}</th>{line}" in text
    nobody = found.assign(users=0)
    assert sections.measures(nobody, USER) == ""


def test_groups_with_their_chance_of_harm(arms, text, page):
    found = facts.segments(arms.found)
    assert found["segment"].unique().tolist() == ["own ratings"], "that by source ratings has its own table"
    assert (3, "By group") in page.headings
    for row in found.itertuples():
        assert f"<th scope='row'>own ratings: {row.level}</th><td>{row.users:,}</td>" in text
        assert f"<td>{words.percent(row.harm)}</td><td>{words.SAYS[row.verdict]}</td>" in text


def test_columns_of_the_caller_and_harmed_groups(arms, tmp_path):
    users = arms.found.per_user["user"]
    country = pd.Series(np.where(np.arange(len(users)) % 2, EVIL, "SE"), index=users, name="country")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
        found = br.negative_transfer(arms.arm, arms.bare, arms.test, segments=country)
    table = found.segments.copy()
    table["verdict"] = np.where(table["level"] == EVIL, "negative", table["verdict"])
    page = Page(report(arms.arm, tmp_path / "r.html", verdict=dataclasses.replace(found, segments=table)).read_text())
    assert f"country: {EVIL}" in page.text
    assert f"for these groups, or look why they differ: country: {EVIL}." in page.text
    assert words.harmed_segments(facts.segments(found)) == []
    assert words.harmed_segments(facts.segments(dataclasses.replace(found, segments=None))) == []


@pytest.mark.parametrize("steady", [True, False])
def test_sensitivity_where_it_was_run(arms, text, tmp_path, steady):
    assert "Does the answer hang on assumptions?" not in text
    names = ["default", "gate prior / 2", "gate prior x 2", "shrinkage / 2", "shrinkage x 2"]
    table = pd.DataFrame(
        {"delta_per_row": [0.1, 0.08, 0.12, 0.09, -0.11], "se": 0.02}, index=pd.Index(names, name="variant")
    )
    table = table.assign(
        difference=table["delta_per_row"] - 0.1, verdict=["positive"] * 4 + ["positive" if steady else "negative"]
    )
    found = dataclasses.replace(arms.found, sensitivity=table)
    page = Page(report(arms.arm, tmp_path / "r.html", verdict=found).read_text())
    assert (3, "Does the answer hang on assumptions?") in page.headings
    assert ("No: the verdict is the same" if steady else "Yes: the verdict is not the same") in page.text
    assert "the gain is between -0.110 and +0.120 a rating" in page.text
    for name in names:
        assert words.VARIANTS[name] in page.text


def test_conflict_is_counted_on_the_page(arms, page, monkeypatch):
    count, n = facts.conflicts(arms.arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
        found = br.conflict(arms.arm, draws=30)
    assert (count, n) == (found["conflict"].sum(), len(found))
    assert f"Own ratings of {count} of {n} users contradict what their ratings of books <b> announced" in page.text
    assert facts.conflicts(arms.bare) is None, "nobody has a source"

    def refuses(*args, **kwargs):
        raise br.errors.UnsupportedMethodError("no Gaussian")

    monkeypatch.setattr(facts, "conflict", refuses)
    assert facts.conflicts(arms.arm) is None


def test_without_a_verdict_the_page_says_so(arms, tmp_path):
    page = Page(report(arms.arm, tmp_path / "r.html", folds=0, title=EVIL).read_text())
    assert "No verdict: whether ratings of books <b> help predictions of music & more was not tested" in page.text
    assert page.text.count("not tested") >= 3
    assert "Do not switch ratings of books <b> on before they were tested" in page.text
    assert page.headings[0] == (1, EVIL)
    names = [name for _, name in page.headings]
    assert "Who gains and who is harmed" not in names
    assert "Not tested: no held-out ratings were given." in page.text


def test_test_rows_alone_serve_the_calibration(arms, tmp_path):
    page = Page(report(arms.arm, tmp_path / "r.html", folds=0, test=arms.test).read_text())
    rows = calibration.forecast(arms.arm, arms.test)
    covered = rows["pit"].between(0.05, 0.95).mean()
    assert f"promise 90%, {covered:.0%} held" in page.text
    assert "No verdict" in page.text


def test_a_model_without_a_source_has_no_verdict(arms, tmp_path):
    page = Page(report(arms.bare, tmp_path / "r.html", test=arms.test).read_text())
    names = [name for _, name in page.headings]
    assert names[0] == "Predictions of music & more"
    assert not {"What the source is worth", "Who gains and who is harmed"} & set(names)
    assert "PMF predicts music & more from music & more alone" in page.text
    assert "promise 90%" in page.text
    assert "This model uses no source" in page.text
    assert "source share" not in page.text


def test_the_verdict_is_assessed_if_none_is_given(arms, tmp_path, monkeypatch):
    calls = []

    def assess(model, data, method, folds, progress):
        calls.append((model, len(data), method, folds, progress))
        return arms.found

    monkeypatch.setattr(build, "assess_transfer", assess)
    text = report(arms.arm, tmp_path / "r.html", folds=3, progress=False).read_text()
    assert calls == [(arms.arm.model, len(arms.arm.data), METHOD, 3, False)]
    assert "3 folds of users" in text
    other = br.Gibbs(draws=5, warmup=5, chains=4)
    report(arms.arm, tmp_path / "r.html", method=other)
    assert calls[1][2:] == (other, 5, True)


def test_warnings_that_the_page_does_not_say_pass(arms, tmp_path, monkeypatch):
    def stopped(*args, **options):
        warnings.warn("interrupted", br.errors.ConvergenceWarning, stacklevel=2)
        warnings.warn("the page says it", br.errors.NegativeTransferWarning, stacklevel=2)
        return arms.found

    monkeypatch.setattr(build, "assess_transfer", stopped)
    with pytest.warns(br.errors.ConvergenceWarning, match="interrupted") as heard:
        report(arms.arm, tmp_path / "r.html")
    assert len(heard) == 1


@pytest.mark.parametrize("kind", [br.errors.ConvergenceWarning, br.errors.NegativeTransferWarning])
def test_quiet_never_hides_an_interruption(kind):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with facts.quiet(kind):
            warnings.warn("R-hat is high", kind, stacklevel=1)
            warnings.warn("interrupted: kept 3 of 20 draws", kind, stacklevel=1)
            warnings.warn("another thing", UserWarning, stacklevel=1)
    assert [str(w.message) for w in heard] == ["interrupted: kept 3 of 20 draws", "another thing"]
    with pytest.raises(KeyboardInterrupt), facts.quiet(kind):
        raise KeyboardInterrupt


def test_an_interrupted_fold_leaves_the_old_page(arms, tmp_path, monkeypatch):
    page = tmp_path / "r.html"
    page.write_text("the old page")

    def stopped(*args, **options):
        raise KeyboardInterrupt("a fit was interrupted")

    monkeypatch.setattr(build, "assess_transfer", stopped)
    with pytest.raises(KeyboardInterrupt):
        report(arms.arm, page)
    assert page.read_text() == "the old page"


def test_folds_in_earnest_judge_newcomers_only(arms, tmp_path):
    users = arms.train.to_frame()["user"].unique()[:40]
    rows = arms.train.to_frame()
    data = br.Interactions.from_frame(rows[rows["user"].isin(users)], target=arms.train.target, value="value")
    tiny = br.Gibbs(draws=8, warmup=8, chains=2)
    arm = br.fit(br.models.CollectiveMF(rank=1), data, tiny, progress=False)
    page = Page(report(arm, tmp_path / "r.html", folds=2, progress=False).read_text())
    kinds = [attrs["class"] for attrs in page.having("li") if attrs.get("class", "").startswith("verdict")]
    assert kinds[1:] == ["verdict untested"] * 2
    assert "Test beginners (1 to 5 ratings) and regulars (more than 5 ratings) before you use" in page.text
    assert "Fewer than 4 chains" in page.text


def test_a_posterior_saved_without_its_ratings(arms, tmp_path):
    bare = br.load(arms.arm.save(tmp_path / "model", data=False))
    page = Page(report(bare, tmp_path / "r.html", verdict=arms.found).read_text())
    assert page.text.count(build.NO_RATINGS) == 3
    assert "What a typical prediction rests on" not in page.text
    assert "tested users were predicted better" in page.text


def test_one_chain_is_compared_with_itself(arms, tmp_path):
    one = br.fit(br.models.PMF(rank=1), arms.train, br.Gibbs(draws=20, warmup=5, chains=1), progress=False)
    text = report(one, tmp_path / "r.html").read_text()
    assert "halves of the chain" in text
    assert "1 chain of 20<" in text
    short = br.fit(br.models.PMF(rank=1), arms.train, br.Gibbs(draws=2, warmup=2, chains=2), progress=False)
    assert "too few draws to tell" in report(short, tmp_path / "r.html").read_text()


def test_the_page_is_written_whole_or_not_at_all(arms, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="disk full"):
            report(arms.arm, path, folds=0)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"without": "bare"}, DataError, "without needs test"),
        ({"without": "bare", "verdict": "found", "test": "test"}, DataError, "give one of the two"),
        ({"folds": 1}, DataError, "at least 2, not 1"),
        ({"folds": True}, DataError, "not True"),
        ({"verdict": "test"}, TypeError, "verdict must be a TransferReport"),
        ({"without": "test"}, TypeError, "without must be a Posterior"),
        ({"path": "nowhere/r.html"}, DataError, "nowhere does not exist"),
        ({"path": "."}, DataError, "is a folder; name a file, such as .*report.html"),
    ],
)
def test_bad_arguments_are_named(arms, tmp_path, change, error, message):
    keep = {"path", "folds"}
    options = {name: value if name in keep else getattr(arms, value) for name, value in change.items()}
    path = tmp_path / options.pop("path", "r.html")
    with pytest.raises(error, match=message):
        report(arms.arm, path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_place_of_a_posterior(tmp_path):
    with pytest.raises(TypeError, match="posterior must be a Posterior, not PMF"):
        report(br.models.PMF(rank=1), tmp_path / "r.html")


def test_the_public_name_is_the_function_whatever_was_imported_before():
    assert br.report is report
    with pytest.raises(TypeError, match="posterior must be"):
        br.report(3)


def test_the_report_needs_no_matplotlib(arms, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError):
        plots.calibration({"a": np.array([0.5])})
    report(arms.arm, tmp_path / "r.html", verdict=arms.found)


# what goes in


def test_worth_is_by_kind_of_user(arms):
    table, rows = facts.worth(arms.found), arms.found.rows
    assert table.index.tolist() == ["cold", "few", "warm", "all"]
    part = rows[rows["n_own"].between(1, 5)]
    assert table.loc["few", "rmse"] == pytest.approx(np.sqrt(((part["value"] - part["mean"]) ** 2).mean()))
    assert table.loc["few", "delta_per_row"] == pytest.approx(part["delta"].mean())
    assert table.loc["all", "se"] == pytest.approx(arms.found.se / len(rows))
    assert table["n_rows"].iloc[:3].sum() == table.loc["all", "n_rows"] == len(rows)
    old = facts.worth(verdict.TransferReport(**{**vars(arms.found), "rows": None}))
    assert "rmse" not in old
    assert sections.worth(old, "books", ("a", "b"), USER).count("<th scope='col'>") == 2


def planted(delta, n, users):
    per_user = pd.DataFrame({"user": users, "n": n, "delta": delta})
    return SimpleNamespace(per_user=per_user, entity="user")


def test_gains_find_the_group_that_is_harmed():
    """Users with 1 source rating lose, those with 30 gain; one user carries a known share."""
    n_source = np.repeat([1, 30], 20)
    user = np.concatenate([np.repeat(np.arange(40), n_source), np.arange(40)])
    item = np.concatenate([np.concatenate([np.arange(n) for n in n_source]), np.zeros(40, int)])
    domain = np.where(np.arange(len(user)) < n_source.sum(), "s", "t")
    frame = pd.DataFrame({"user": user, "item": item, "domain": domain, "rating": 1.0})
    data = br.Interactions.from_frame(frame, target="t")
    wobble = np.tile([0.01, -0.01], 20)
    delta = np.where(n_source == 1, -0.2, 0.3) + wobble
    found = facts.gains(planted(delta, np.full(40, 2), np.arange(40)), data)
    assert found.better == 0.5
    assert found.values == pytest.approx(delta / 2)
    assert found.groups.index.tolist() == ["1 to 5", "21 to 50"]
    assert found.groups["users"].tolist() == [20, 20]
    assert found.groups["delta"].tolist() == pytest.approx([-0.1, 0.15])
    half = facts.Z90 * np.sqrt(20 / 19 * (wobble[:20] ** 2).sum()) / 40
    assert found.groups["high"].iloc[0] == pytest.approx(-0.1 + half)
    assert words.harmed(found) == ["1 to 5"]
    html = sections.gains(found, "books", USER)
    assert "Worse with the source: users with 1 to 5 ratings in books" in html
    assert [x for x in ("harmed", "gains") if f"<td>{x}</td>" in html] == ["harmed", "gains"]
    delta[7] = -30.0
    one = facts.gains(planted(delta, np.full(40, 2), np.arange(40)), data)
    assert one.largest_id == 7
    assert one.largest == pytest.approx(30 / np.abs(delta).sum())
    strangers = facts.gains(planted(delta, np.full(40, 2), np.arange(40) + 1000), data)
    assert strangers.groups.index.tolist() == ["none"]


@pytest.mark.parametrize(("k", "want"), [(0, "none"), (1, "1 to 5"), (4, "51 or more")])
def test_groups_have_names(k, want):
    assert facts.span(facts.OWN_EDGES, k) == want


def test_weights_are_those_of_source_weight(arms):
    table = facts.weights(arms.arm)
    assert table.index[0] == "none"
    assert (table["source"] + table["population"] + table["target"]).to_numpy() == pytest.approx(1.0)
    assert table.loc["none", "target"] == 0.0
    assert table["target"].is_monotonic_increasing
    users = np.unique(arms.arm.data.user)
    assert table["users"].sum() == len(users)


def test_examples_are_typical_users_with_titles(arms):
    found = facts.examples(arms.arm)
    own, n_source = facts.counts(arms.arm.data)
    assert [e.regime for e in found] == ["cold", "few", "warm"]
    for one in found:
        code = arms.arm.data.users.encode([one.user])[0]
        assert (own[code], n_source[code]) == (one.n_own, one.n_source)
        peers = n_source[(verdict.regime_of(own) == one.regime) & (n_source > 0)]
        assert one.n_source == np.sort(peers)[len(peers) // 2]
        assert one.items["item"].str.startswith(EVIL).all()
        assert len(one.items) == facts.LIST
        assert (one.items["lower"] < one.items["mean"]).all()


def test_titles_belong_to_the_target():
    features = pd.DataFrame({"item": [1, 1], "domain": ["book", "song"], "Name": ["a book", "a song"]})
    data = SimpleNamespace(item_features=features, user_features=None, columns=Columns(), target="song")
    assert facts._titles(data) == {1: "a song"}
    data.item_features = features[["item", "domain"]]
    assert facts._titles(data) == {}
    people = pd.DataFrame({"user": [5], "name": ["ann"]})
    shared = SimpleNamespace(
        item_features=people, user_features=features[:1], columns=Columns().transposed(), target="song"
    )
    assert facts._titles(shared) == {1: "a book"}, "a shared item has one title in all domains"


def test_coverage_is_counted_by_kind():
    rows = pd.DataFrame({"n_own": [0, 0, 9], "pit": [0.5, 0.99, 0.02], "user": [1, 1, 2]})
    curves = facts.curves(rows)
    assert list(curves) == ["cold", "warm"]
    at = {round(level, 3): k for k, level in enumerate(facts.LEVELS)}
    assert [curves["cold"][at[x]] for x in (0.0, 0.5, 1.0)] == [0.5, 0.5, 1.0]
    assert facts.inside(rows, 0.9, "user")[0] == pytest.approx(1 / 3)


def test_sizes_of_the_domains(arms):
    table = facts.domains(arms.train)
    frame = arms.train.to_frame()
    assert table["ratings"].tolist() == frame.groupby("domain").size().loc[table["domain"]].tolist()
    assert table["role"].tolist() == ["source", "target"]
    users = frame.groupby("domain")["user"].agg(set)
    assert table["shared"].tolist()[0] == len(users["books <b>"] & users["music & more"])
    assert table["mean"].tolist() == pytest.approx(frame.groupby("domain")["value"].mean().loc[table["domain"]])


def test_predictions_are_told_from_inner_quantities():
    rhat = [1.02, 1.3, 1.5, 1.01]
    index = pd.Index(["prediction[a, 1]", "prediction[b, 2]", "noise[x]", "gate"], name="quantity")
    table = pd.DataFrame({"rhat": rhat, "ess_bulk": [90.0, 80, 5, 70], "ess_tail": [40.0, 60, 6, 70]}, index=index)
    found = facts.chains(SimpleNamespace(diagnostics=lambda: table))
    assert (found.rhat, found.ess, found.n, found.bad, found.inner, found.inner_bad) == (1.3, 40.0, 2, 1, 2, 1)
    assert found.worst["quantity"].tolist()[:2] == ["noise[x]", "prediction[b, 2]"]


# shared items


def turned(frame):
    """The same table with users and items in each other's columns."""
    return frame.rename(columns={"user": "item", "item": "user"})


@pytest.fixture(scope="module")
def mirror(arms, tmp_path_factory):
    """The fits of ``arms`` on the turned table with shared items: to the models nothing changes but the names."""
    films = pd.DataFrame({"item": arms.train.users.ids, "domain": "books <b>"})
    films["name"] = "film " + films["item"].astype(str)
    train = br.Interactions.from_frame(
        turned(arms.train.to_frame()), target="music & more", value="value", shared="items", item_features=films
    )
    test = turned(arms.test)
    arm = br.fit(br.models.TransferMF(rank=1), train, METHOD, progress=False)
    bare = br.fit(br.models.PMF(rank=1), train, METHOD, progress=False)
    with facts.quiet(br.errors.NegativeTransferWarning):
        found = br.negative_transfer(arm, bare, test)
    path = tmp_path_factory.mktemp("mirror") / "report.html"
    text = report(arm, path, without=bare, test=test, progress=False).read_text(encoding="utf-8")
    return SimpleNamespace(arm=arm, bare=bare, test=test, train=train, found=found, text=text)


def parts(text):
    """Head of the page and its sections, by heading; style and foot left out."""
    body = re.sub("<style>.*?</style>|</main>.*", "", text, flags=re.DOTALL)
    head, *rest = body.split("<h2>")
    return {"": head} | dict(part.split("</h2>", 1) for part in rest)


def test_shared_items_change_words_and_no_number(text, mirror):
    """Every number of text and pictures, in order; the two tables with columns of users and items in any order."""
    one, other = parts(text), parts(mirror.text)
    assert list(one) == list(other)
    for heading in set(one) - {"Examples"}:
        lists = re.compile("<tr><th scope='row'>order of a list.*?</tr>")  # a person's, whatever is shared
        ours, theirs = (re.findall(r"\d[\d.,]*", lists.sub("", part[heading])) for part in (one, other))
        turn = sorted if heading in ("The data", "Did the computation converge?") else list
        assert len(ours) > 0 or heading == "What this page cannot say"
        assert turn(ours) == turn(theirs), heading


def test_every_sentence_about_shared_items_says_item(mirror):
    """People are named where people are meant, with their ids; nowhere else does the page say user in words of its own."""
    for heading, part in parts(mirror.text).items():
        assert "{" not in part, heading
        said = Page(f"<div>{part}</div>").text if heading else part
        said += " ".join(re.findall('aria-label="(.*?)"', part))
        for phrase in (verdict.CHOICE, ITEM.roles, "pairs of user and item", "ratingsusersitems"):
            said = said.replace(phrase, "")
        said = re.sub(r"user \d+|user_\w+|link='users'", "", said)
        if heading != "Examples":
            assert not re.findall("(?i).{0,20}(?:user|beginner|newcomer|regulars|people|shared account).{0,20}", said)
    page = Page(mirror.text)
    assert page.headings[0] == (1, "Should books <b> feed recommendations for music & more?")
    for name, row in mirror.found.regimes.iterrows():
        assert f"{ITEM.kind[name].capitalize()}: {words.RATINGS[name]}" in page.text
        assert f"{int(row['n_users'])} items, {int(row['n_rows'])} ratings held out" in page.text
    labels = [attrs["aria-label"] for _, attrs in page.tags if "aria-label" in attrs]
    assert "Verdict for each kind of item" in labels
    assert sum("the item's own ratings" in label for label in labels) == len(facts.weights(mirror.arm))
    assert any(label.startswith("Histogram of items") for label in labels)
    assert "Different groups are different items" in page.text
    assert "ratings of one item count as one piece" in page.text


def test_errors_are_clustered_by_the_shared_side(arms, mirror):
    def clustered(influence, cluster):
        sums = pd.Series(influence).groupby(np.asarray(cluster)).sum()
        return np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(influence)

    rows = mirror.found.rows
    assert (rows["item"].nunique(), rows["user"].nunique()) == (len(mirror.found.per_user), 25)
    hit = rows["pit"].between(0.05, 0.95).astype(float)
    share, se = facts.inside(rows, 0.9, mirror.found.entity)
    assert (share, se) == pytest.approx((hit.mean(), clustered(hit - hit.mean(), rows["item"])))
    assert abs(se / clustered(hit - hit.mean(), rows["user"]) - 1) > 0.001, "the other side gives another number"
    a, b = ((rows["value"] - rows[c]) ** 2 for c in ("mean", "mean_without"))
    influence = (a - a.mean()) / (2 * np.sqrt(a.mean())) - (b - b.mean()) / (2 * np.sqrt(b.mean()))
    table = facts.worth(mirror.found)
    assert table.loc["all", "change_se"] == pytest.approx(clustered(influence, rows["item"]))
    table["reason"] = table["reason"].str.replace("items", "users")
    pd.testing.assert_frame_equal(table, facts.worth(arms.found))
    pd.testing.assert_frame_equal(facts.weights(mirror.arm), facts.weights(arms.arm))
    ours, theirs = facts.gains(arms.found, arms.arm.data), facts.gains(mirror.found, mirror.arm.data)
    pd.testing.assert_frame_equal(ours.groups, theirs.groups)
    assert (ours.largest, ours.largest_id) == (theirs.largest, theirs.largest_id)


@pytest.mark.parametrize(("side", "sure"), [("mirror", False), ("arms", True)])
def test_the_page_doubts_intervals_by_clusters_of_the_shared_side(request, tmp_path, side, sure):
    """Two of ten items miss every rating: little evidence if items are the clusters, plenty if each user misses two."""
    given = request.getfixturevalue(side)
    user, item = np.divmod(np.arange(100), 10)
    rows = pd.DataFrame(
        {"user": user, "item": item, "n_own": user, "pit": np.where(item < 2, 0.999, 0.5), "value": 3.0}
    )
    found = dataclasses.replace(given.found, rows=rows.assign(mean=3.5, mean_without=3.6, sd=1.0))
    said = Page(report(given.arm, tmp_path / "r.html", verdict=found).read_text()).text
    assert "promise 90%, 80% held the rating" in said
    assert ("The intervals mean what they say" in said, "Do not show the intervals" in said) == (not sure, sure)


def test_held_out_rows_alone_count_the_ratings_of_items(mirror):
    rows = build._held_out(mirror.arm, mirror.test, None)
    train = mirror.train.to_frame()
    n = train[train["domain"] == "music & more"].groupby("item").size()
    assert rows["n_own"].tolist() == n.reindex(rows["item"], fill_value=0).tolist()
    assert rows["n_own"].tolist() == mirror.found.rows["n_own"].tolist()


def test_examples_are_people_where_items_are_shared(mirror):
    """Ten of the target's users keep 1 to 5 ratings; those of the source have the same ids and are nobody's example."""
    rows = mirror.train.to_frame()
    target = rows["domain"] == "music & more"
    nth = rows.groupby(["domain", "user"]).cumcount()
    rows = rows[~target | (rows["user"] >= 10) | (nth <= rows["user"] // 2)]
    films = mirror.train.item_features
    data = br.Interactions.from_frame(rows, target="music & more", value="value", shared="items", item_features=films)
    tiny = br.Gibbs(draws=8, warmup=8, chains=2)
    arm, bare = (br.fit(model(rank=1), data, tiny, progress=False) for model in (br.models.TransferMF, br.models.PMF))
    found, own = facts.examples(arm), rows[rows["domain"] == data.target].groupby("user").size()
    assert [(e.regime, e.n_own) for e in found] == [("few", 3), ("warm", np.sort(own[own > 5])[(own > 5).sum() // 2])]
    html = build._examples(arm, "books <b>", "music & more", ITEM)
    part = Page(f"<div>{html}</div>").text
    for one in found:
        assert (one.n_own, one.n_source) == (own[one.user], 0)
        wanted = br.recommend(arm, [one.user], n=facts.LIST)
        assert one.items["item"].tolist() == [f"film {id_}" for id_ in wanted["item"]]
        assert one.items["source_weight"].tolist() == wanted["source_weight"].tolist()
        assert f"{USER.kind[one.regime].capitalize()}: user {one.user}{one.n_own} ratings in music & more" in part
    assert "in the middle of the kind by number of ratings" in part
    assert part.count("source share") == 2
    assert [e.items.columns.tolist() for e in facts.examples(bare)] == [["item", "mean", "lower", "upper"]] * 2


def test_sizes_are_of_users_and_items_as_the_caller_knows_them(arms, mirror):
    table, other = facts.domains(mirror.arm.data), facts.domains(arms.arm.data)
    frame = mirror.train.to_frame()
    for side in ("user", "item"):
        assert table[f"{side}s"].tolist() == frame.groupby("domain")[side].nunique().loc[table["domain"]].tolist()
    items = frame.groupby("domain")["item"].agg(set)
    assert table["shared"].iloc[0] == len(items["books <b>"] & items["music & more"])
    same = ["domain", "role", "ratings", "density", "shared", "mean"]
    pd.testing.assert_frame_equal(table[same], other[same])
    assert "<th scope='col'>items also in music &amp; more</th>" in mirror.text


@pytest.mark.parametrize("case", ["no verdict", "test alone", "no source", "no ratings", "folds"])
def test_other_pages_with_shared_items(mirror, tmp_path, monkeypatch, case):
    arm, options = mirror.arm, {"folds": 0}
    if case == "test alone":
        options["test"] = mirror.test
    elif case == "no source":
        arm = mirror.bare
    elif case == "no ratings":
        arm, options = br.load(arm.save(tmp_path / "model", data=False)), {"verdict": mirror.found}
    elif case == "folds":
        monkeypatch.setattr(build, "assess_transfer", lambda *args, **options: mirror.found)
        options = {"folds": 3}
    said = Page(report(arm, tmp_path / "r.html", progress=False, **options).read_text()).text
    assert "{" not in said
    assert {
        "no verdict": "whether ratings from books <b> help predictions for music & more was not tested",
        "test alone": f"({len(mirror.test):,} held-out ratings)",
        "no source": "Predictions for music & more",
        "no ratings": "tested items were predicted better",
        "folds": "3 folds of items",
    }[case] in said
    assert not re.search("newcomers|beginners|tested users|folds of users", said)


def test_a_verdict_on_the_other_side_is_refused(arms, mirror, tmp_path):
    with pytest.raises(DataError, match="verdict is about shared items, the posterior shares users"):
        report(arms.arm, tmp_path / "r.html", verdict=mirror.found)


@pytest.mark.parametrize("entity", ["user", "item"])
def test_plots_name_the_shared_side(entity):
    weights = pd.DataFrame({"source": [0.7, 0.4], "population": [0.3, 0.2], "target": [0.0, 0.4]})
    (ax,) = plots.source_weights(weights, np.array([0, 4]), entity=entity).axes
    other = {"user": "item", "item": "user"}[entity]
    said = " ".join([ax.get_xlabel(), *(t.get_text() for t in ax.get_legend().get_texts())])
    assert said.count(entity) == 2
    assert other not in said


# words


def table(cold="positive", few=None, warm=None, whole="positive", **more):
    row = {"probability": 0.01, "reason": "", "delta_per_row": 0.1, "se": 0.02, "n_users": 50, "n_rows": 200} | more
    kinds = {"cold": cold, "few": few, "warm": warm, "all": whole}
    return pd.DataFrame.from_dict({k: {"verdict": v} | row for k, v in kinds.items() if v}, orient="index")


@pytest.mark.parametrize(
    ("found", "want"),
    [
        (table(), "In predictions of music, ratings of books help newcomers (no rating yet)."),
        (
            table("positive", "undetermined", "negative"),
            "In predictions of music, ratings of books help newcomers (no rating yet) and hurt regulars (more than 5 ratings); "
            "for beginners (1 to 5 ratings) it is undetermined.",
        ),
        (
            table("undetermined", whole="undetermined", reason="only 12 users, at least 30 are needed"),
            "Undetermined: it is not settled whether ratings of books help predictions of music "
            "(only 12 users, at least 30 are needed).",
        ),
        (
            table("undetermined", "undetermined", whole="negative"),
            "Ratings of books hurt predictions of music over all users together; for no kind of user alone do the held-out "
            "ratings settle it.",
        ),
        (None, "No verdict: whether ratings of books help predictions of music was not tested for this page."),
    ],
)
def test_the_verdict_in_one_sentence(found, want):
    assert words.headline(found, "books", "music", USER) == want


@pytest.mark.parametrize(
    ("probability", "want"),
    [
        (0.0, "almost certainly helps: over 99%"),
        (0.03, "very probably helps: 97%"),
        (0.15, "probably helps: 85%"),
        (0.4, "could go either way: 60% that it helps"),
        (0.6, "could go either way: 40% that it helps"),
        (0.9, "probably hurts: 90%"),
        (1.0, "almost certainly hurts: over 99%"),
    ],
)
def test_chances_in_words(probability, want):
    assert words.chance(probability) == want


@pytest.mark.parametrize("entity", ["user", "item"])
def test_every_reason_of_a_verdict_has_plain_words(entity):
    """The reasons are those that the judge can give: none may reach the page with its nats."""
    rng = np.random.default_rng(0)
    seen = set()
    for mean, sd, n, least in [(0.01, 0.1, 60, 0), (0.2, 1, 60, 9), (0.1, 2, 60, 0), (1, 1, 9, 0)]:
        noise = rng.normal(0, sd, n)
        frame = pd.DataFrame({"delta": mean + noise - noise.mean(), "n": 1})
        part = SimpleNamespace(user=np.arange(n), shares=[])
        found = verdict._judge([frame], [part], [np.ones(n, dtype=bool)], least, 0, entity)
        plain = words.reason(found.reason)
        assert plain
        assert "nat" not in plain.split()
        seen.add(plain)
    assert len(seen) == 4
    assert words.reason(f"one {entity} decides: without the {entity} ...") == f"one {entity} decides it"
    assert f"only 9 {entity}s" in " ".join(seen)


def chains(rhat=1.01, ess=400.0, bad=0, inner=0):
    return facts.Chains(
        rhat, ess, 50, bad, 10, inner, pd.DataFrame(columns=["quantity", "rhat", "ess_bulk", "ess_tail"])
    )


@pytest.mark.parametrize(
    ("found", "start"),
    [
        (chains(), "Yes: the chains agree on all 50 predictions that were checked."),
        (chains(1.08), "Yes: the chains nearly agree on all 50"),
        (
            chains(ess=30.0),
            "Yes: the chains agree on all 50 predictions that were checked. There are few independent draws",
        ),
        (
            chains(inner=4),
            "Yes: the chains agree on all 50 predictions that were checked. They do not agree on 4 of 10 inner",
        ),
        (chains(1.2, bad=3), "Mostly: the chains do not agree on 3 of the 50"),
        (chains(2.0, bad=20), "No: the chains do not agree on 20 of the 50"),
        (chains(np.nan), "There are too few draws"),
    ],
)
def test_convergence_in_words(found, start):
    assert words.convergence(found, one_chain=False).startswith(start)


def test_an_approximation_does_not_boast_of_its_chains(arms, tmp_path):
    svi = type("SVI", (), {"__repr__": lambda self: "SVI()", "approximates": True})()
    text = report(dataclasses.replace(arms.bare, method=svi), tmp_path / "r.html").read_text()
    assert "not a simulation" in text
    assert "R-hat" not in text


@pytest.mark.parametrize(
    ("covered", "se", "want"),
    [(0.91, 0.01, "mean what they say"), (0.8, 0.01, "too narrow"), (0.97, 0.01, "too wide"), (0.8, 0.06, "mean what")],
)
def test_trust_in_words(covered, se, want):
    assert want in words.trust(covered, se)


def gain(largest=0.05, high=0.1):
    groups = pd.DataFrame({"high": [high, 0.2]}, index=["1 to 5", "6 to 20"])
    return facts.Gains(np.zeros(2), 0.5, largest, EVIL, groups)


def advise(found=None, gained=None, chain=None, covered=(0.9, 0.01), has_source=True, w=USER):
    out = words.advice(found, gained, chain or chains(), covered, "books", w, has_source)
    return "\n".join(out)


@pytest.mark.parametrize("w", [USER, ITEM], ids=["user", "item"])
@pytest.mark.parametrize(
    ("harmed", "want"),
    [
        (["none"], "{} without ratings in books"),
        (["1 to 5"], "{} with 1 to 5 ratings in books"),
        (["1 to 5", "201 or more"], "{} with 1 to 5 and 201 or more ratings in books"),
        (["none", "1 to 5"], "{0} without ratings in books and {0} with 1 to 5 ratings there"),
        (
            ["none", "1 to 5", "6 to 20"],
            "{0} without ratings in books and {0} with 1 to 5 and 6 to 20 ratings there",
        ),
    ],
)
def test_harmed_groups_in_words(harmed, want, w):
    """The advice and the section name the groups alike; the group without ratings is the one that ``span`` calls none."""
    names = [facts.span(facts.SOURCE_EDGES, k) for k in range(len(facts.SOURCE_EDGES))]
    assert set(harmed) < set(names)
    high = np.where(np.isin(names, harmed), -0.1, 0.2)
    found = pd.DataFrame({"users": 9, "delta": high - 0.1, "low": high - 0.2, "high": high, "better": 0.4}, index=names)
    found = facts.Gains(np.array([-0.2, 0.1]), 0.5, 0.05, "u", found)
    who = want.format(w.many)
    assert f"Keep an eye on {who}: their predictions get worse with it." in advise(table(), found, w=w)
    text = Page(sections.gains(found, "books", w)).text
    assert f"Worse with the source: {who}." in text
    assert text.count("harmed") == len(harmed)
    assert "none ratings" not in text


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(-0.2, -0.1, "harmed"), (0.1, 0.2, "gains"), (-0.1, 0.1, "unclear"), (0.0, 0.0, "unclear")],
)
def test_a_group_is_called_by_its_interval(low, high, want):
    frame = pd.DataFrame({"users": 9, "delta": 0.0, "low": [low, -np.inf], "high": [high, np.inf], "better": 0.4})
    found = facts.Gains(np.array([-0.2, 0.1]), 0.5, 0.05, "u", frame.set_axis(["1 to 5", "6 to 20"]))
    rows = re.findall(r"<tr><th scope='row'>.*?</tr>", sections.gains(found, "books", USER))
    assert [re.findall(r"<td>([a-z]+)</td>", row) for row in rows] == [[want], ["unclear"]]


@pytest.mark.parametrize("w", [USER, ITEM], ids=["user", "item"])
@pytest.mark.parametrize(("n", "s"), [(0, "s"), (1, ""), (2, "s"), (1200, "s")])
def test_counts_agree_with_their_nouns(n, s, w):
    """Every count that a section prints: cards, weights, gains, intervals and examples."""
    one = facts.Example("few", "u", n, n, pd.DataFrame({"item": ["a"], "mean": 3.0, "lower": 2.0, "upper": 4.0}))
    share = pd.DataFrame({"users": [n], "source": 0.5, "population": 0.3, "target": 0.2}, index=["none"])
    held = pd.DataFrame({"value": 3.0, "mean": 3.0, "sd": 1.0, "n_own": 0, "pit": 0.5, w.one: range(max(n, 1))})
    said = {
        f"{n:,} {w.one}{s}, {n:,} rating{s} held out.": sections.cards(table(n_users=n, n_rows=n), w),
        f"{n:,} rating{s} in music" + (f", {n:,} in books" if n else ""): sections.examples(
            [one], (1.0, 5.0), "books", "music", w
        ),
    }
    if n:
        gained = facts.Gains(np.full(n, 0.1), 1.0, 0.05, "u", None)
        said[f"100% of {n:,} tested {w.one}{s} were predicted better"] = sections.gains(gained, "books", w)
        said[f"({n:,} held-out rating{s})."] = sections.calibration(held, w)
    for want, content in said.items():
        assert want in Page(content).text
    assert f"none <small>{n:,} {w.one}{s}</small>" in sections.weights(share, w)
    assert "'no own ratings: the source 50%" in sections.weights(share, w).replace('"', "'")


def test_advice_follows_from_the_numbers():
    good = advise(table("positive", "positive", "positive"), gain())
    assert good == (
        "Use ratings of books for newcomers (no rating yet), beginners (1 to 5 ratings) and regulars (more than 5 ratings)."
    )
    bad = advise(table("negative", "undetermined", None, "negative", delta_per_row=0.0, se=0.1), gain(0.4, -0.1))
    lines = bad.splitlines()
    assert lines[0].startswith("Leave ratings of books out for newcomers")
    assert "beginners (1 to 5 ratings): the source may change" in lines[1]
    assert f"{np.expm1(-0.1645):+.1%} to {np.expm1(0.1645):+.1%}" in lines[1]
    assert lines[2].startswith("Test regulars (more than 5 ratings) before you use")
    assert "users with 1 to 5 ratings in books" in lines[3]
    assert lines[4].startswith(f"Look at user {EVIL}: 40%")
    assert len(lines) == 5
    few = advise(table("undetermined", "positive", "positive", reason="only 3 users, at least 30 are needed"))
    assert "Test newcomers (no rating yet) with more users: only 3 users" in few
    assert advise(table(), chain=chains(1.5, bad=9)).startswith("First let the computation run longer")
    assert "Do not show the intervals" in advise(table(), covered=(0.7, 0.01))
    assert "Do not switch ratings of books on" in advise()
    assert "uses no source" in advise(has_source=False)


def test_the_two_tables_of_words_are_told_apart():
    """Every rule of the advice at once: same numbers for items, and users only where people are meant."""
    seen = {}
    for w in (USER, ITEM):
        mixed = table("negative", "undetermined", None, "negative", delta_per_row=0.0, se=0.1)
        few = table("undetermined", "positive", "positive", reason="only 3, at least 30 are needed")
        lines = advise(mixed, gain(0.4, -0.1), covered=(0.7, 0.01), w=w) + advise(few, w=w)
        whole = table("undetermined", "undetermined", whole="negative")
        seen[w.one] = lines + words.headline(whole, "books", "music", w) + words.headline(None, "books", "music", w)
    said = seen["item"].replace(EVIL, "").replace("Do not show the intervals to users", "")
    assert "user" not in said
    assert "Look at item : 40% of all differences come from this one item, perhaps one id for" in said
    assert "Keep an eye on items with 1 to 5 ratings" in said
    assert "for no kind of item alone" in said
    assert re.findall(r"\d+", seen["item"]) == re.findall(r"\d+", seen["user"])
    for name in ("one", "many", "left", "compromise", "perhaps", "ordered", "also"):
        assert getattr(USER, name) != getattr(ITEM, name)
    assert USER.kind.keys() == ITEM.kind.keys() == words.RATINGS.keys()


# drawings


def shapes(text, kind):
    return [node.attrib for node in ElementTree.fromstring(text).iter(kind)]


def test_stacks_add_up_and_say_it_in_text():
    text = svg.stack({"source": 0.5, "population": 0.45, "own": 0.05}, 'a "label" <b>')
    bars = shapes(text, "rect")
    assert [b["class"] for b in bars] == ["source", "population", "own"]
    assert sum(float(b["width"].rstrip("%")) for b in bars) == pytest.approx(100.0)
    assert [b["x"] for b in bars] == ["0.00%", "50.00%", "95.00%"]
    assert [node.text for node in ElementTree.fromstring(text).iter("text")] == ["50%", "45%"]
    assert ElementTree.fromstring(text).attrib["aria-label"] == 'a "label" <b>'


def test_intervals_are_cut_off_at_the_scale():
    text = svg.interval(-3.0, 3.0, 9.0, (1.0, 5.0), "x")
    (line,), (dot,) = shapes(text, "line"), shapes(text, "circle")
    assert (line["x1"], dot["cx"], line["x2"]) == ("3.00%", "50.00%", "97.00%")
    assert shapes(svg.interval(2.0, 2.0, 2.0, (2.0, 2.0), "x"), "circle")[0]["cx"] == "3.00%"


def test_histograms_count_and_split_at_zero():
    values = np.array([-1.0, -0.1, 0.1, 0.1, 0.1, 50.0] + [0.05] * 94)
    bars = shapes(svg.histogram(values, "x", ("a", "b", "c"), bins=4), "rect")
    assert [b["class"] for b in bars] == ["bad", "bad", "good", "good"]
    end = svg.reach(values)
    assert end == np.quantile(np.abs(values), 0.98)
    height = np.array([float(b["height"]) for b in bars])
    count, _ = np.histogram(np.clip(values, -end, end), 4, (-end, end))
    assert count.sum() == len(values), "nobody falls off the ends"
    assert height == pytest.approx(120 * count / count.max(), abs=0.06)
    assert svg.histogram(np.zeros(3), "x", ("a", "b", "c"))


def test_perfect_coverage_is_drawn_on_the_diagonal():
    level = np.linspace(0, 1, 5)
    text = svg.coverage({"a": level, "b": level**2}, level, "x")
    first, second = (
        np.array([p.split(",") for p in s["points"].split()], dtype=float) for s in shapes(text, "polyline")
    )
    assert first.sum(1) == pytest.approx(first.sum(1)[0])
    assert (second[1:-1, 1] > first[1:-1, 1]).all(), "less coverage lies lower on the page"
    assert {s["class"] for s in shapes(text, "polyline")} == {"curve c0", "curve c1"}
