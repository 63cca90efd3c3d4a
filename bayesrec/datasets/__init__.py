"""Readers of public data sets, builders of cross-domain Interactions, and transforms of tables.

A reader takes a folder, an archive or a file as it was distributed and returns a `Dataset`.
"""

from __future__ import annotations

from bayesrec.datasets.amazon import amazon
from bayesrec.datasets.anime import anime
from bayesrec.datasets.build import by_category, by_file, by_genre, by_split, by_time
from bayesrec.datasets.cdrib import cdrib
from bayesrec.datasets.common import Dataset
from bayesrec.datasets.douban import douban
from bayesrec.datasets.movielens import movielens
from bayesrec.datasets.movietweetings import movietweetings
from bayesrec.datasets.netflix import netflix
from bayesrec.datasets.recbole import recbole
from bayesrec.datasets.transforms import binarise, genre_features, k_core, text_features, time_bins
from bayesrec.datasets.trust import ciao, epinions
from bayesrec.datasets.yelp import yelp

__all__ = [
    "Dataset",
    "amazon",
    "anime",
    "binarise",
    "by_category",
    "by_file",
    "by_genre",
    "by_split",
    "by_time",
    "cdrib",
    "ciao",
    "douban",
    "epinions",
    "genre_features",
    "k_core",
    "movielens",
    "movietweetings",
    "netflix",
    "recbole",
    "text_features",
    "time_bins",
    "yelp",
]
