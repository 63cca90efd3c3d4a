"""A posterior in ArviZ: convergence of what is identified, prior against posterior, leave-one-out.

python examples/inspect_posterior.py [--smoke]
"""

from __future__ import annotations

import sys

import arviz_stats as azs
import numpy as np

import bayesrec as br


def main(smoke: bool = False) -> None:
    frame, truth = br.data.synthetic.cross_domain(n_users=40 if smoke else 300, n_items=(40, 30), n_ratings=(20, 10))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    model = br.models.TransferMF(rank=3)

    # Before any rating is seen: what does the prior expect of ratings?
    prior = br.sample_prior(model, data, draws=20 if smoke else 200)
    print("prior predictive sd of a rating, median over draws:")
    print(f"  {np.median(prior['prior_predictive']['value'].std('row')):.2f} (data: {data.value.std():.2f})")

    method = br.Gibbs(draws=50, warmup=50, chains=2) if smoke else br.Gibbs(draws=500, warmup=500, chains=4)
    posterior = br.fit(model, data, method)

    # R-hat and ESS of scales, gates and predictions. Factors rotate, so they are not in this table.
    table = azs.summary(posterior.to_datatree(log_likelihood=False), var_names=["noise", "gate", "level_within"])
    print(table)
    print("true noise in sd units:", round(float(truth["noise"]) / data.value[data.is_target].std(), 3))

    # The posterior draws themselves, labelled: the users' bias in the target, by user id.
    tree = posterior.to_datatree()
    bias = tree["posterior"]["user_vector"].sel(latent_component="bias").mean(("chain", "draw"))
    print("most generous users:", bias.to_series().nlargest(3).round(2).to_dict())
    print("groups:", ", ".join(tree.children))


if __name__ == "__main__":
    main("--smoke" in sys.argv)
