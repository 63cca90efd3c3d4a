"""Data: interactions, their vocabularies, splits, synthetic tables and the placebo source."""

from __future__ import annotations

from bayesrec.data import split, synthetic
from bayesrec.data.batch import Batch
from bayesrec.data.columns import Columns
from bayesrec.data.duplicates import cross_domain_duplicates, drop_duplicates, leaked_rows, merge_duplicates
from bayesrec.data.interactions import Interactions
from bayesrec.data.placebo import derange_sources
from bayesrec.data.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "Columns",
    "Interactions",
    "Vocabulary",
    "cross_domain_duplicates",
    "derange_sources",
    "drop_duplicates",
    "leaked_rows",
    "merge_duplicates",
    "split",
    "synthetic",
]
