"""report: from a posterior and a verdict to one page."""

from __future__ import annotations

import datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.diagnostics import TransferReport, assess_transfer, negative_transfer
from bayesrec.diagnostics.calibration import forecast
from bayesrec.diagnostics.verdict import CHOICE
from bayesrec.errors import DataError, NegativeTransferWarning
from bayesrec.inference.base import Method
from bayesrec.posterior import Posterior
from bayesrec.reports import facts, sections, words
from bayesrec.reports.page import document, write

__all__ = ["report"]

NO_RATINGS = "This needs the training ratings, and the posterior was saved without them."


def report(
    posterior: Posterior,
    path: str | Path = "report.html",
    *,
    verdict: TransferReport | None = None,
    without: Posterior | None = None,
    test: Any = None,
    method: Method | None = None,
    folds: int = 5,
    title: str | None = None,
    progress: bool = True,
) -> Path:
    """Write one self-contained HTML page for a product owner: the verdict in words and what it rests on. Provisional.

    Where the verdict comes from: from ``verdict``; else from ``without`` and ``test``; else from a run of
    :func:`bayesrec.assess_transfer`, which fits the model anew in every fold. A model without a source has none.

    Parameters
    ----------
    posterior : Posterior
        The fit to show: examples, source weights, convergence and data are its own.
    path : str or Path
        The file; an existing one is replaced at the end, or stays whole if writing fails.
    verdict : TransferReport, optional
        Of :func:`bayesrec.negative_transfer` or :func:`bayesrec.assess_transfer`.
    without : Posterior, optional
        A fit without the source; needs ``test``.
    test : DataFrame or Interactions, optional
        Target rows that neither fit has seen. Alone it serves the calibration.
    method : Method, optional
        Of the run of ``assess_transfer``; by default that of the posterior.
    folds : int
        Of the run of ``assess_transfer``; 0 leaves the verdict out, and the page says so.
    title : str, optional
    progress : bool

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        Arguments that contradict each other, or a path whose folder does not exist.

    Examples
    --------
    >>> import tempfile
    >>> import bayesrec as br
    >>> from bayesrec.reports import report
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(12, 12), n_ratings=(8, 5))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=10, warmup=10, chains=2)
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, method, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report(posterior, f"{folder}/report.html", folds=0).name
    'report.html'
    """
    path = Path(path)
    _check(posterior, path, verdict, without, test, folds)
    data, w = posterior.data, words.WORDS[posterior.data.entity]
    has_source, has_rows = bool(data.sources), bool(len(data))
    origin = "computed before and given to this page"
    with facts.quiet(NegativeTransferWarning):
        if verdict is None and without is not None:
            verdict, origin = negative_transfer(posterior, without, test), "two fits compared on the given test ratings"
        elif verdict is None and folds and has_source and has_rows:
            verdict = assess_transfer(posterior.model, data, method or posterior.method, folds=folds, progress=progress)
            origin = f"{folds} folds of {w.many}, each predicted by fits that never saw their ratings in the target"
    rows = _held_out(posterior, test, verdict)
    content = _body(posterior, verdict, rows, origin)
    plain = f"Should {_names(data.sources)} feed recommendations {w.of_target} {data.target}?"
    name = title or (plain if has_source else f"Predictions {w.of_target} {data.target}")
    write(path, document(name, content, f"Made by bayesrec {_version()} on {datetime.date.today():%d %B %Y}."))
    return path


def _check(posterior: Any, path: Path, verdict: Any, without: Any, test: Any, folds: Any) -> None:
    kinds = ((posterior, Posterior, "posterior"), (verdict, TransferReport, "verdict"), (without, Posterior, "without"))
    for value, kind, name in kinds:
        if not isinstance(value, kind) and (value is not None or name == "posterior"):
            raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
    if verdict is not None and without is not None:
        raise DataError("verdict and without both ask for a verdict; give one of the two.")
    if without is not None and test is None:
        raise DataError("without needs test: the held-out target rows on which the two fits are compared.")
    if verdict is not None and verdict.entity != posterior.data.entity:
        raise DataError(
            f"the verdict is about shared {verdict.entity}s, the posterior shares {posterior.data.entity}s; "
            "give a verdict on the same data."
        )
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 0 or folds == 1:
        raise DataError(f"folds must be 0 (no verdict) or a whole number of at least 2, not {folds!r}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise DataError(f"the folder {path.absolute().parent} does not exist; make it first or choose another path.")


def _held_out(posterior: Posterior, test: Any, verdict: TransferReport | None) -> pd.DataFrame | None:
    """Held-out rows with predictions, for the calibration."""
    if verdict is not None and verdict.rows is not None:
        return verdict.rows
    if test is None:
        return None
    rows = forecast(posterior, test)
    code = posterior.data.users.encode(pd.Index(rows[posterior.data.entity]))
    own = facts.counts(posterior.data)[0]
    return rows.assign(n_own=np.where(code >= 0, own[code], 0))


def _names(domains: tuple) -> str:
    if not domains:
        return "the source"
    return words.joined(map(str, domains)) if len(domains) <= 3 else f"{len(domains)} sources"


def _version() -> str:
    try:
        return metadata.version("bayesrec")
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        return "(version unknown)"


def _body(posterior: Posterior, verdict: TransferReport | None, rows: pd.DataFrame | None, origin: str) -> str:
    """Everything between the title and the foot."""
    data, w = posterior.data, words.WORDS[posterior.data.entity]
    source, target = _names(data.sources), str(data.target)
    judged = bool(data.sources) or verdict is not None
    found = None if verdict is None else facts.worth(verdict)
    gain = None if verdict is None else facts.gains(verdict, data)
    agreed = facts.chains(posterior)
    covered = None if rows is None else facts.inside(rows, 0.9, w.one)
    none = sections.p("Not tested: no held-out ratings were given.")
    harmed = [] if verdict is None else words.harmed_segments(facts.segments(verdict))
    todo = words.advice(found, gain, agreed, covered, source, w, judged, harmed)
    lists = _examples(posterior, source, target, w)
    parts = {
        "What the source is worth": _worth(posterior, verdict, found, source, w) if judged else "",
        "Who gains and who is harmed": "" if gain is None else sections.gains(gain, source, w) + _groups(verdict, w),
        "Can the intervals be trusted?": none if rows is None else sections.calibration(rows, w),
        "Examples": lists,
        "Did the computation converge?": sections.chains(
            agreed, posterior.n_chains == 1, getattr(posterior.method, "approximates", False), w
        ),
        "The data": sections.domains(facts.domains(data), target, w) if len(data) else sections.p(NO_RATINGS, "note"),
        "What to do now": "<ol class='do' id='do'>" + "".join(f"<li>{escape(text)}</li>" for text in todo) + "</ol>",
        "What this page cannot say": sections.p(CHOICE),
        "How this page was made": _made(posterior, verdict, origin),
    }
    if judged:
        top = sections.p(words.headline(found, source, target, w), "answer") + sections.cards(found, w)
    else:
        name = type(posterior.model).__name__
        top = sections.p(f"{name} predicts {target} from {target} alone: there is no source to judge.", "answer")
    return top + "".join(f"<h2>{escape(heading)}</h2>{content}" for heading, content in parts.items() if content)


def _worth(
    posterior: Posterior, verdict: TransferReport | None, found: pd.DataFrame | None, source: str, w: words.Words
) -> str:
    if verdict is None or found is None:
        out = sections.p("Not tested: no verdict was asked for.")
    else:
        out = sections.worth(found, source, verdict.labels, w)
        if verdict.metrics is not None:
            out += sections.measures(verdict.metrics, w)
        if verdict.sensitivity is not None:
            out += sections.sensitivity(verdict.sensitivity)
    if not len(posterior.data):
        return out + sections.p(NO_RATINGS, "note")
    share = facts.weights(posterior) if posterior.data.sources else None
    if share is None:
        return out
    clash = facts.conflicts(posterior)
    out += sections.weights(share, w)
    return out + (sections.p(words.conflicts(*clash, source, w)) if clash else "")


def _groups(verdict: TransferReport | None, w: words.Words) -> str:
    found = None if verdict is None else facts.segments(verdict)
    return "" if found is None or not len(found) else sections.segments(found, w)


def _examples(posterior: Posterior, source: str, target: str, w: words.Words) -> str:
    data = posterior.data
    if not len(data):
        return sections.p(NO_RATINGS, "note")
    value, lists = data.value[data.is_target], facts.examples(posterior)
    scale = (float(value.min()), float(value.max()))
    return sections.examples(lists, scale, source, target, w) if lists else ""


def _made(posterior: Posterior, verdict: TransferReport | None, origin: str) -> str:
    seed = getattr(posterior, "seed", None)
    made = {
        "model": repr(posterior.model),
        "method": repr(posterior.method),
        "seed": "not kept with the posterior" if seed is None else str(seed),
        "draws": f"{words.counted(posterior.n_chains, 'chain')} of {posterior.n_draws}",
    }
    if verdict is not None:
        made["verdict"] = " ".join([origin[0].upper() + origin[1:] + ".", *verdict.notes])
    return sections.made(made | {"bayesrec": _version(), "date": f"{datetime.date.today():%d %B %Y}"})
