"""One rival on one split, in an environment of its own, without bayesrec.

Called by douban_rivals.py, gibbs_vs_peers.py, ordinal.py and side_information.py.

    pip install smurff==1.1 myfm==0.4.0 scikit-surprise pandas
    python peers.py NAME SEED rows.npz answer.npz

``rows.npz`` holds user, item, domain (1: target) and value of the training rows, and user and item of the held-out
target rows, as dense codes. ``answer.npz`` gets mean and, where the rival has an uncertainty of its own, sd. Settings are
those with which these libraries were measured before: rank 10; nothing is tuned on the held-out rows.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import sparse

RANK = 10
NOISE = 0.6  # variance given to SMURFF, whose own noise cannot be read


def svd(train, test, seed):
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    frame = pd.DataFrame({name: train[name] for name in ("user", "item", "value")})
    model = SVD(n_factors=RANK, n_epochs=40, lr_all=0.007, reg_all=0.08, random_state=seed)
    model.fit(Dataset.load_from_df(frame, Reader(rating_scale=(1, 5))).build_full_trainset())
    return {"mean": np.array([model.predict(u, i).est for u, i in zip(test["user"], test["item"], strict=True)])}


def myfm(train, test, seed):
    from myfm import MyFMRegressor

    n_users, n_items = train["n_users"], train["n_items"]

    def design(rows):
        n = len(rows["user"])
        parts = [(rows["user"], n_users), (rows["item"], n_items)]
        return sparse.hstack([sparse.csr_matrix((np.ones(n), (range(n), c)), (n, m)) for c, m in parts]).tocsr()

    model = MyFMRegressor(rank=RANK, random_seed=seed)
    model.fit(design(train), train["value"], n_iter=300, n_kept_samples=150, group_shapes=[n_users, n_items])
    draws = np.stack([one.predict_score(design(test), []) for one in model.predictor_.samples])
    precision = np.asarray(model.get_hyper_trace()["alpha"])[-150:]
    return {"mean": draws.mean(0), "sd": np.sqrt(draws.var(0) + np.mean(1.0 / precision))}


def smurff(train, test, seed, joint):
    import smurff as library

    draws = 200
    target = train["domain"] == 1

    def block(chosen, keep):
        centre = train["value"][chosen].mean()
        value = train["value"][chosen] - centre + 1e-9  # an exact zero would count as missing
        return sparse.coo_matrix(
            (value, (train["user"][chosen], keep[train["item"][chosen]])), shape(keep)
        ).tocsr(), centre

    def position(items):
        keep = np.full(train["n_items"], -1)
        keep[items] = np.arange(len(items))
        return keep

    def shape(keep):
        return train["n_users"], int((keep >= 0).sum())

    columns = np.unique(np.concatenate([train["item"][target], test["item"]]))
    keep = position(columns)
    ratings, centre = block(target, keep)
    held = sparse.coo_matrix((np.ones(len(test["user"])), (test["user"], keep[test["item"]])), shape(keep)).tocsr()
    session = library.TrainSession(
        priors=["normal", "normal"],
        num_latent=RANK,
        burnin=100,
        nsamples=draws,
        num_threads=2,
        seed=seed + 1,
        verbose=0,
    )
    session.addTrainAndTest(ratings, held, library.FixedNoise(1.0 / NOISE))
    if joint:
        other, _ = block(~target, position(np.unique(train["item"][~target])))
        session.addData([0, 1], other, library.FixedNoise(1.0 / NOISE), True)
    found = {(p.coords[0], p.coords[1]): (p.pred_avg, p.var / (draws - 1)) for p in session.run()}
    answer = np.array([found[u, i] for u, i in zip(test["user"], keep[test["item"]], strict=True)])
    return {"mean": answer[:, 0] + centre, "sd": np.sqrt(np.maximum(answer[:, 1], 0.0) + NOISE)}


PEERS = {
    "SVD, target": lambda train, test, seed: svd(only_target(train), test, seed),
    "SVD, stacked": svd,
    "myFM, target": lambda train, test, seed: myfm(only_target(train), test, seed),
    "myFM, stacked": myfm,
    "SMURFF, target": lambda train, test, seed: smurff(train, test, seed, joint=False),
    "SMURFF, joint": lambda train, test, seed: smurff(train, test, seed, joint=True),
}


def sweeps(data):
    """One SMURFF chain, stepped by hand: mean seconds of a sweep after the first three, and what its draws say."""
    import time

    import smurff as library

    n_users, n_items = (1 + max(data[k].max(), data[f"test_{k}"].max()) for k in ("user", "item"))
    centre, draws = data["value"].mean(), int(data["draws"])
    ratings = sparse.coo_matrix((data["value"] - centre + 1e-9, (data["user"], data["item"])), (n_users, n_items))
    ones = np.ones(len(data["test_user"]))
    held = sparse.coo_matrix((ones, (data["test_user"], data["test_item"])), (n_users, n_items))
    session = library.TrainSession(
        priors=["normal", "normal"],
        num_latent=int(data["rank"]),
        burnin=int(data["warmup"]),
        nsamples=draws,
        num_threads=int(data["threads"]),
        seed=int(data["seed"]) + 1,
        verbose=0,
    )
    session.addTrainAndTest(ratings.tocsr(), held.tocsr(), library.FixedNoise(1.25))
    session.init()
    marks = [time.perf_counter()]
    while session.step():
        marks.append(time.perf_counter())
    seconds = np.diff(marks)
    answer = {"sweep": seconds[3:].mean(), "seconds": seconds[int(data["warmup"]) :].sum()}
    if draws:
        found = {(p.coords[0], p.coords[1]): p for p in session.getTestPredictions()}
        cells = [found[u, i] for u, i in zip(data["test_user"], data["test_item"], strict=True)]
        answer |= {
            "mean": np.array([p.pred_avg for p in cells]) + centre,
            "draws": np.array([p.pred_all for p in cells]).T,
        }
    return answer


def macau(data):
    """SMURFF with features of both sides (Macau): predictions of the held-out cells; settings as it was measured before."""
    import smurff as library

    sizes = len(data["user_x"]), len(data["item_x"])
    centre = data["value"].mean()
    ratings = sparse.coo_matrix((data["value"] - centre + 1e-9, (data["user"], data["item"])), sizes)
    held = sparse.coo_matrix((np.ones(len(data["test_user"])), (data["test_user"], data["test_item"])), sizes)
    session = library.TrainSession(
        priors=["macau", "macau"],
        num_latent=int(data["rank"]),
        burnin=100,
        nsamples=200,
        num_threads=2,
        seed=1,
        verbose=0,
    )
    session.addTrainAndTest(ratings.tocsr(), held.tocsr(), library.FixedNoise(1.25))
    for side, x in enumerate((data["user_x"], data["item_x"])):
        session.addSideInfo(side, x, library.SampledNoise(), True)
    found = {(p.coords[0], p.coords[1]): p.pred_avg for p in session.run()}
    return {"mean": np.array([found[u, i] for u, i in zip(data["test_user"], data["test_item"], strict=True)]) + centre}


def ordered_probit(data, seed):
    """myFM's ordered probit: probabilities of levels, as it was measured before."""
    from myfm import MyFMOrderedProbit

    sizes = [1 + max(data[k].max(), data[f"test_{k}"].max()) for k in ("user", "item")]

    def design(*codes):
        n = len(codes[0])
        parts = zip(codes, sizes, strict=True)
        return sparse.hstack([sparse.csr_matrix((np.ones(n), (range(n), c)), (n, m)) for c, m in parts]).tocsr()

    levels = np.unique(data["value"])
    model = MyFMOrderedProbit(rank=int(data["rank"]), random_seed=seed)
    train = design(data["user"], data["item"]), np.searchsorted(levels, data["value"])
    model.fit(*train, n_iter=300, n_kept_samples=150, group_shapes=sizes)
    share = model.predict_proba(design(data["test_user"], data["test_item"]))
    return {"share": share, "mean": share @ levels}


def only_target(train):
    """The training rows of the target, sizes kept."""
    here = train["domain"] == 1
    return {name: x[here] if isinstance(x, np.ndarray) else x for name, x in train.items()}


def main() -> None:
    name, seed, rows, answer = sys.argv[1:]
    with np.load(rows) as file:
        data = dict(file)
    if name == "ordered probit":
        np.savez(answer, **ordered_probit(data, int(seed)))
        return
    if name in ("sweeps", "macau"):
        np.savez(answer, **{"sweeps": sweeps, "macau": macau}[name](data))
        return
    train = {k: data[f"train_{k}"] for k in ("user", "item", "domain", "value")}
    train |= {"n_users": int(data["n_users"]), "n_items": int(data["n_items"])}
    test = {k: data[f"test_{k}"] for k in ("user", "item")}
    np.savez(answer, **PEERS[name](train, test, int(seed)))


if __name__ == "__main__":
    main()
