"""What the numbers mean, in words, by plain rules. Internal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesrec.diagnostics.wording import counted as counted
from bayesrec.reports.facts import NONE, Z90, Chains, Gains

__all__ = ["WORDS", "Words", "advice", "chance", "convergence", "headline", "percent", "reason"]


@dataclass(frozen=True)
class Words:
    """How the page speaks of the shared side and of the domains.

    Attributes
    ----------
    one, many : str
    kind : dict
        Names of the kinds, by number of target ratings.
    of_source, of_target : str
        Prepositions behind "ratings" and "predictions": a source is a kind of item, or a group of users.
    also : str
        Head of the column that counts how many of a source are in the target, too.
    ordered : str
        What the users of the examples are ordered by.
    left, compromise : str
        What the bars of the weights are, and what a prediction is.
    roles : str
        What the model's own names mean, where that is not plain.
    perhaps : str
        What may be the matter with the one that carries most of the differences.
    """

    one: str
    many: str
    kind: dict[str, str]
    of_source: str
    of_target: str
    also: str
    ordered: str
    left: str
    compromise: str
    roles: str
    perhaps: str


WORDS = {
    "user": Words(
        one="user",
        many="users",
        kind={"cold": "newcomers", "few": "beginners", "warm": "regulars"},
        of_source="of",
        of_target="of",
        also="also",
        ordered="source ratings",
        left="the number of ratings a user has given in the target. Different groups are different people.",
        compromise="A prediction for a user is a compromise between what the source says about them, what is usual in the "
        "target, and their own ratings there.",
        roles="",
        perhaps="perhaps a robot or a shared account",
    ),
    "item": Words(
        one="item",
        many="items",
        kind={"cold": "new items", "few": "rarely rated items", "warm": "established items"},
        of_source="from",
        of_target="for",
        also="items also",
        ordered="ratings",
        left="the number of ratings an item has received in the target. Different groups are different items.",
        compromise="A prediction for an item is a compromise between what the source says about it, what is usual in the "
        "target, and its own ratings there.",
        roles="In names with an underscore, such as user_bias_sd, user stands for item and item for user.",
        perhaps="perhaps one id for two different things",
    ),
}
RATINGS = {"cold": "no rating yet", "few": "1 to 5 ratings", "warm": "more than 5 ratings"}
SAYS = {"positive": "helps", "negative": "hurts", "undetermined": "undetermined"}
DO = {"positive": "help", "negative": "hurt"}
MEASURES = {
    "RMSE": "typical error (RMSE), less is better",
    "CRPS": "error of the whole prediction (CRPS), less is better",
    "NDCG@10": "order of a list (NDCG@10), more is better",
}
VARIANTS = {
    "default": "as fitted",
    "gate prior x 2": "an irrelevant source twice as likely",
    "gate prior / 2": "an irrelevant source half as likely",
    "shrinkage x 2": "a source may say twice as much",
    "shrinkage / 2": "a source may say half as much",
}
AGREE = 1.05  # R-hat up to which the chains agree; above the limit of diagnostics() they do not
FEW_BAD = 0.1  # share of the quantities that may disagree before the answer is a plain no
FEW_DRAWS = 100  # effective draws below which intervals are rough
OFF = 0.04  # coverage may miss .9 by as much before the page warns: coarse ratings alone lift it by .03
DOMINATES = 0.25  # share of all differences that one user may carry


def percent(x: float, digits: int = 0) -> str:
    """A share in percent that never claims certainty: over 99%, under 1%.

    Examples
    --------
    >>> percent(0.9999), percent(0.0), percent(0.123)
    ('over 99%', 'under 1%', '12%')
    """
    if x > 0.99:
        return "over 99%"
    return "under 1%" if x < 0.01 else f"{x:.{digits}%}"


def chance(probability: float) -> str:
    """Words and number for the probability that the source hurts.

    Examples
    --------
    >>> chance(0.001), chance(0.45)
    ('almost certainly helps: over 99%', 'could go either way: 55% that it helps')
    """
    side, p = ("helps", 1.0 - probability) if probability <= 0.5 else ("hurts", probability)
    if p < 0.8:
        return f"could go either way: {percent(1.0 - probability)} that it helps"
    how = "almost certainly" if p > 0.99 else "very probably" if p > 0.95 else "probably"
    return f"{how} {side}: {percent(p)}"


def reason(text: str) -> str:
    """Why a verdict is undetermined, for somebody who does not know what a nat is."""
    if text.startswith("the summed difference"):
        return "the difference is too small to tell from none"
    if text.startswith("the mean difference"):
        return "the difference is smaller than the one that was asked for"
    if text.startswith("the probability"):
        return "the held-out ratings allow both"
    return f"{text.split(':')[0]} it" if text.startswith("one ") else text  # "one user decides: without ..."


def joined(names: Iterable[str]) -> str:
    """Names as in a sentence.

    Examples
    --------
    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def groups(names: Iterable[str], w: Words) -> str:
    """Kinds of users or items as in a sentence."""
    return joined([f"{w.kind[n]} ({RATINGS[n]})" for n in names])


def called(table: pd.DataFrame, verdict: str) -> list[str]:
    """Kinds with this verdict."""
    return [name for name in table.index if name != "all" and table.loc[name, "verdict"] == verdict]


def headline(table: pd.DataFrame | None, source: str, target: str, w: Words) -> str:
    """The verdict in one sentence. ``table`` is that of :func:`bayesrec.reports.facts.worth`."""
    ratings, predictions = f"ratings {w.of_source} {source}", f"predictions {w.of_target} {target}"
    if table is None:
        return f"No verdict: whether {ratings} help {predictions} was not tested for this page."
    parts = [f"{do} {groups(called(table, verdict), w)}" for verdict, do in DO.items() if called(table, verdict)]
    unclear = called(table, "undetermined")
    if not parts:
        whole = table.loc["all", "verdict"]
        if len(unclear) > 1 and whole != "undetermined":
            return (
                f"Ratings {w.of_source} {source} {DO[str(whole)]} {predictions} over all {w.many} together; for no kind of "
                f"{w.one} alone do the held-out ratings settle it."
            )
        why = reason(str(table.loc["all", "reason"]))
        return f"Undetermined: it is not settled whether {ratings} help {predictions} ({why})."
    out = f"In {predictions}, {ratings} {' and '.join(parts)}"
    return out + (f"; for {groups(unclear, w)} it is undetermined." if unclear else ".")


def convergence(found: Chains, one_chain: bool, approximate: bool = False) -> str:
    """Whether the chains agree, in a sentence or two. Predictions come first: the page rests on them."""
    if approximate:
        return (
            "This fit is a variational approximation, not a simulation: its draws agree whether it is good or not. It tends to "
            "be too sure of itself, so look at the section on intervals."
        )
    if np.isnan(found.rhat):
        return "There are too few draws to tell whether the computation converged."
    who = "the two halves of the chain" if one_chain else "the chains"
    if found.bad:
        most = "Mostly" if found.bad <= FEW_BAD * found.n else "No"
        return (
            f"{most}: {who} do not agree on {found.bad} of the {found.n} predictions that were checked. The numbers on this "
            "page may change with a longer run."
        )
    how = "agree" if found.rhat <= AGREE else "nearly agree"
    out = f"Yes: {who} {how} on all {found.n} predictions that were checked."
    if found.ess < FEW_DRAWS:
        out += " There are few independent draws, so the last digits are rough."
    if found.inner_bad:
        out += (
            f" They do not agree on {found.inner_bad} of {found.inner} inner quantities of the model, such as the size of the "
            "noise: the shares of the source may move a little with a longer run."
        )
    return out


def trust(covered: float, se: float) -> str:
    """Whether 90% intervals keep their promise, in a sentence."""
    gap = covered - 0.9
    if abs(gap) <= max(OFF, 2.0 * se):
        return "The intervals mean what they say"
    return "The intervals are too wide: too careful" if gap > 0 else "The intervals are too narrow: too sure"


def harmed(found: Gains) -> list[str]:
    """Groups by number of source ratings whose predictions get worse, beyond doubt at 90%."""
    if found.groups is None or len(found.groups) < 2:
        return []
    return [str(name) for name, row in found.groups.iterrows() if row["high"] < 0]


def harmed_segments(found: pd.DataFrame | None) -> list[str]:
    """Groups of :func:`bayesrec.reports.facts.segments` whose verdict is negative."""
    if found is None:
        return []
    return [f"{row.segment}: {row.level}" for row in found.itertuples() if row.verdict == "negative"]


def steadiness(found: pd.DataFrame) -> str:
    """Whether the verdict is the same under all assumptions.

    Examples
    --------
    >>> steadiness(pd.DataFrame({"delta_per_row": [0.1, 0.08, 0.12], "verdict": ["positive"] * 3}))
    'No: the verdict is the same under all of them, and the gain is between +0.080 and +0.120 a rating.'
    """
    low, high = found["delta_per_row"].min(), found["delta_per_row"].max()
    size = f"the gain is between {low:+.3f} and {high:+.3f} a rating."
    if found["verdict"].nunique() == 1:
        return f"No: the verdict is the same under all of them, and {size}"
    return f"Yes: the verdict is not the same under all of them; {size}"


def conflicts(count: int, n: int, source: str, w: Words) -> str:
    """How many users or items contradict their source.

    Examples
    --------
    >>> conflicts(3, 200, "books", WORDS["user"])
    'Own ratings of 3 of 200 users contradict what their ratings of books announced; up to 5% would by chance.'
    """
    return (
        f"Own ratings of {count:,} of {counted(n, w.one)} contradict what their ratings {w.of_source} {source} announced; "
        "up to 5% would by chance."
    )


def who_rated(names: Iterable[str], source: str, w: Words) -> str:
    """Groups by number of source ratings as in a sentence.

    Examples
    --------
    >>> who_rated(["none", "1 to 5"], "books", WORDS["user"])
    'users without ratings in books and users with 1 to 5 ratings there'
    """
    names = list(names)
    some = [name for name in names if name != NONE]
    if NONE not in names:
        return f"{w.many} with {joined(some)} ratings in {source}"
    out = f"{w.many} without ratings in {source}"
    return f"{out} and {w.many} with {joined(some)} ratings there" if some else out


def advice(
    table: pd.DataFrame | None,
    gain: Gains | None,
    found: Chains,
    covered: tuple[float, float] | None,
    source: str,
    w: Words,
    has_source: bool = True,
    harmed_groups: list[str] | None = None,
) -> list[str]:
    """What to do now: the rules of the page, most urgent first."""
    out = []
    ratings = f"ratings {w.of_source} {source}"
    if found.bad:
        out.append("First let the computation run longer (more draws and warmup): the chains do not agree yet.")
    if not has_source:
        out.append(
            "This model uses no source. To learn whether one would help, fit TransferMF and make this page again."
        )
    elif table is None:
        out.append(f"Do not switch {ratings} on before they were tested: this page has no verdict.")
    else:
        out.extend(_by_kind(table, ratings, w))
    if gain is not None and harmed(gain):
        out.append(f"Keep an eye on {who_rated(harmed(gain), source, w)}: their predictions get worse with it.")
    if harmed_groups:
        out.append(f"Leave {ratings} out for these groups, or look why they differ: {joined(harmed_groups)}.")
    if gain is not None and gain.largest > DOMINATES:
        out.append(
            f"Look at {w.one} {gain.largest_id}: {gain.largest:.0%} of all differences come from this one {w.one}, "
            f"{w.perhaps}."
        )
    if covered is not None and not trust(*covered).startswith("The intervals mean"):
        out.append("Do not show the intervals to users as they are: they do not keep what they promise.")
    return out


def _by_kind(table: pd.DataFrame, ratings: str, w: Words) -> list[str]:
    out = []
    if called(table, "negative"):
        worse = groups(called(table, "negative"), w)
        out.append(f"Leave {ratings} out for {worse}: they make their predictions worse.")
    if called(table, "positive"):
        out.append(f"Use {ratings} for {groups(called(table, 'positive'), w)}.")
    for name in called(table, "undetermined"):
        row = table.loc[name]
        if str(row["reason"]).startswith("only"):
            out.append(f"Test {groups([name], w)} with more {w.many}: {row['reason']}.")
            continue
        low, high = (np.expm1(row["delta_per_row"] + k * Z90 * row["se"]) for k in (-1, 1))
        out.append(
            f"Undecided for {groups([name], w)}: the source may change the probability of a rating by anything from {low:+.1%} "
            f"to {high:+.1%}. Test more {w.many}, or decide by cost if changes of that size do not matter to you."
        )
    missing = [name for name in RATINGS if name not in table.index]
    if missing:
        out.append(f"Test {groups(missing, w)} before you use {ratings} for them: this page says nothing about them.")
    return out
