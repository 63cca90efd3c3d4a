"""The sections of a report as HTML. Internal."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from bayesrec.posterior.convergence import RHAT_LIMIT
from bayesrec.reports import facts, svg, words
from bayesrec.reports.facts import Chains, Example, Gains
from bayesrec.reports.page import table
from bayesrec.reports.words import Words

__all__ = ["calibration", "cards", "chains", "domains", "examples", "gains", "made", "weights", "worth"]


def p(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p class='{kind}'>{escape(text)}</p>" if kind else f"<p>{escape(text)}</p>"


def more(summary: str, *content: str) -> str:
    """Details for the curious: closed on screen, open on paper."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(content)}</details>"


def figure(content: str, caption: str) -> str:
    """A picture or bars with a caption."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def cards(found: pd.DataFrame | None, w: Words) -> str:
    """A card for each kind of user or item."""
    out = ""
    for name, ratings in words.RATINGS.items():
        kind, call, detail = "untested", "not tested", "This page says nothing about them."
        if found is not None and name in found.index:
            row = found.loc[name].to_dict()
            kind, call = row["verdict"], words.SAYS[row["verdict"]]
            chance = words.chance(row["probability"])
            size, held = words.counted(int(row["n_users"]), w.one), words.counted(int(row["n_rows"]), "rating")
            detail = f"{chance[0].upper()}{chance[1:]}. {size}, {held} held out."
            if row["reason"]:
                detail += f" Why undetermined: {words.reason(row['reason'])}."
        who = f"{w.kind[name].capitalize()}: {ratings}"
        out += (
            f'<li class="verdict {escape(kind)}"><span class="who">{escape(who)}</span>'
            f'<b class="call">{escape(call)}</b><span>{escape(detail)}</span></li>'
        )
    jump = '<p class="note"><a href="#do">What to do now</a></p>'
    return f'<ul class="verdicts" aria-label="Verdict for each kind of {w.one}">{out}</ul>{jump}'


def worth(found: pd.DataFrame, source: str, labels: tuple[str, str], w: Words) -> str:
    """Log score and typical error, with and without the source."""
    row = found.loc["all"]
    times = np.expm1(row["delta_per_row"])
    how = f"{abs(times):.1%} {'more' if times >= 0 else 'less'}"
    out = f"With ratings {w.of_source} {source}, a held-out rating was on average {how} probable than without."
    shown = pd.DataFrame({w.many: [_who(name, w) for name in found.index]})
    shown["log score"] = _margins(found["delta_per_row"], found["se"])
    if "rmse" in found:
        change = row["change"] / row["rmse_without"] if row["rmse_without"] else 0.0
        out += (
            f" The typical error was {row['rmse']:.3f} rating points instead of {row['rmse_without']:.3f} "
            f"({change:+.1%}, margin ±\u00a0{facts.Z90 * row['change_se'] / row['rmse_without']:.1%})."
        )
        shown["error with"] = [f"{x:.3f}" for x in found["rmse"]]
        shown["error without"] = [f"{x:.3f}" for x in found["rmse_without"]]
        shown["change"] = _margins(found["change"], found["change_se"])
    explained = more(
        "What are log score and typical error?",
        p(
            "The log score is the logarithm of the probability that the model gave to a rating before it saw it; the table "
            "shows the score with the source minus the score without. +0.10 means that each held-out rating was 10% more "
            "probable with the source. It rewards good predictions and honest doubt alike."
        ),
        p(
            "The typical error (RMSE) is the root of the mean squared difference between rating and prediction, in rating "
            "points: smaller is better. Numbers behind ± are 90% margins; "
            f"ratings of one {w.one} count as one piece of evidence."
        ),
        p(f"Compared: {labels[0]} with the source, {labels[1]} without."),
    )
    return p(out) + table(shown, label="Worth of the source") + explained


def _margins(value: pd.Series, se: pd.Series) -> list[str]:
    """Numbers with their 90% margins; a line may break before the margin, not inside."""
    margins = ["" if s != s else f" ±\u00a0{facts.Z90 * s:.3f}" for s in se]  # one user alone has no standard error
    return [f"{x:+.3f}{margin}" for x, margin in zip(value, margins, strict=True)]


def _who(name: object, w: Words) -> str:
    return "all tested" if name == "all" else f"{w.kind[str(name)]} ({words.RATINGS[str(name)]})"


def measures(found: pd.DataFrame, w: Words) -> str:
    """The same gap in errors of predictions and in the order of lists."""
    found = found[(found["users"] > 0) & found.index.isin(words.MEASURES)]
    if not len(found):
        return ""
    shown = pd.DataFrame({"measure": [words.MEASURES[str(name)] for name in found.index]})
    for name, column in (("with the source", "with_transfer"), ("without", "without")):
        shown[name] = [f"{x:.3f}" for x in found[column]]
    shown["change"] = _margins(found["difference"], found["se"])
    shown["chance that it is worse"] = [words.percent(x) for x in found["harm"]]
    explained = more(
        "What are these measures?",
        p(
            "The error of the whole prediction (CRPS) compares the predicted range with the rating, in rating points: a wide "
            "range and a range in the wrong place both cost. For a sure prediction it is the plain distance."
        ),
        p(
            "The order of a list (NDCG) is 1 if a person's held-out ratings come in the right order, best first, and smaller "
            "the more the top is wrong. It looks at rated items alone."
        ),
        p(f"Numbers behind ± are 90% margins, clustered by {w.one}. The verdict goes by the log score alone."),
    )
    return "<h3>In other measures</h3>" + table(shown, label="Other measures") + explained


def sensitivity(found: pd.DataFrame) -> str:
    """Whether the answer hangs on the priors."""
    shown = pd.DataFrame({"assumption": [words.VARIANTS.get(str(name), str(name)) for name in found.index]})
    shown["log score a rating"] = _margins(found["delta_per_row"], found["se"])
    shown["verdict"] = [words.SAYS[name] for name in found["verdict"]]
    text = words.steadiness(found)
    note = "One part of the held-out ratings, predicted by fits with other assumptions about how far to trust a source."
    return (
        "<h3>Does the answer hang on assumptions?</h3>" + p(text) + table(shown, label="Sensitivity") + p(note, "note")
    )


def segments(found: pd.DataFrame, w: Words) -> str:
    """Who is harmed, by groups of users."""
    shown = pd.DataFrame({"group": [f"{row.segment}: {row.level}" for row in found.itertuples()]})
    shown[w.many] = [f"{n:,}" for n in found["users"]]
    shown["log score a rating"] = _margins(found["delta_per_row"], found["se"])
    shown["chance of harm"] = [words.percent(x) for x in found["harm"]]
    shown["verdict"] = [words.SAYS[name] for name in found["verdict"]]
    note = (
        "The chance of harm leans on the other groups of the same kind, small groups most: a few unlucky ratings do not make a "
        "group look harmed."
    )
    return "<h3>By group</h3>" + table(shown, label="Groups and their chance of harm") + p(note, "note")


def weights(found: pd.DataFrame, w: Words) -> str:
    """What a typical prediction rests on."""
    names = {"source": "the source", "population": "what is usual in the target", "own": f"the {w.one}'s own ratings"}
    legend = "".join(f"<li>{svg.swatch(name)}{escape(text)}</li>" for name, text in names.items())
    bars = ""
    for group, row in found.iterrows():
        parts = {"source": row["source"], "population": row["population"], "own": row["target"]}
        own = "no" if group == facts.NONE else group
        label = f"{own} own ratings: " + ", ".join(f"{names[k]} {v:.0%}" for k, v in parts.items())
        name = f"{group} <small>{words.counted(int(row['users']), w.one)}</small>"
        bars += f"<li><span>{name}</span>{svg.stack(parts, label)}</li>"
    picture = f'<ul class="legend">{legend}</ul><ul class="bars">{bars}</ul>'
    note = more(
        "What is a share?",
        p(
            f"{w.compromise} The share says how much of the certainty comes from each. It says nothing "
            "about whether the source makes predictions better: that is the verdict's business."
        ),
    )
    return "<h3>What a typical prediction rests on</h3>" + figure(picture, f"Left: {w.left}") + note


def gains(found: Gains, source: str, w: Words) -> str:
    """Who gains and who is harmed."""
    end = svg.reach(found.values)
    low, high = np.expm1(-end), np.expm1(end)
    ticks = (f"{low:.0%}", "no change", f"{high:+.0%}")
    label = f"Histogram of {w.many}: {found.better:.0%} better with the source, {1 - found.better:.0%} not better"
    out = p(
        f"{found.better:.0%} of {words.counted(len(found.values), f'tested {w.one}')} were predicted better with ratings "
        f"{w.of_source} {source} and {1.0 - found.better:.0%} were not. The most affected {w.one} accounts for "
        f"{found.largest:.0%} of all differences."
    )
    out += figure(
        svg.histogram(found.values, label, ticks),
        f"{w.many.capitalize()} by how much less or more probable their held-out ratings are with the source; the outermost "
        f"bars hold all beyond. {w.many.capitalize()} with few held-out ratings land on either side by chance.",
    )
    if found.groups is None or len(found.groups) < 2:
        return out
    groups, worse = found.groups, words.harmed(found)
    out += p(
        f"Worse with the source: {words.who_rated(worse, source, w)}."
        if worse
        else f"No group by number of ratings in {source} is clearly harmed."
    )
    shown = pd.DataFrame({"ratings in the source": groups.index.astype(str)})
    shown[w.many] = [f"{int(n):,}" for n in groups["users"]]
    shown["better with the source"] = [f"{x:.0%}" for x in groups["better"]]
    shown["log score a rating"] = [f"{x:+.3f}" for x in groups["delta"]]
    shown["90% range"] = [
        f"{a:+.3f} to {b:+.3f}" if np.isfinite(a) else "" for a, b in zip(groups["low"], groups["high"], strict=True)
    ]
    shown["group"] = np.select([groups["high"] < 0, groups["low"] > 0], ["harmed", "gains"], "unclear")
    return out + table(shown, label="Groups by number of source ratings")


def calibration(rows: pd.DataFrame, w: Words) -> str:
    """Whether the intervals mean what they say."""
    covered, se = facts.inside(rows, 0.9, w.one)
    half, _ = facts.inside(rows, 0.5, w.one)
    curves = facts.curves(rows)
    label = f"Share of held-out ratings inside intervals against the promised share; at 90% it is {covered:.0%}"
    legend = "".join(f"<li>{svg.line(k)}{escape(_who(name, w))}</li>" for k, name in enumerate(curves))
    picture = f'<ul class="legend">{legend}</ul>' + svg.coverage(curves, facts.LEVELS, label)
    z = (rows["value"] - rows["mean"]) / rows["sd"]
    note = more(
        "How is this measured?",
        p(
            "For every held-out rating the model gives intervals that should hold it with a promised probability. The curve "
            "shows how often they did; on the dashed diagonal promise and fact agree. Ratings on a coarse scale, such as "
            "whole stars, lift the curve a little even for a perfect model."
        ),
        p(f"Mean squared standardised residual: {float((z**2).mean()):.2f} (1 is right; above 1 means too sure)."),
    )
    text = (
        f"{words.trust(covered, se)}: of the intervals that promise 90%, {covered:.0%} held the rating; of those that promise "
        f"50%, {half:.0%} ({words.counted(len(rows), 'held-out rating')})."
    )
    caption = "Upwards: the share of ratings that were inside. Above the diagonal: too careful; below: too sure."
    return p(text) + figure(picture, caption) + note


def examples(found: list[Example], scale: tuple[float, float], source: str, target: str, w: Words) -> str:
    """Lists for one user of each kind."""
    has_source = any("source_weight" in one.items for one in found)
    out = p(
        f"The top of the list for one user of each kind, the one in the middle of the kind by number of {w.ordered}. "
        "The dot is the expected rating, the bar the range that holds a new rating with 90% probability."
        if has_source
        else "The top of the list for one user of each kind. The dot is the expected rating, the bar its 90% range."
    )
    for one in found:
        has = f"{words.counted(one.n_own, 'rating')} in {target}"
        has += f", {one.n_source:,} in {source}" if one.n_source else ""
        kind = words.WORDS["user"].kind[one.regime].capitalize()
        out += f"<h3>{kind}: user {escape(str(one.user))}</h3>{p(has, 'note')}"
        rows = ""
        for row in one.items.to_dict("records"):
            low, mean, high = (float(np.clip(row[name], *scale)) for name in ("lower", "mean", "upper"))
            text = f"{low:.1f} to {high:.1f}"
            bar = svg.interval(low, mean, high, scale, f"expected {mean:.1f}, range {text}")
            rows += (
                f"<tr><th scope='row'>{escape(row['item'])}</th><td class='num'>{mean:.1f}</td>"
                f"<td><div class='beside'>{bar}<small>{text}</small></div></td>"
            )
            if has_source:
                share = row["source_weight"]
                rows += (
                    f"<td class='share'><div class='beside'>{svg.share(share, f'{share:.0%} from the source')}"
                    f"<small>{share:.0%}</small></div></td>"
                )
            rows += "</tr>"
        heads = "<th scope='col'>item</th><th scope='col' class='num'>rating</th><th scope='col'>90% range</th>"
        heads += "<th scope='col' class='share'>source share</th>" if has_source else ""
        out += f"<table class='list'><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return out


def chains(found: Chains, one_chain: bool, approximate: bool, w: Words) -> str:
    """Whether the computation converged."""
    text = words.convergence(found, one_chain, approximate)
    if approximate or np.isnan(found.rhat):
        return p(text)
    note = more(
        "R-hat and effective draws",
        p(
            f"R-hat compares the chains: 1 is perfect, up to {words.AGREE} is good, above {RHAT_LIMIT} they have not met. "
            "Effective draws (ESS) say how many independent draws the correlated ones are worth. "
            f"Worst of the predictions: R-hat {found.rhat:.2f}, {found.ess:.0f} effective draws. The five worst of all:"
        ),
        table(
            found.worst.rename(columns={"ess_bulk": "ESS", "ess_tail": "ESS, tails", "rhat": "R-hat"}), 2, "Convergence"
        ),
        p(w.roles, "note") if w.roles else "",
    )
    return p(text) + note


def domains(found: pd.DataFrame, target: str, w: Words) -> str:
    """Sizes of the data the model was fitted to."""
    shown = pd.DataFrame({"domain": [f"{r.domain} ({r.role})" for r in found.itertuples()]})
    for name in ("ratings", "users", "items"):
        shown[name] = [f"{n:,}" for n in found[name]]
    shown["filled"] = [f"{x:.2%}" if x < 0.1 else f"{x:.0%}" for x in found["density"]]
    shown["mean rating"] = [f"{x:.2f}" for x in found["mean"]]
    if (found["role"] == "source").any():
        shown[f"{w.also} in {target}"] = [
            "" if role == "target" else f"{n:,}" for n, role in zip(found["shared"], found["role"], strict=True)
        ]
    return table(shown, label="Data") + p("Filled: the share of all pairs of user and item that have a rating.", "note")


def made(items: dict[str, str]) -> str:
    """How the page was made, as a list of terms."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items()) + "</dl>"
