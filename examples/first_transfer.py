"""A first transfer on your own kind of table: does the source help, and what do cold users get?

Two people in three of this made-up shop have rated books; the shop has just begun to sell music.

    python examples/first_transfer.py [--smoke]
"""

from __future__ import annotations

import sys

import bayesrec as br


def main(smoke: bool = False) -> br.TransferReport:
    n_users = 60 if smoke else 400
    frame, _ = br.data.synthetic.cross_domain(n_users=n_users, n_items=(60, 40), n_ratings=(25, 6), n_cold=5)
    frame["domain"] = frame["domain"].replace({"source": "book", "target": "music"})
    frame = frame.rename(columns={"value": "rating"})
    data = br.Interactions.from_frame(frame, target="music")
    print(data)

    # Hold out a quarter of the users: they keep their books and lose their music.
    train, test = br.split.cold_users(data, fraction=0.25)
    method = br.Gibbs(draws=50, warmup=50, chains=4) if smoke else br.Gibbs(draws=200, warmup=200, chains=4)
    transfer = br.fit(br.models.TransferMF(rank=3), train, method)
    alone = br.fit(br.models.PMF(rank=3), train, method)
    report = br.negative_transfer(transfer, alone, test)
    print(report.summary())

    # Lists for two users who have never rated music, each with an interval and the source's share.
    print(br.recommend(transfer, [0, 1], n=3).round(2).to_string(index=False))

    # A user who signed up after the fit, with two book ratings and nothing else.
    new = frame.head(2).assign(user=10_001, domain="book", rating=[5.0, 1.0])
    print(br.recommend(transfer.fold_in(new), [10_001], n=3).round(2).to_string(index=False))
    return report


if __name__ == "__main__":
    main("--smoke" in sys.argv)
