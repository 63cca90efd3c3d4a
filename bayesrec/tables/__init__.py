"""Tables in files: CSV, TSV, JSONL and Parquet, each also as .gz. Files in, pandas out, and back.

CSV and TSV have no types. A column of ids becomes integers if every entry of it, in all tables read together, is a whole
number as one would write it (no leading zero, no plus sign); otherwise it stays text, so "007" stays "007".
"""

from __future__ import annotations

from bayesrec.tables.formats import format_of
from bayesrec.tables.kinds import whole
from bayesrec.tables.reading import Column, read_table, read_tables
from bayesrec.tables.writing import check_place, not_written, plain, records, to_bytes, write_bytes, write_table

__all__ = [
    "Column",
    "check_place",
    "format_of",
    "not_written",
    "plain",
    "read_table",
    "read_tables",
    "records",
    "to_bytes",
    "whole",
    "write_bytes",
    "write_table",
]
