"""How long ``assess_transfer`` takes on Douban, books to music, and where the time goes. No cells: seconds are not cached.

Run ``python benchmarks/assess_time.py [--profile]``: TransferMF and PMF at rank 8, 5 folds of users, one chain of 200 draws
after 100. The load of the machine is printed, since whatever else runs takes its share.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import time

from common import douban

import bayesrec as br
from bayesrec.inference.gibbs import cpus

LIMIT = 60.0  # seconds, on two cores


def main() -> None:
    """Time one run, after a small one that compiles."""
    data = douban()
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 6))
    small = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.Gibbs(draws=200, warmup=100, chains=1)
    br.assess_transfer(
        br.models.TransferMF(rank=8), small, br.Gibbs(draws=5, warmup=5, chains=1), folds=2, progress=False
    )
    load = os.getloadavg()[0]
    profile = cProfile.Profile()
    start, work = time.perf_counter(), time.process_time()
    if "--profile" in sys.argv:
        profile.enable()
    found = br.assess_transfer(br.models.TransferMF(rank=8), data, method, progress=False)
    profile.disable()
    seconds, work = time.perf_counter() - start, time.process_time() - work
    print(
        f"{len(data):,} ratings, {len(found.per_user):,} users held out, {len(found.rows):,} ratings judged: {found.verdict}"
    )
    print(f"assess_transfer: {seconds:.1f} s (limit {LIMIT:.0f}) on {cpus()} CPUs, {work:.1f} s of work in all threads")
    print(f"load of the machine before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    if "--profile" in sys.argv:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(40)


if __name__ == "__main__":
    main()
