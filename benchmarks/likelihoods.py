"""Poisson and StudentT against Gaussian on synthetic counts and on ratings with outliers: `python benchmarks/likelihoods.py`.

Log scores of held-out ratings, paired and clustered by user. Counts: the Gaussian is counted by the mass that it gives to the
unit interval around the count, all below one half for 0. Ratings: log densities. "plain" are data on which the Gaussian is
right, so that the price of the other likelihood shows.
"""

from __future__ import annotations

import numpy as np
from common import cell
from scipy.special import logsumexp

import bayesrec as br
from bayesrec.metrics import clustered_mean

SEEDS = (0, 1, 2)
METHOD = br.Gibbs(draws=300, warmup=200, chains=2)


def data(kind: str, seed: int) -> br.Interactions:
    """150 users, 40 + 40 items; counts with means of about 3 or 30, or ratings with and without outliers."""
    frame, _ = br.data.synthetic.cross_domain(n_users=150, n_items=(40, 40), n_ratings=(15, 12), rank=2, seed=seed)
    rng, value = np.random.default_rng([seed, 7]), frame["value"].to_numpy()
    if kind in ("few plays", "many plays"):
        level = {"few plays": 0.8, "many plays": 3.2}[kind]
        extra = 0.3 * rng.standard_normal(len(value))
        value = rng.poisson(np.exp(level + 0.6 * (value - value.mean()) + extra)).astype(float)
    elif kind == "outliers":
        value = value + (rng.random(len(value)) < 0.05) * rng.normal(0.0, 5.0 * value.std(), len(value))
    return br.Interactions.from_frame(frame.assign(value=value), target="target", value="value")


def scores(likelihood: br.Gaussian, kind: str, seed: int) -> dict[str, np.ndarray]:
    """Log scores of held-out target ratings, and their users."""
    train, test = br.split.holdout(data(kind, seed), 0.25, seed=seed)
    model = br.models.TransferMF(rank=2, likelihood=likelihood)
    posterior = br.fit(model, train, METHOD, seed=seed, progress=False)
    if kind.endswith("plays") and isinstance(likelihood, br.Gaussian):
        parts = []
        for rows, law in posterior.laws(posterior.data.encode(test)):
            value = test.value[rows]
            mass = law.cdf(value + 0.5) - law.cdf(np.where(value == 0.0, -1e12, value - 0.5))
            density = logsumexp(law.log_density(value), axis=1) - np.log(law.mean.shape[1])
            parts.append(
                np.where(mass > 1e-8, np.log(np.maximum(mass, 1e-300)), density)
            )  # far out the interval is short
        score = np.concatenate(parts)
    else:
        score = posterior.log_score(test)
    return {"score": score, "user": test.user, "seed": np.full(len(score), seed)}


def main() -> None:
    """Print a row for each kind of data and likelihood."""
    print("| data | likelihood | log score | gain on Gaussian | SE |\n|---|---|---:|---:|---:|")
    for kind, other in (
        ("few plays", br.Poisson()),
        ("many plays", br.Poisson()),
        ("outliers", br.StudentT()),
        ("plain", br.StudentT()),
    ):
        found = {}
        for likelihood in (br.Gaussian(), other):
            name = type(likelihood).__name__
            key = f"likelihoods-{kind.replace(' ', '-')}-{name}"
            cells = [cell(f"{key}-{s}", lambda one=likelihood, kind=kind, s=s: scores(one, kind, s)) for s in SEEDS]
            found[name] = {field: np.concatenate([c[field] for c in cells]) for field in ("score", "user", "seed")}
        base = found["Gaussian"]
        for name, arrays in found.items():
            gain, error = clustered_mean(arrays["score"] - base["score"], base["seed"] * 10**6 + base["user"])
            print(f"| {kind} | {name} | {arrays['score'].mean():.3f} | {gain:+.3f} | {error:.3f} |")


if __name__ == "__main__":
    main()
