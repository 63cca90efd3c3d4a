"""A cold user's first five minutes: two questions asked, the answers folded in, a list that changes.

python examples/cold_user.py [--smoke]
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

import bayesrec as br

NOBODY, SOMEBODY = "nobody yet", "somebody new"


def main(smoke: bool = False) -> list[float]:
    n_users, draws = (100, 60) if smoke else (400, 200)
    frame, _ = br.data.synthetic.cross_domain(n_users=n_users, n_items=(40, 60), n_ratings=(10, 20), rank=2)
    frame["user"] = "user " + frame["user"].astype(str)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.Gibbs(draws=draws, warmup=draws, chains=4)
    posterior = br.fit(br.models.PMF(rank=2), data, method, progress=False)
    items = sorted(frame.loc[frame["domain"] == "target", "item"].unique())

    def uncertainty(known: br.Posterior, user: str) -> float:
        """Mean sd of a new rating over all items, noise included."""
        return float(known.predict(pd.DataFrame({"user": user, "item": items}))["sd"].mean())

    def show(title: str, known: br.Posterior, user: str) -> None:
        best = br.recommend(known, user, n=5)
        left.append(uncertainty(known, user))
        print(
            f"\n{title}; mean sd of a rating {left[-1]:.3f}\n{best[['item', 'mean', 'sd']].round(2).to_string(index=False)}"
        )

    left: list[float] = []
    show("Nothing is known: the population's list", posterior, NOBODY)

    questions = br.next_question(posterior, NOBODY, n=2)
    print(
        f"\nTwo questions, and the share of the uncertainty that they leave:\n{questions.round(3).to_string(index=False)}"
    )

    # Made-up answers: an opinion on each side of what the population thinks.
    asked = questions[["item"]].assign(user=SOMEBODY, domain="target")
    typical = posterior.predict(asked)
    asked["value"] = typical["mean"] + np.array([1.0, -1.0]) * typical["sd"]
    known = posterior.fold_in(asked.head(1))
    show("After the first answer", known, SOMEBODY)
    known = known.update(asked.tail(1))
    show("After the second", known, SOMEBODY)

    follow = br.next_question(known, SOMEBODY, n=1)
    print(f"\nThe next question would be item {follow['item'].iloc[0]}.")
    safe = br.recommend(known, SOMEBODY, n=5, by=br.rules.mean_variance(risk=0.5, n=5))
    print(f"A list that does not stand and fall as a whole: {safe['item'].tolist()}")
    return left


if __name__ == "__main__":
    main("--smoke" in sys.argv)
