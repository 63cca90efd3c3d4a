"""Steps of SVI: milliseconds a step by the number of users, beside a plain Pyro step; noise of the gradient.

    python benchmarks/svi_steps.py [--users 1000,10000,100000] [--parts cost,noise]

*Cost*: synthetic ratings, 20 a user, PMF of rank 8, batches of about 2,000 ratings, mean field; the rival is Pyro's own SVI step
(AutoNormal, Trace_ELBO, Adam) on the same program with the same batches, whose likelihood is scaled and whose priors are those of
all users and items, as a plain Pyro program has it. Best of five blocks of steps.

*Noise*: variance over batches of the gradient in the users' means, at the end of a short fit, one draw of the guide held fast.
Weights are one over the probability to be in a batch, as SVI has them, or follow the share of a member's ratings in the batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from common import show
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import bayesrec as br
from bayesrec.inference.bound import bound_of
from bayesrec.inference.steps import Steps
from bayesrec.models.base import Batch, Schema

torch.set_num_threads(1)
BATCH, PER_USER = 2000, 20


def synthetic(n_users: int, per_user: int = PER_USER, n_items: int | None = None) -> br.Interactions:
    """Ratings of a rank-2 truth, target alone; a tenth as many items as users unless given."""
    rng = np.random.default_rng(0)
    n_items = n_items or max(200, n_users // 10)
    user, item = np.repeat(np.arange(n_users), per_user), rng.integers(0, n_items, n_users * per_user)
    p, q = rng.normal(size=(n_users, 2)), rng.normal(size=(n_items, 2))
    value = (p[user] * q[item]).sum(1) * 0.5 + rng.normal(size=len(user))
    frame = pd.DataFrame({"user": user, "item": item, "domain": "target", "rating": value})
    return br.Interactions.from_frame(frame.drop_duplicates(["user", "item"]), target="target")


def best(step: Callable[[], Any], n: int, blocks: int = 5) -> float:
    """Milliseconds a call."""
    step()
    found = []
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(n):
            step()
        found.append(1e3 * (time.perf_counter() - start) / n)
    return min(found)


def cost(n_users: int) -> dict[str, float]:
    """Milliseconds a step of both."""
    model, data = br.models.PMF(rank=8), synthetic(n_users)
    schema = Schema.of(data)
    out = {"users": n_users, "ratings": len(data)}
    for guide in ("mean_field", "rows"):
        bound = bound_of(model, schema, schema.table(data), np.random.default_rng(0), guide)
        climb = Steps(br.SVI(steps=10**6, batch_size=BATCH, guide=guide), bound, len(data), np.random.default_rng(1))
        out[f"SVI, {guide}"] = best(climb.advance, 10)
    user, item, domain = (torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain))
    value = torch.from_numpy(schema.standardise(data.value, data.domain)).float()
    rng = np.random.default_rng(2)

    def program() -> None:
        latents = model.prior(schema)
        rows = torch.from_numpy(rng.choice(len(value), BATCH, replace=False))
        batch = Batch(user[rows], item[rows], domain[rows])
        law = model.likelihood.distribution(model.score(latents, batch), latents, batch)
        pyro.factor("ratings", len(value) / BATCH * law.log_prob(value[rows]).sum())

    def fixed() -> None:  # Pyro has no guide for a covariance matrix: this one site stays at its start
        with pyro.poutine.condition(data={"user_cov": 0.3 * torch.eye(model.rank + 1)}):
            program()

    pyro.clear_param_store()
    rival = pyro.infer.SVI(fixed, AutoNormal(fixed), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    out["Pyro"] = best(rival.step, 10)
    pyro.clear_param_store()
    return out


def noise() -> list[dict[str, Any]]:
    """Variances of the gradient in the users' means."""
    rows = []
    for label, per_user in (("4 ratings a user", 4), ("20 ratings a user", 20), ("60 ratings a user", 60)):
        data = synthetic(400, per_user, n_items=150)
        model, schema = br.models.PMF(rank=2), Schema.of(data)
        for guide in ("rows", "mean_field"):
            torch.manual_seed(0)
            bound = bound_of(model, schema, schema.table(data), np.random.default_rng(0), guide)
            method = br.SVI(steps=120, learning_rate=0.05, guide=guide)
            climb = Steps(method, bound, len(data), np.random.default_rng(1))
            while not climb.done:
                climb.advance()
            rng = np.random.default_rng(2)
            draw = {k: torch.randn(x.tables[0].shape) for k, x in bound.guide.members.items()}
            draw |= {k: torch.randn(x.shape) for k, x in bound.guide.loc.items()}
            found: dict[str, list[np.ndarray]] = {"follow the ratings": [], "1 / probability": []}
            for _ in range(100):
                part = bound.part(0.05, rng)
                users, items = part.rows["user"].numpy(), part.rows["item"].numpy()
                count = np.bincount(part.table.item_user) / bound.parts.ratings_of_user[users]
                other = {"user": torch.from_numpy(part.scale * count).float()}
                if "item" in part.weights:
                    count = np.diff(part.table.item_ptr) / bound.parts.ratings_of_item[items]
                    other["item"] = torch.from_numpy(part.scale * count).float()
                for name, weights in (("follow the ratings", other), ("1 / probability", part.weights)):
                    one = replace(part, weights=weights)
                    taken = bound.guide.take(one.rows)
                    own = {k: x if one.rows.get(k) is None else x[one.rows[k]] for k, x in draw.items()}
                    (gradient,) = torch.autograd.grad(bound.elbo(one, taken, own), taken.tensors["user"][0])
                    full = np.zeros(bound.guide.members["user"].tables[0].shape)
                    full[one.rows["user"].numpy()] = gradient.numpy()
                    found[name].append(full)
            spread = {name: float(np.var(x, axis=0).mean()) for name, x in found.items()}
            rows.append(
                {"data": label, "guide": guide}
                | spread
                | {"ratio": spread["follow the ratings"] / spread["1 / probability"]}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="1000,10000,100000")
    parser.add_argument("--parts", default="cost,noise")
    given = parser.parse_args()
    if "cost" in given.parts:
        frame = pd.DataFrame([cost(int(float(n))) for n in given.users.split(",")]).set_index("users")
        show(f"Milliseconds a step of {BATCH} ratings, PMF of rank 8", frame, "svi_steps_cost")
    if "noise" in given.parts:
        frame = pd.DataFrame(noise()).set_index(["data", "guide"])
        show("Variance of the gradient in users' means over batches of 5%", frame, "svi_steps_noise")


if __name__ == "__main__":
    main()
