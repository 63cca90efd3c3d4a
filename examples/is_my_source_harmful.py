"""Is my source harmful? Two sources for one target: one that fits, one that belongs to other people.

python examples/is_my_source_harmful.py [--smoke]
"""

from __future__ import annotations

import sys
import warnings

import bayesrec as br


def main(smoke: bool = False) -> dict[str, str]:
    n_users, draws = (80, 50) if smoke else (400, 200)
    frame, _ = br.data.synthetic.cross_domain(n_users=n_users, n_items=(80, 60), n_ratings=(30, 8))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    sources = {"its own": data, "somebody else's": br.data.derange_sources(data, seed=0)}
    method = br.Gibbs(draws=draws, warmup=draws, chains=4)
    verdicts = {}
    for name, rows in sources.items():
        for model in (br.models.CollectiveMF(rank=3), br.models.TransferMF(rank=3)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)  # printed below
                # the same model without the source rows is the other arm
                report = br.assess_transfer(model, rows, method, folds=2, baseline=model)
            label = f"{type(model).__name__}, every user with {name} source"
            verdicts[label] = report.verdict
            print(f"{label}\n{report.summary()}\n")
    return verdicts


if __name__ == "__main__":
    main("--smoke" in sys.argv)
