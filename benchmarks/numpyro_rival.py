"""Matrix factorisation in NumPyro by AutoNormal, in an environment of its own, without bayesrec: see svi_vs_peers.py.

    pip install numpyro jax pandas
    python numpyro_rival.py ml-100k.csv answer.npz [3000]

Rank 8, non-centred, half-normal scales, one noise; 3,000 steps of ClippedAdam whose rate falls from .02 to .002, started at
prior medians: of the settings that were tried on these rows before, the best. ``wall`` runs from the data in memory to 200
draws of the fitted guide, compilation included, as a user waits for it.
"""

from __future__ import annotations

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jax import random
from numpyro.infer import SVI, Trace_ELBO, autoguide, init_to_median

RANK, DRAWS = 8, 200
STEPS = int(sys.argv[3]) if len(sys.argv) > 3 else 3000


def model(user, item, n_users, n_items, centre, rating=None):
    mean = numpyro.sample("mean", dist.Normal(centre, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    scale = {name: numpyro.sample(f"scale_{name}", dist.HalfNormal(0.5)) for name in ("b", "c", "p", "q")}
    shapes = {"b": (n_users,), "c": (n_items,), "p": (n_users, RANK), "q": (n_items, RANK)}
    x = {
        name: scale[name] * numpyro.sample(name, dist.Normal(0, 1).expand(shape).to_event(len(shape)))
        for name, shape in shapes.items()
    }
    eta = mean + x["b"][user] + x["c"][item] + (x["p"][user] * x["q"][item]).sum(-1)
    numpyro.sample("rating", dist.Normal(eta, noise), obs=rating)


def main() -> None:
    frame = pd.read_csv(sys.argv[1], usecols=["u", "i", "rating", "part"])
    train, test = frame[frame["part"] != "test"], frame[frame["part"] == "test"]
    sizes = int(frame["u"].max()) + 1, int(frame["i"].max()) + 1, float(train["rating"].mean())
    start = time.perf_counter()
    user, item = jnp.array(train["u"].to_numpy()), jnp.array(train["i"].to_numpy())
    rating = jnp.array(train["rating"].to_numpy(), jnp.float32)
    guide = autoguide.AutoNormal(model, init_scale=0.05, init_loc_fn=init_to_median(num_samples=5))
    optimiser = numpyro.optim.ClippedAdam(lambda step: 0.02 * 0.1 ** (step / STEPS))
    svi = SVI(model, guide, optimiser, Trace_ELBO())
    state = svi.init(random.PRNGKey(0), user, item, *sizes, rating=rating)

    @jax.jit
    def climb(state):
        def step(s, _):
            return svi.update(s, user, item, *sizes, rating=rating)

        return jax.lax.scan(step, state, None, length=STEPS)[0]

    state = jax.block_until_ready(climb(state))
    draws = guide.sample_posterior(random.PRNGKey(1), svi.get_params(state), sample_shape=(DRAWS,))
    draws = {name: np.asarray(x) for name, x in draws.items()}
    wall = time.perf_counter() - start
    u, i = test["u"].to_numpy(), test["i"].to_numpy()
    eta = np.empty((DRAWS, len(test)), dtype=np.float32)
    for s in range(DRAWS):
        x = {name: draws[f"scale_{name}"][s] * draws[name][s] for name in ("b", "c", "p", "q")}
        eta[s] = draws["mean"][s] + x["b"][u] + x["c"][i] + (x["p"][u] * x["q"][i]).sum(-1)
    np.savez(sys.argv[2], mean=eta.mean(0), sd=np.sqrt(eta.var(0) + np.mean(draws["noise"] ** 2)), wall=wall)


if __name__ == "__main__":
    main()
