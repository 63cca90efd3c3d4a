"""Evaluation: the answer of `evaluate`, a tidy frame and the tables made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.errors import DataError
from bayesrec.evaluation import export
from bayesrec.evaluation.score import METRICS, NDCG

__all__ = ["COLUMNS", "PAIRS", "Evaluation"]

COLUMNS = (
    "split", "seed", "method", "model", "metric", "value", "se", "difference", "difference_se", "n_rows", "n_users",
    "seconds", "kind",
)  # fmt: skip
PAIRS = ("split", "seed", "method", "model", "metric", "baseline", "difference", "difference_se")
SHOWN = ("rmse", "nlpd", "coverage", NDCG, "order")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What `evaluate` measured. Provisional.

    Attributes
    ----------
    frame : DataFrame
        One row for each cell and metric: split, seed, method (empty for baselines), model, metric, value, se,
        difference (to the reference, on the same rows), difference_se, n_rows (held out), n_users, seconds (fit and
        prediction), kind ("simple", "model" or "ablation"). Standard errors are clustered by user (by item where items are
        shared).
    reference : str
        The row that differences are against.
    notes : tuple of str
        Failed cells with the reason, warnings of fits, splits left out.
    pairs : DataFrame
        Paired differences of every model to every simple baseline: split, seed, method, model, metric, baseline,
        difference, difference_se.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(12, 12), n_ratings=(8, 6))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> found = br.evaluate(br.models.PMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=2), ["cold"])
    >>> found.table("rmse")["model"].nunique(), found.reference  # the model and six simple rows
    (7, 'item + user bias')
    >>> found.behind("rmse")[["model", "baseline"]].values.tolist()  # PMF does not see the source, the SVD does
    [['PMF', 'SVD stacked']]
    >>> found.to_markdown(metrics="rmse").splitlines()[0]
    '**cold: 48 held-out rows of 8 users**'
    """

    frame: pd.DataFrame
    reference: str
    notes: tuple[str, ...] = ()
    pairs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(PAIRS)))

    def table(self, metrics: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Means over seeds.

        Parameters
        ----------
        metrics : str or list of str, optional
            Some of rmse, mae, nlpd, crps, coverage, z2, ndcg@10, order; by default those that the exports show.

        Returns
        -------
        DataFrame
            One row for each split, model, method and metric: value, se (root mean square of the seeds' standard errors),
            spread (sd between seeds, NaN for one seed), difference, difference_se, seeds, kind. NaN where any seed failed.
        """
        rows = []
        for split, here in self.frame.groupby("split", sort=False):
            for metric in self._metrics(metrics):
                cells = here[here["metric"] == metric].groupby(["model", "method"], sort=False)
                for (model, method), part in cells:
                    value, kind = part["value"].to_numpy(), part["kind"].iloc[0]
                    se, gap_se = (
                        float(np.sqrt((part[name] ** 2).mean(skipna=False))) for name in ("se", "difference_se")
                    )
                    spread = float(value.std(ddof=1)) if len(value) > 1 else np.nan
                    gap = part["difference"].mean(skipna=False)
                    rows.append((split, model, method, metric, value.mean(), se, spread, gap, gap_se, len(part), kind))
        columns = [
            "split",
            "model",
            "method",
            "metric",
            "value",
            "se",
            "spread",
            "difference",
            "difference_se",
            "seeds",
            "kind",
        ]
        return pd.DataFrame(rows, columns=columns)

    def to_markdown(self, path: str | Path | None = None, metrics: str | Sequence[str] | None = None) -> str:
        """A Markdown table for each split; written to ``path`` too if given.

        The best model is bold where it is ahead of every simple baseline. A model behind one carries a dagger, and a sentence
        under the table says behind which.
        """
        return export.written(export.markdown(self, self._metrics(metrics)), path)

    def to_latex(self, path: str | Path | None = None, metrics: str | Sequence[str] | None = None) -> str:
        """One LaTeX tabular (package booktabs) with a block for each split; marks as in `to_markdown`."""
        return export.written(export.latex(self, self._metrics(metrics)), path)

    def behind(self, metrics: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Models and ablations that a simple baseline beats, as the values stand.

        Returns
        -------
        DataFrame
            split, model, method, metric, value, baseline (the best one of the split), baseline_value, kind, and the paired
            difference to it with its standard error. Metrics of calibration (coverage, z2) have no better and worse.
        """
        return export.behind(self.table(metrics), self.pairs)

    def _metrics(self, given: str | Sequence[str] | None) -> list[str]:
        """Names, checked; by default the usual ones that are not NaN throughout."""
        if given is None:
            known = self.frame.dropna(subset="value")["metric"].unique()
            return [name for name in SHOWN if name in known] or ["rmse"]
        names = [given] if isinstance(given, str) else list(given)
        for name in names:
            if name not in METRICS:
                raise DataError(f"metrics: unknown {name!r}{nearest(name, METRICS)}; there are {list(METRICS)}")
        return names

    def __repr__(self) -> str:
        kinds = self.frame.drop_duplicates(["model", "method"])["kind"].value_counts()
        counts = {
            "model": kinds.get("model", 0),
            "ablation": kinds.get("ablation", 0),
            "simple baseline": kinds.get("simple", 0),
            "split": self.frame["split"].nunique(),
            "seed": self.frame["seed"].nunique(),
            "note": len(self.notes),
        }
        sizes = ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts.items() if n)
        return f"Evaluation({sizes})\n{export.text(self, self._metrics(None))}"

    def _repr_html_(self) -> str:
        return export.html_page(self, self._metrics(None))
