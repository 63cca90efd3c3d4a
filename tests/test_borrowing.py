"""Who informs a user's target factors: gates, draws and source weights against dense joint Gaussians and their limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from test_conjugate import by, calm, covariance, gram_loop, twist

import bayesrec as br
from bayesrec import conjugate, kernels
from bayesrec.data import Columns, Vocabulary
from bayesrec.errors import DataError
from bayesrec.models.base import Schema
from bayesrec.posterior import Posterior

R, N_USERS, N_ITEMS = 3, 5, 9
BOTH, NO_SOURCE, NO_TARGET, NOTHING, MANY = range(N_USERS)
COUNTS = ((3, 2), (0, 3), (4, 0), (0, 0), (6, 9))  # source and target rows of each user; user 0 lacks the second source


class Case:
    """A known state (one draw) of a model with K sources, its posterior, and the same by dense linear algebra."""

    def __init__(self, n_sources, gate=True, rows=COUNTS, **fixed):
        rng, self.K, self.state, n_domains = np.random.default_rng(0), n_sources, {}, n_sources + 1
        names = [*"abc"[:n_sources], "t"]
        frame = [(u, i, d, rng.normal(3, 1)) for u in range(N_USERS) for d in names for i in range(N_ITEMS)]
        frame = pd.DataFrame(frame, columns=["user", "item", "domain", "value"])
        data = br.Interactions.from_frame(frame, target="t", value="value")
        n = np.array([[a] * n_sources + [b] for a, b in rows])
        n[0, 1:n_sources] = 0
        self.data = data.mask(data.item % N_ITEMS < n[data.user, data.domain])
        sizes = {"latent_component": R, "latent_component_bis": R, "user": N_USERS, "source": n_sources, "domain": n_domains,
                 "map_part": 3, "item": data.n_items}  # fmt: skip
        self.model = br.models.TransferMF(rank=R - 1, gate=gate)
        state = {s: 0.7 * rng.standard_normal([sizes[a] for a in axes]) for s, axes in self.model.dims.items()}
        state |= {s: np.abs(x) for s, x in state.items() if "scale" in s or "between" in s or "within" in s}
        state |= {"user_cov": 0.3 * covariance(rng), "noise": rng.uniform(0.5, 1.5, n_domains)}
        state |= {"gate": np.array([0.3, 0.6])[:n_sources]} if gate else {}
        self.set(**state | fixed)

    def set(self, **state):
        """Change sites; the state is what float32 keeps of it, as in a posterior."""
        state = self.state | state
        draws = {s: np.asarray(state[s], np.float32)[None, None] for s in self.model.dims}
        self.posterior = Posterior(draws, self.model, None, self.data, Schema.of(self.data))
        x = self.state = self.posterior.draw(0, 0)
        self.table = table = self.posterior.schema.table(self.data)
        sd = x["noise"][:, None] * np.exp(-1.5 * np.tanh(x["user_log_precision"] / 3))
        self.weight = sd[table.user_domain, table.user_of] ** -2.0
        grams = gram_loop(table.user_ptr, table.user_item, table.user_value, self.weight, x["item_vector"])
        self.gram = [grams[u * (self.K + 1) : (u + 1) * (self.K + 1)] for u in range(N_USERS)]
        self.scale = np.column_stack([x["source_bias_scale"], np.ones((self.K, R - 1))])
        self.off = x["gate"] if self.model.gate else np.zeros(self.K)
        self.configs = np.array(list(product((True, False), repeat=self.K)) if self.model.gate else [(True,) * self.K])
        return self

    def informants(self):
        return self.model.prior_precision(self.state, self.table)

    def update(self, on, rng, gated=True):
        x, value = self.state, self.table.user_value
        args = (self.scale, x["user_mean"], x["user_cov"], x["map"], self.off)
        return conjugate.transfer_rows(self.table, value, self.weight, x["item_vector"], *args, on, gated, rng)

    def joint(self, u, on):
        """Precision and linear term of (theta, phi_1.., copy_1..) given the gates, and the log evidence."""
        size, x = R * (1 + 2 * self.K), self.state
        link, prior, centre = np.eye(R, size), np.zeros((size, size)), np.pad(x["user_mean"], (0, size - R))
        for k in range(self.K):
            source = R * (1 + k + (0 if on[k] else self.K))
            link[:, source : source + R] = -x["map"][k]
            for start in (R * (1 + k), R * (1 + self.K + k)):
                prior[start : start + R, start : start + R] = np.diag(1 / self.scale[k] ** 2)
        prior += link.T @ np.linalg.inv(x["user_cov"]) @ link
        p, h = prior.copy(), prior @ centre
        for d, start in [(self.K, 0)] + [(k, R * (1 + k)) for k in range(self.K)]:
            p[start : start + R, start : start + R] += self.gram[u][d][0]
            h[start : start + R] += self.gram[u][d][1]
        evidence = h @ np.linalg.solve(p, h) - centre @ prior @ centre
        return p, h, 0.5 * (evidence + np.linalg.slogdet(prior)[1] - np.linalg.slogdet(p)[1])

    def log_posterior(self, u):
        """Log probability of each configuration of the gates."""
        chance = [np.where(on, np.log1p(-self.off), np.log(self.off)).sum() for on in self.configs]
        log_p = np.array([self.joint(u, on)[2] for on in self.configs]) + (chance if self.model.gate else 0.0)
        return log_p - special.logsumexp(log_p)

    def moments(self, u):
        """Mean and second moment of (theta, phi, phi_used), and mixing over configurations."""
        mean, second = 0.0, 0.0
        for on, log_p in zip(self.configs, self.log_posterior(u), strict=True):
            p, h, _ = self.joint(u, on)
            used = [1 + k + (0 if on[k] else self.K) for k in range(self.K)]
            pick = np.concatenate([np.arange(R) + R * b for b in [*range(1 + self.K), *used]])
            m, c = np.linalg.solve(p, h)[pick], np.linalg.inv(p)[np.ix_(pick, pick)]
            mean, second = mean + np.exp(log_p) * m, second + np.exp(log_p) * (c + np.outer(m, m))
        return mean, second

    def schur(self, u, on):
        """Precision of theta once phi and copies are integrated out."""
        p = self.joint(u, on)[0]
        return p[:R, :R] - p[:R, R:] @ np.linalg.solve(p[R:, R:], p[R:, :R])

    def v_pop(self):
        return self.state["user_cov"] + sum(
            (w * s**2) @ w.T for w, s in zip(self.state["map"], self.scale, strict=True)
        )

    def target_rows(self, users=range(N_USERS)):
        return pd.DataFrame([(u, i) for u in users for i in range(N_ITEMS)], columns=["user", "item"])

    def vector(self, item):
        code = self.data.items.encode([item], self.K)[0]
        return np.append(1.0, self.state["item_vector"][code, 1:])


FAULTS = [{}, {"_9": lambda x: 1 - x}, {"_3": by(2.0)}, {"_5": by(1.1)}, {"_7": by(1.5)}, {"_8": by(1.1)}]


@pytest.mark.parametrize("n_sources", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_transfer_rows(fault, n_sources, monkeypatch):
    """Gates that start in their exact posterior stay there; theta, phi and phi_used have the moments of the mixture."""
    case, rng, real, seen, n = Case(n_sources), np.random.default_rng(0), kernels.transfer_rows, [], 4000

    def record(*args):
        seen.append((args[-3], args[-4]))  # log odds and gates, which the call fills
        return real(*args)

    monkeypatch.setattr(kernels, "transfer_rows", record)
    twist(monkeypatch, kernels, "transfer_rows", **fault)
    log_p = [case.log_posterior(u) for u in range(N_USERS)]
    start = np.stack([case.configs[rng.choice(len(p), n, p=np.exp(p))] for p in log_p], axis=2)  # (n, source, user)
    out = [case.update(np.ascontiguousarray(on), rng) for on in start]
    exact = True
    for on, (odds, gate) in zip(start[:50], seen[:50], strict=True):
        for u, k in np.ndindex(N_USERS, n_sources):
            known = dict(zip(map(tuple, case.configs), log_p[u], strict=True))
            one, other = (tuple([*gate[:k, u], choice, *on[k + 1 :, u]]) for choice in (True, False))
            want = known[one] - known[other] if case.table.count[k, u] else np.nan
            exact &= bool(np.isclose(odds[k, u], want, rtol=1e-8, atol=1e-8, equal_nan=True))
    phi, used, gates = (np.stack([o[name] for o in out]) for name in ("source_vector", "phi_used", "on"))
    theta, z = np.stack([o["user_vector"] for o in out])[:, None], []
    assert np.array_equal(phi[gates], used[gates])
    for u in range(N_USERS):
        rows = np.concatenate([theta, phi, used], axis=1)[:, :, u].reshape(n, -1)
        low, (mean, second) = np.tril_indices(rows.shape[1]), case.moments(u)
        for draws, want in ((rows, mean), (rows[:, low[0]] * rows[:, low[1]], second[low])):
            z.append((draws.mean(0) - want) / draws.std(0) * np.sqrt(n))
        share, p = (gates[:, None, :, u] == case.configs).all(2).mean(0), np.exp(log_p[u])
        z.append((share - p) / np.sqrt(p * (1 - p) / n))
    assert exact is not bool({"_9", "_3", "_5", "_7", "_8"} & set(fault))
    assert calm(np.concatenate(z)) is not bool(fault)


def test_transfer_rows_without_gates():
    case, shut = Case(2), np.zeros((2, N_USERS), dtype=bool)
    without = case.update(shut, np.random.default_rng(1), gated=False)
    assert without["on"].all()
    case.off = np.full(2, 1e-300)
    for name, value in case.update(shut, np.random.default_rng(1)).items():
        np.testing.assert_array_equal(value, without[name])


def dense_weights(case, rows):
    """Weights of each row from the Schur complements, mixed over configurations."""
    out, l_pop = np.zeros((len(rows), 3)), np.linalg.inv(case.v_pop())
    for r, (u, item) in enumerate(rows.itertuples(index=False)):
        v, own = case.vector(item), case.gram[u][-1][0]
        for on, log_p in zip(case.configs, case.log_posterior(u), strict=True):
            total = case.schur(u, on)
            a = np.linalg.solve(total, v)
            parts = [a @ part @ a / (v @ a) for part in (total - own - l_pop, l_pop, own)]
            out[r] += np.exp(log_p) * np.array(parts)
    return out


@pytest.mark.parametrize("n_sources", [1, 2])
@pytest.mark.parametrize("fault", [{}, {"_3": by(1.1)}])
def test_prior_precision_is_the_schur_complement(fault, n_sources, monkeypatch):
    case = Case(n_sources)
    twist(monkeypatch, conjugate, "row_grams", **fault)
    got, rows = case.informants(), case.target_rows()
    same = [np.allclose(br.source_weight(case.posterior, rows).iloc[:, 2:], dense_weights(case, rows), atol=1e-9)]
    for u in range(N_USERS):
        same.append(np.allclose(got.probability[:, u], np.exp(case.log_posterior(u)), rtol=1e-9))
        for c, on in enumerate(case.configs):
            total = got.population[u] + got.source[c, u] + case.gram[u][-1][0]
            same.append(np.allclose(total, case.schur(u, on), rtol=1e-9, atol=1e-9))
    assert all(same) is not bool(fault)
    on = case.configs.T[:, :, None] * got.probability
    relevance = np.where(case.table.count[:-1] > 0, on.sum(1), np.nan)
    np.testing.assert_allclose(got.relevance, relevance, rtol=1e-12)
    np.testing.assert_allclose(got.relevance[:, NO_TARGET], 1 - case.off, rtol=1e-12)
    assert np.isnan(got.relevance[:, [NO_SOURCE, NOTHING]]).all()
    assert np.isnan(Case(n_sources, gate=False).informants().relevance).all()


@pytest.mark.parametrize("fault", [{}, {"_3": by(1.1)}])
def test_relevance_is_bayes_rule_on_the_ratings(fault, monkeypatch):
    """m_src(y) and m_pop(y) are multivariate normal densities of the target rows, phi integrated out."""
    case = Case(1)
    x, table = case.state, case.table
    twist(monkeypatch, conjugate, "row_grams", **fault)
    got, w = case.informants().relevance[0], x["map"][0]
    same = []
    for u in (BOTH, MANY):
        rows = slice(table.user_ptr[2 * u + 1], table.user_ptr[2 * u + 2])
        item = x["item_vector"][table.user_item[rows]]
        design, y = np.column_stack([np.ones(len(item)), item[:, 1:]]), table.user_value[rows] - item[:, 0]
        s_u = np.linalg.inv(np.diag(1 / case.scale[0] ** 2) + case.gram[u][0][0])
        density = []
        for shift, cov in ((w @ s_u @ case.gram[u][0][1], w @ s_u @ w.T + x["user_cov"]), (np.zeros(R), case.v_pop())):
            mean, spread = design @ (x["user_mean"] + shift), design @ cov @ design.T + np.diag(1 / case.weight[rows])
            density.append(stats.multivariate_normal(mean, spread).pdf(y))
        odds = (1 - case.off[0]) * density[0] / (case.off[0] * density[1])
        same.append(np.isclose(got[u], odds / (1 + odds), rtol=1e-8))
    assert all(same) is not bool(fault)


@pytest.mark.parametrize("gate", [True, False])
def test_no_source_rows_or_no_map_means_a_weight_of_zero(gate):
    case = Case(2, gate)
    weights = br.source_weight(case.posterior, case.target_rows())
    np.testing.assert_allclose(weights[["source", "population", "target"]].sum(axis=1), 1.0, rtol=1e-12)
    without = weights["user"].isin([NO_SOURCE, NOTHING])
    assert (weights.loc[without, "source"] == 0).all()
    assert (weights.loc[~without, "source"] > 0).all()
    assert (weights.loc[weights["user"].isin([NO_TARGET, NOTHING]), "target"] == 0).all()
    case.set(map=np.zeros((2, R, R)))
    assert (br.source_weight(case.posterior, case.target_rows())["source"] == 0).all()


def shapley(case, u, on):
    """Each source's average increment of the prior precision over all orders of the open sources, by dense algebra."""
    out, chosen = np.zeros((case.K, R, R)), np.flatnonzero(on)

    def prior_precision(used):
        return case.schur(u, np.isin(np.arange(case.K), used)) - case.gram[u][-1][0]

    orders = list(permutations(chosen))
    for order in orders:
        for place, k in enumerate(order):
            out[k] += (prior_precision(order[: place + 1]) - prior_precision(order[:place])) / len(orders)
    return out


@pytest.mark.parametrize("fault", [{}, {"_3": by(1.1)}])
@pytest.mark.parametrize(("n_sources", "gate"), [(1, True), (2, True), (3, False)])
def test_shares_of_sources_are_shapley_values(n_sources, gate, fault, monkeypatch):
    case = Case(n_sources, gate)
    twist(monkeypatch, conjugate, "row_grams", **fault)
    got, whole, same = case.model.source_precision(case.state, case.table), case.informants().source, []
    np.testing.assert_allclose(got.sum(0), whole, atol=1e-9)
    for u in range(N_USERS):
        for c, on in enumerate(case.configs):
            same.append(np.allclose(got[:, c, u], shapley(case, u, on), rtol=1e-8, atol=1e-8))
    assert all(same) is not bool(fault)
    silent = case.table.count[:-1] == 0
    assert not np.abs(got).max((1, 3, 4))[silent].any()
    shut = ~case.configs.T
    assert not np.abs(got).max((2, 3, 4))[shut].any()


def test_what_a_source_adds_is_no_loss_of_precision():
    """L_src is positive semidefinite, at any state of the gates, and so is what each source adds to the others."""
    case = Case(2)
    for parts in (case.informants().source[None], case.model.source_precision(case.state, case.table)):
        assert np.linalg.eigvalsh(parts).min() > -1e-9


def test_a_source_that_is_irrelevant_or_pure_noise_weighs_nothing():
    case = Case(1).set(gate=np.array([1 - 1e-6]))
    assert br.source_weight(case.posterior, case.target_rows())["source"].max() < 1e-3
    case.set(gate=np.array([0.3]))
    assert br.source_weight(case.posterior, case.target_rows())["source"].max() > 0.05
    case.set(noise=np.array([1e5, 1.0]))
    assert br.source_weight(case.posterior, case.target_rows())["source"].max() < 1e-6


def test_own_ratings_crowd_out_the_source():
    """With n times the information the source's weight falls like 1 / n."""
    case = Case(1, noise=np.ones(2))
    shares = []
    for n in (1, 100, 10_000, 1_000_000):  # n ratings of every item are one with 1 / n of the noise variance
        case.set(noise=np.array([1.0, n**-0.5]), gate=np.array([1e-6]))
        shares.append(br.source_weight(case.posterior, case.target_rows([MANY]))["source"].mean())
    assert shares[0] > 0.05
    np.testing.assert_allclose(np.array(shares[2:-1]) / shares[3:], 100, rtol=0.05)
    assert shares[-1] < 1e-5


def test_a_certain_source_and_no_own_ratings():
    case = Case(1, gate=False, rows=((9, 0),) * N_USERS, noise=np.array([1e-4, 1.0]))
    rows = case.target_rows()
    got, want, cov = br.source_weight(case.posterior, rows)["source"], [], case.state["user_cov"]
    for item in rows["item"]:
        v = case.vector(item)
        want.append(1 - v @ cov @ np.linalg.solve(case.v_pop(), cov @ v) / (v @ cov @ v))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    case.set(user_cov=1e-6 * np.eye(R), noise=np.array([1e-6, 1.0]))
    np.testing.assert_allclose(br.source_weight(case.posterior, rows)["source"], 1.0, atol=1e-4)


def test_collective_mf_is_the_identity_map_without_spread():
    case = Case(1, gate=False, map=np.eye(R)[None], user_cov=1e-7 * np.eye(R))
    pooled = br.models.CollectiveMF(rank=R - 1)
    state = case.state | {"user_cov": np.diag(case.scale[0] ** 2)}
    draws = {name: state[name].astype(np.float32)[None, None] for name in pooled.dims}
    rows = case.target_rows()
    posteriors = case.posterior, Posterior(draws, pooled, None, case.data, case.posterior.schema)
    np.testing.assert_allclose(*(br.source_weight(p, rows).iloc[:, 2:] for p in posteriors), atol=1e-5)
    got = pooled.prior_precision(state, case.table)
    for u in range(N_USERS):
        np.testing.assert_allclose(got.source[0, u], case.gram[u][0][0], rtol=1e-9)
    only = br.models.PMF(rank=R - 1).prior_precision(state, case.table)
    assert not only.source.any()
    np.testing.assert_allclose(only.population[0], np.linalg.inv(state["user_cov"]))


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_a_user_vector_without_a_discrepancy_is_that_of_collective_mf(mean):
    """W = I, no gate, Sigma -> 0: given all else, mean and covariance are those of the pooled ratings; m must be 0 for that."""
    case = Case(1, gate=False, map=np.eye(R)[None], user_cov=1e-9 * np.eye(R), user_mean=np.full(R, mean))
    model = br.models.TransferMF(rank=R - 1, gate=False, prior_family="commensurate")
    state = {name: case.state[name] for name in (*model.dims,)}
    got, same = model.prior_precision(state, case.table), []
    for u in (BOTH, NO_SOURCE, NO_TARGET, MANY):
        (source, told), (own, said) = case.gram[u]
        pooled = np.diag(1 / case.scale[0] ** 2) + source + own
        prior = got.population[u] + got.source[0, u]
        a = prior + own
        np.testing.assert_allclose(np.linalg.inv(a), np.linalg.inv(pooled), rtol=1e-4, atol=1e-6)
        ours = np.linalg.solve(a, prior @ got.mean[0, u] + said)
        same.append(np.allclose(ours, np.linalg.solve(pooled, told + said), rtol=1e-4, atol=1e-5))
    assert all(same) is (mean == 0)


@pytest.mark.parametrize("fault", [{}, {"_3": by(2.0)}])
def test_source_weight_from_draws(fault, monkeypatch):
    """omega_src = -Cov((eta - E eta)^2, log prior with source - log prior without) / Var(eta), DESIGN 3.3."""
    case, rng, n, z = Case(1, gate=False), np.random.default_rng(0), 20_000, []
    on, x, w = np.ones((1, N_USERS), dtype=bool), case.state, case.state["map"][0]
    theta = np.stack([case.update(on, rng, gated=False)["user_vector"] for _ in range(n)])
    twist(monkeypatch, conjugate, "row_grams", **fault)
    for u in (BOTH, NO_TARGET, MANY):
        s_u = np.linalg.inv(np.diag(1 / case.scale[0] ** 2) + case.gram[u][0][0])
        mean = x["user_mean"] + w @ s_u @ case.gram[u][0][1]
        gain = stats.multivariate_normal(mean, w @ s_u @ w.T + x["user_cov"]).logpdf(theta[:, u])
        gain -= stats.multivariate_normal(x["user_mean"], case.v_pop()).logpdf(theta[:, u])
        v = case.vector(4)
        square = ((theta[:, u] - theta[:, u].mean(0)) @ v) ** 2
        want = br.source_weight(case.posterior, case.target_rows([u]))["source"].iloc[4]
        terms = (square - square.mean()) * (gain - gain.mean()) + want * square  # mean 0 if omega_src is want
        z.append(terms.mean() / terms.std() * np.sqrt(n))
    assert calm(z) is not bool(fault)


@pytest.mark.parametrize("draws", [0, -1, 1.5, True, None])
def test_draws_of_an_average_must_be_positive(draws):
    case = Case(1)
    with pytest.raises(DataError, match=r"draws must be at least 1, not .*; give a whole number"):
        br.source_weight(case.posterior, case.target_rows(), draws=draws)
    with pytest.raises(DataError, match=r"draws must be at least 1, not .*; give a whole number"):
        br.relevance(case.posterior, draws=draws)


def test_relevance_has_the_names_and_dtypes_of_the_data():
    case = Case(2)
    plain = br.relevance(case.posterior)
    assert plain.columns.tolist() == ["user", "domain", "n", "relevance"]
    data = replace(
        case.data,
        users=Vocabulary((pd.Index(range(N_USERS), dtype="Int64"),)),
        domains=(10, 20, 30),
        columns=Columns("domain", "item", "shop", "value"),
        layout=replace(case.data.layout, domain_dtype="int8"),
    )
    got = br.relevance(replace(case.posterior, data=data))
    assert got.columns.tolist() == ["domain", "shop", "n", "relevance"]
    assert [str(kind) for kind in got.dtypes[:2]] == ["Int64", "int8"]
    assert got["domain"].tolist() == plain["user"].tolist()
    assert got["shop"].tolist() == plain["domain"].map({"a": 10, "b": 20}).tolist()
    want = case.informants().relevance
    np.testing.assert_allclose(got["relevance"], want[got["shop"] // 10 - 1, got["domain"].astype(int)])
    assert got["n"].tolist() == [COUNTS[user][1] for user in got["domain"]]
