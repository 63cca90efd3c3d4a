"""Verdicts on planted differences, and what they say at an exact null."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesrec as br
from bayesrec.diagnostics import calibration, verdict
from bayesrec.diagnostics.judge import negative
from bayesrec.diagnostics.verdict import CHOICE, HeldOut
from bayesrec.errors import ConvergenceWarning, DataError, NegativeTransferWarning


def held_out(delta, n_rows=4, n_own=None, chains=4, sampler=0.0, seed=0):
    """Both arms for users whose summed differences are ``delta``; every chain agrees unless ``sampler`` > 0."""
    delta, rng = np.asarray(delta, dtype=float), np.random.default_rng(seed)
    n = np.broadcast_to(n_rows, len(delta))
    user = np.repeat(np.arange(len(delta)), n)
    without = rng.normal(-1.2, 0.3, len(user))
    with_source = without + delta[user] / n[user]
    noise = sampler * rng.standard_normal((2, chains, 1))
    arms = (np.tile(x, (chains, 1)) + e for x, e in zip((with_source, without), noise, strict=True))
    n_own = np.zeros(len(delta), dtype=int) if n_own is None else np.asarray(n_own)
    return HeldOut(pd.RangeIndex(len(delta)), user, n_own, *arms, delta)


@pytest.fixture
def judge(data):
    def call(*parts, min_effect=0.0, seed=0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NegativeTransferWarning)
            return verdict.report(list(parts), data, ("TransferMF", "PMF"), min_effect, seed)

    return call


def deltas(mean, sd=0.5, n=60, seed=1):
    return np.random.default_rng(seed).normal(mean, sd, n)


@pytest.mark.parametrize(("mean", "want", "probability"), [(0.4, "positive", 0.0), (-0.4, "negative", 1.0)])
def test_clear_differences_are_called(judge, mean, want, probability):
    delta = deltas(mean)
    found = judge(held_out(delta))
    assert found.verdict == want
    assert found.reason == ""
    assert found.probability == pytest.approx(probability, abs=1e-3)
    assert found.delta == pytest.approx(delta.sum())
    assert found.delta_per_row == pytest.approx(delta.sum() / 240)
    assert found.per_user["delta"].to_numpy() == pytest.approx(delta)
    assert found.per_user["n"].tolist() == [4] * 60


@pytest.mark.parametrize("sign", [1, -1])
def test_a_small_sum_is_undetermined(judge, sign):
    found = judge(held_out(sign * np.full(60, 0.06)))  # all users agree, but 3.6 nats are nothing
    assert found.verdict == "undetermined"
    assert f"the summed difference {sign * 3.6:+.1f} is below 4 nats" in found.reason
    assert judge(held_out(sign * np.full(60, 0.07))).verdict == ("positive" if sign > 0 else "negative")


def test_few_users_are_not_enough(judge):
    assert judge(held_out(np.full(30, 0.5))).verdict == "positive"
    found = judge(held_out(np.full(29, 0.5)))
    assert (found.verdict, found.reason) == ("undetermined", "only 29 users, at least 30 are needed")


def test_ties_count_one_half(judge):
    found = judge(held_out(np.zeros(40)))
    assert (found.delta, found.se, found.probability, found.verdict) == (0.0, 0.0, 0.5, "undetermined")


def test_a_single_user_has_no_standard_error(judge):
    found = judge(held_out([7.0]))
    assert np.isnan(found.se)
    assert np.isnan(found.regimes.loc["cold", "se"])
    assert (found.verdict, found.reason) == ("undetermined", "only 1 user, at least 30 are needed")
    text = found.summary()
    assert "Log score TransferMF minus PMF: +7.0 (SE unknown, one user) over 4 held-out ratings of 1 user," in text
    assert "delta      +7.0 (SE unknown, one user), +1.7500 a rating, 1 user," in text
    assert "nan" not in text
    mixed = judge(held_out(np.full(40, 0.5), n_own=[3] + [0] * 39))
    assert np.isnan(mixed.regimes["se"]).tolist() == [False, True]
    assert mixed.se == pytest.approx(0.0, abs=1e-9)


def test_one_user_must_not_decide(judge):
    delta = np.full(60, 0.05) + 0.01 * deltas(0.0)
    assert abs(delta.sum()) < 4
    delta[7] = 6.0
    found = judge(held_out(delta))
    assert found.verdict == "undetermined"
    assert "one user decides" in found.reason


def test_the_effect_of_interest(judge):
    part = held_out(np.full(60, 0.5))  # .125 a row
    assert judge(part, min_effect=0.12).verdict == "positive"
    found = judge(part, min_effect=0.13)
    assert found.verdict == "undetermined"
    assert "below the effect of interest 0.13" in found.reason
    assert judge(held_out(np.full(60, -0.5)), min_effect=0.13).verdict == "undetermined"


@pytest.mark.parametrize("mean", [-0.12, -0.05, 0.0, 0.08])
def test_the_probability_is_the_normal_one_where_that_holds(judge, mean):
    delta = deltas(mean, n=400)
    found = judge(held_out(delta))
    assert found.probability == pytest.approx(stats.norm.cdf(-found.delta / found.se), abs=0.02)


def test_the_standard_error_is_clustered_by_user(judge):
    delta = deltas(0.1, n=50)
    found = judge(held_out(delta, n_rows=np.arange(50) % 5 + 1))
    assert found.se == pytest.approx(np.sqrt(50 / 49 * ((delta - delta.mean()) ** 2).sum()))
    assert found.sampler_se == 0.0
    assert found.equal_user_mean == pytest.approx(np.mean(delta / (np.arange(50) % 5 + 1)))
    assert found.joint_delta == pytest.approx(delta.sum())


def gradient(chains):
    """How the pooled log score of all rows grows with each chain's weight, by central differences."""

    def score(weights):
        return np.log(weights @ np.exp(chains)).sum()

    equal, step = np.full(len(chains), 1.0 / len(chains)), 1e-6 * np.eye(len(chains))
    return np.array([(score(equal + h) - score(equal - h)) / 2e-6 for h in step])


@pytest.mark.parametrize("noise", [0.02, 0.5])
def test_the_samplers_noise_is_part_of_the_standard_error(judge, noise):
    """To first order: the variance over chains of what a chain's weight does to the pooled score, over their number."""
    part = held_out(deltas(0.1), sampler=noise)
    found = judge(part)
    arms = part.with_chains, part.without_chains
    sampler = sum(gradient(x).var(ddof=1) / 4 for x in arms)
    assert found.sampler_se == pytest.approx(np.sqrt(sampler), rel=1e-6)
    if noise < 0.1:  # near each other chains differ as their own scores do
        assert found.sampler_se == pytest.approx(np.sqrt(sum(x.sum(1).var(ddof=1) / 4 for x in arms)), rel=0.01)
    delta = found.per_user["delta"]
    clustered = 60 / 59 * ((delta - delta.mean()) ** 2).sum()
    assert found.se == pytest.approx(np.sqrt(clustered + sampler), rel=1e-6)
    few = judge(held_out(deltas(0.1), chains=3, sampler=noise))
    assert few.sampler_se == 0.0
    assert "Fewer than 4 chains: the sampler's noise is not part" in few.summary()


@pytest.mark.parametrize("arm", ["with_chains", "without_chains"])
def test_one_chain_in_a_bad_mode_does_not_hide_what_all_chains_say(judge, arm):
    """The worst of four chains is far off to the same side: a normal with their variance would put a sixth on the other."""
    side = -1.0 if arm == "with_chains" else 1.0
    part = held_out(-side * deltas(-0.3, sd=0.2))
    getattr(part, arm)[3] -= 1.0
    found = judge(part)
    chains = side * (part.with_chains.sum(1) - part.without_chains.sum(1))
    assert (chains > 10.0).all()
    own = np.sqrt(chains.var(ddof=1) / 4)
    assert stats.norm.cdf(side * found.delta / own) < 0.9  # planted: what the chains' own sums and a normal say
    verdict, probability = ("negative", 1.0) if side < 0 else ("positive", 0.0)
    assert (found.verdict, found.probability) == (verdict, pytest.approx(probability, abs=0.002))


@pytest.mark.parametrize("kind", ["normal", "a bad mode in eight"])
def test_chains_alone_call_a_null_at_about_the_stated_rate(kind):
    """600 nulls, all noise from 2 arms of 2 folds: either verdict in 6 to 8% of them where 5% are meant, 12% is 4 SE above."""
    rng = np.random.default_rng(0)
    harm = []
    for k in range(600):
        if kind == "normal":
            chains = 10.0 * rng.standard_normal((4, 4))
        else:
            chains = np.where(rng.random((4, 4)) < 0.125, -30.0, 0.0) + 3.75 + rng.standard_normal((4, 4))
        chains[::2] *= -1.0  # the arm without
        harm.append(negative(np.full(40, chains.mean(1).sum() / 40), list(chains), k))
    harm = np.array(harm)
    assert 0.02 < (harm > 0.95).mean() < 0.12
    assert 0.02 < (harm < 0.05).mean() < 0.12


def test_chains_are_pooled_as_densities(judge):
    part = held_out(deltas(0.3), sampler=0.1)
    found = judge(part)
    pooled = [np.log(np.exp(x).mean(0)) for x in (part.with_chains, part.without_chains)]
    assert found.delta == pytest.approx((pooled[0] - pooled[1]).sum())


def test_at_an_exact_null_each_verdict_comes_at_most_one_time_in_twenty():
    """400 sets of symmetric differences; the binomial test at 1e-3 is the rate at which this fails by chance."""
    rng = np.random.default_rng(2)
    parts = [held_out(rng.standard_t(5, 60), n_rows=1, seed=k) for k in range(400)]
    found = [verdict._whole([part], 0.0, k, "user").verdict for k, part in enumerate(parts)]
    for kind in ("positive", "negative"):
        count = found.count(kind)
        assert stats.binomtest(count, 400, 0.05, alternative="greater").pvalue > 1e-3, (kind, count)
    assert found.count("positive") + found.count("negative") > 4, "and it is not mute"


def test_regimes_are_judged_apart(judge):
    own = np.repeat([0, 1, 5, 6, 40], 40)
    delta = np.where(own == 0, 0.5, np.where(own <= 5, 0.0, -0.5)) + 0.1 * deltas(0.0, n=200)
    found = judge(held_out(delta, n_own=own))
    assert found.regimes.index.tolist() == ["cold", "few", "warm"]
    assert found.regimes["verdict"].tolist() == ["positive", "undetermined", "negative"]
    assert found.regimes["n_users"].tolist() == [40, 80, 80]
    assert found.regimes["n_rows"].tolist() == [160, 320, 320]
    assert found.regimes["delta"].sum() == pytest.approx(found.delta)
    assert found.per_user.groupby("regime")["delta"].sum()["cold"] == pytest.approx(found.regimes.loc["cold", "delta"])
    assert judge(held_out(np.full(40, 0.5))).regimes.index.tolist() == ["cold"]


def test_folds_are_put_together(judge):
    delta = deltas(0.3)
    parts = [held_out(delta[:25]), held_out(delta[25:])]
    found, whole = judge(*parts), judge(held_out(delta))
    assert found.delta == pytest.approx(whole.delta)
    assert found.se == pytest.approx(whole.se)
    assert len(found.per_user) == 60
    assert found.rows is None, "bare scores have no rows"


def test_harm_warns_and_the_summary_says_what_the_numbers_mean(data):
    with pytest.warns(NegativeTransferWarning, match=r"TransferMF scores 2\d\.\d nats worse than PMF"):
        found = verdict.report([held_out(deltas(-0.4))], data, ("TransferMF", "PMF"), 0.0, 0)
    text = found.summary()
    assert "The source hurts: source makes predictions in target worse" in text
    assert CHOICE in text
    assert f"Probability of negative transfer: {found.probability:.3f}" in text
    assert "240 held-out ratings of 60 users" in text
    assert "cold" in text
    assert "negative" in repr(found)
    helpful = verdict.report([held_out(deltas(0.4))], data, ("TransferMF", "PMF"), 0.0, 0)  # no warning
    assert "The source helps" in helpful.summary()
    unclear = verdict.report([held_out(deltas(0.0))], data, ("TransferMF", "PMF"), 0.0, 0)
    assert f"Undetermined: the held-out ratings do not say whether source helps in target ({unclear.reason})" in (
        unclear.summary()
    )


def test_strangers_in_the_test_rows_are_users_of_their_own(transfer, pmf, target_rows):
    rows = target_rows.head(8).assign(user=[901, 901, 902, 902, 903, 904, 905, 905])
    found = br.negative_transfer(transfer, pmf, rows)
    assert found.per_user["user"].tolist() == [901, 902, 903, 904, 905]
    assert found.rows["n_own"].tolist() == [0] * 8, "a stranger has no rating in training"
    alone = [br.negative_transfer(transfer, pmf, rows[rows["user"] == u]) for u in range(901, 906)]
    assert found.per_user["joint"].to_numpy() == pytest.approx([f.joint_delta for f in alone], abs=1e-5)


GIBBS = br.Gibbs(draws=20, warmup=20, chains=4)


def test_held_out_rows_are_predicted_once_by_each_posterior(data, monkeypatch):
    train, test = br.split.cold_users(data, fraction=0.3, seed=0)
    fits = [
        br.fit(br.models.PMF(rank=1), train, br.Gibbs(draws=4, warmup=4, chains=1), seed=k, progress=False)
        for k in (0, 1)
    ]
    passes, laws = [], br.Posterior.laws

    def counted(posterior, batch):
        passes.append(posterior)
        return laws(posterior, batch)

    monkeypatch.setattr(br.Posterior, "laws", counted)
    br.negative_transfer(*fits, test)
    assert [one is other for one, other in zip(passes, fits, strict=True)] == [True, True]


def test_two_posteriors_on_held_out_rows(data):
    train, test = br.split.cold_users(data, fraction=0.3, seed=0)
    arm = br.fit(br.models.TransferMF(rank=1), train, GIBBS, progress=False)
    bare = br.fit(br.models.PMF(rank=1), train, GIBBS, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeTransferWarning)
        found = br.negative_transfer(arm, bare, test)
        mirror = br.negative_transfer(bare, arm, test)
    assert found.delta == pytest.approx((arm.log_score(test) - bare.log_score(test)).sum())
    assert mirror.delta == pytest.approx(-found.delta)
    assert mirror.probability == pytest.approx(1 - found.probability, abs=0.05)
    assert found.verdict == "undetermined"
    assert "users, at least 30" in found.reason  # too few in this table
    assert set(found.per_user["user"]) == set(test.users.decode(test.user))
    assert set(found.per_user["regime"]) == {"cold"}
    assert found.labels == ("TransferMF", "PMF")
    rows, answer = found.rows, arm.predict(test)
    names = ["user", "item", "n_own", "value", "mean", "sd", "lower", "upper", "pit", "mean_without"]
    names += ["sd_without", "delta"]
    assert rows.columns.tolist() == names
    for name in ("user", "item", "mean", "sd", "lower", "upper"):
        assert rows[name].tolist() == answer[name].tolist(), name
    assert rows["value"].tolist() == test.to_frame()["rating"].tolist()
    assert rows["pit"].tolist() == calibration.pit(arm, test).tolist()
    assert rows["mean_without"].tolist() == bare.predict(test)["mean"].tolist()
    assert rows["sd_without"].tolist() == bare.predict(test)["sd"].tolist()
    assert rows["delta"].to_numpy() == pytest.approx(arm.log_score(test) - bare.log_score(test))
    assert set(rows["n_own"]) == {0}
    assert "rows=" not in repr(found)
    same = br.negative_transfer(arm, arm, test)
    assert (same.delta, same.verdict) == (0.0, "undetermined")
    assert same.probability == pytest.approx(0.5, abs=0.03), "equal up to the sampler's noise"
    with pytest.raises(DataError, match="outside the target"):
        br.negative_transfer(arm, arm, data)
    with pytest.raises(DataError, match="test has no rows"):
        br.negative_transfer(arm, bare, test.mask(np.zeros(len(test), dtype=bool)))


@pytest.fixture
def fits(monkeypatch):
    """What the arms of assess_transfer were fitted to."""
    seen = []
    for name in ("fit", "fit_unchecked"):
        original = getattr(verdict, name)

        def spy(model, data, *args, _fit=original, **kwargs):
            seen.append((model, len(data), bool((~data.is_target).any())))
            return _fit(model, data, *args, **kwargs)

        monkeypatch.setattr(verdict, name, spy)
    return seen


@pytest.mark.parametrize("own", [False, True])
def test_the_baseline_never_sees_a_source_row(data, fits, own):
    model = br.models.TransferMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    baseline = model if own else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeTransferWarning)
        found = br.assess_transfer(model, data, GIBBS, folds=2, baseline=baseline, progress=False)
    bare = model if own else br.models.PMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    assert [(m, source) for m, _, source in fits] == [(model, True), (bare, False)] * 2
    assert found.labels == ("TransferMF", "TransferMF without the source" if own else "PMF")
    assert len(found.per_user) == 35  # everybody with target rows, once
    assert found.per_user["user"].is_unique
    assert found.per_user["n"].sum() == data.is_target.sum()
    assert set(found.per_user["regime"]) == {"cold"}


def test_support_rows_make_the_regime_few(data, fits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeTransferWarning)
        found = br.assess_transfer(br.models.CollectiveMF(rank=1), data, GIBBS, folds=2, n_support=2, progress=False)
    assert found.regimes.index.tolist() == ["few"]
    assert found.per_user["n"].tolist() == [3] * 35
    assert set(found.rows["n_own"]) == {2}
    assert found.rows.index.tolist() == list(range(105)), "the rows of all folds, once"
    by_user = found.rows.groupby("user")["delta"].sum().loc[found.per_user["user"]]
    assert by_user.to_numpy() == pytest.approx(found.per_user["delta"].to_numpy())


@pytest.mark.parametrize("stopped", ["with", "without"])
def test_an_interrupted_fit_ends_the_assessment(data, monkeypatch, stopped):
    """Half an arm is no basis for a verdict, whichever arm it is; also where the caller hears no warnings."""

    def cut(name):
        original = getattr(verdict, name)

        def run(*args, **kwargs):
            posterior = original(*args, **kwargs)
            warnings.warn("interrupted: kept 3 of 20 draws in each of 4 of 4 chains.", ConvergenceWarning, stacklevel=3)
            return posterior

        return run

    name = {"with": "fit", "without": "fit_unchecked"}[stopped]
    monkeypatch.setattr(verdict, name, cut(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt, match="no verdict from half an arm"):
            br.assess_transfer(br.models.CollectiveMF(rank=1), data, GIBBS, folds=2, progress=False)


def test_other_convergence_warnings_do_not_end_it(data, monkeypatch):
    original = verdict.fit

    def slow(*args, **kwargs):
        warnings.warn("R-hat is 1.3; a run that was interrupted would say so", ConvergenceWarning, stacklevel=2)
        return original(*args, **kwargs)

    monkeypatch.setattr(verdict, "fit", slow)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = br.assess_transfer(br.models.CollectiveMF(rank=1), data, GIBBS, folds=2, progress=False)
    assert len(found.per_user) == 35
    assert sum("R-hat is 1.3" in str(w.message) for w in heard) == 2
    with pytest.raises(ConvergenceWarning, match="R-hat"):  # errors here: the filter of the caller holds
        br.assess_transfer(br.models.CollectiveMF(rank=1), data, GIBBS, folds=2, progress=False)


@pytest.mark.parametrize("seed", [-1, 1.0, True, "7", None, 2**63])
def test_a_bad_seed_is_refused_before_anything_is_fitted(data, transfer, target_rows, fits, seed):
    with pytest.raises(DataError, match=r"seed must be a whole number of at least 0"):
        br.assess_transfer(br.models.CollectiveMF(rank=1), data, GIBBS, folds=2, seed=seed, progress=False)
    assert fits == []
    with pytest.raises(DataError, match=r"seed must be a whole number of at least 0"):
        br.negative_transfer(transfer, transfer, target_rows, seed=seed)


@pytest.mark.parametrize("effect", [-0.1, float("nan"), float("inf"), True, "0.1", None])
def test_an_effect_of_interest_is_a_number_of_nats(data, transfer, pmf, effect):
    with pytest.raises(DataError, match="min_effect must be a number of nats a row"):
        br.negative_transfer(transfer, pmf, data.mask(data.is_target), min_effect=effect)
    with pytest.raises(DataError, match="min_effect must be a number of nats a row"):
        br.assess_transfer(br.models.TransferMF(), data, br.Gibbs(), min_effect=effect)
