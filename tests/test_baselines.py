"""The simple baselines against loops that anyone can read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.baselines import bias_transfer, global_mean, item_bias, item_user_bias, target_bias


def shrunk(value, group, n_groups):
    """Shrunk group means, leave-one-out residuals and the shrinkage, one group at a time."""
    members = [[v for v, g in zip(value, group, strict=True) if g == k] for k in range(n_groups)]
    squares = sum(sum((v - np.mean(m)) ** 2 for v in m) for m in members if len(m) > 1)
    within = squares / sum(len(m) - 1 for m in members if len(m) > 1)
    seen = [m for m in members if m]
    between = max((sum(len(m) * np.mean(m) ** 2 for m in seen) - len(seen) * within) / len(value), 1e-6)
    k = within / between
    means = np.array([sum(m) / (len(m) + k) for m in members])
    residuals = [v - (sum(members[g]) - v) / (len(members[g]) - 1 + k) for v, g in zip(value, group, strict=True)]
    return means, np.array(residuals), k


def test_item_bias(data):
    rows = data.mask(data.is_target)
    baseline = item_bias(data)
    means, residuals, _ = shrunk(rows.value - rows.value.mean(), rows.item, data.n_items)
    assert baseline.mean == pytest.approx(rows.value.mean())
    np.testing.assert_allclose(baseline.item, means)
    assert baseline.sd == pytest.approx(np.sqrt(np.mean(residuals**2)))
    assert (baseline.user == 0).all()
    assert (baseline.item[data.item_domain == 0] == 0).all()  # items of the source have no target rows


def test_item_user_bias(data):
    rows, source = data.mask(data.is_target), data.mask(~data.is_target)
    baseline, base = item_user_bias(data), item_bias(data)
    value = source.value - source.value.mean()
    item, _, _ = shrunk(value, source.item, data.n_items)
    left = (value - item[source.item]) * rows.value.std() / source.value.std()
    level, _, _ = shrunk(left, source.user, data.n_users)
    residual = rows.value - base.mean - base.item[rows.item]
    x = level[rows.user]
    slope = np.linalg.lstsq(x[:, None], residual, rcond=None)[0][0]
    assert baseline.slope == pytest.approx(slope)
    np.testing.assert_allclose(baseline.user, slope * level)
    np.testing.assert_allclose(baseline.item, base.item)
    assert baseline.sd < base.sd, "what is explained is not noise"
    ratio = np.sqrt(((residual - slope * x) ** 2).mean() / (residual**2).mean())
    assert baseline.sd == pytest.approx(base.sd * ratio)


def test_unknown_ids_count_zero(data):
    baseline = item_user_bias(data)
    user, item = np.array([-1, 3, -1, 3]), np.array([20, -1, -1, 20])
    want = [baseline.item[20], baseline.user[3], 0.0, baseline.user[3] + baseline.item[20]]
    np.testing.assert_allclose(baseline.predict(user, item), baseline.mean + np.array(want))


def test_many_ratings_are_hardly_shrunk_and_few_a_lot():
    rng = np.random.default_rng(0)
    item = np.concatenate([np.repeat(np.arange(20), 50), [20]])
    value = np.where(item % 2 == 0, 4.0, 2.0) + 0.5 * rng.standard_normal(len(item))
    value[-1] = 4.0
    frame = pd.DataFrame({"user": np.arange(len(item)), "item": item, "rating": value})
    baseline = item_bias(br.Interactions.from_frame(frame, target="music", domain=None))
    assert baseline.item[0] == pytest.approx(value[item == 0].mean() - value.mean(), rel=0.02)
    assert 0 < baseline.item[20] < 0.9 * (4.0 - value.mean())


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0, 5.0], [2.0, 2.0, 4.0, 4.0]])
@pytest.mark.parametrize("item", [[0, 1, 2, 3], [0, 0, 1, 1]])
def test_items_with_one_rating_or_without_spread_give_numbers(value, item):
    frame = pd.DataFrame({"user": range(4), "item": item, "rating": value})
    data = br.Interactions.from_frame(frame, target="music", domain=None)
    for baseline in (item_bias(data), item_user_bias(data)):
        assert np.isfinite(baseline.item).all()
        assert np.isfinite(baseline.sd)
        assert (baseline.user == 0).all()


def test_a_level_that_carries_over_helps():
    """Users whose source level is their target level: held-out error falls, and not for a deranged source."""
    frame, _ = br.data.synthetic.cross_domain(n_users=300, correlation=0.95, rank=1, seed=3)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    train, test = br.split.cold_users(data, fraction=0.3, seed=0)

    def error(baseline):
        return br.metrics.rmse(test.value, baseline.predict(test.user, test.item))

    alone, helped = error(item_bias(train)), error(item_user_bias(train))
    placebo = error(item_user_bias(br.data.derange_sources(train)))
    assert helped < alone - 0.01
    assert abs(placebo - alone) < 0.01


def test_global_mean(data):
    baseline, value = global_mean(data), data.value[data.is_target]
    assert set(baseline.predict(np.array([0, 5, -1]), np.array([20, -1, 20]))) == {value.mean()}
    assert baseline.sd == pytest.approx(value.std())


def test_item_and_user_bias_of_the_target(data):
    rows = data.mask(data.is_target)
    y, user = rows.value - rows.value.mean(), np.zeros(data.n_users)
    for _ in range(5):
        item, item_left, _ = shrunk(y - user[rows.user], rows.item, data.n_items)
        before = user
        user, left, _ = shrunk(y - item[rows.item], rows.user, data.n_users)
    baseline = target_bias(data)
    np.testing.assert_allclose(baseline.item, item)
    np.testing.assert_allclose(baseline.user, user)
    # leave one out on both sides: what is left of the item step, minus what the user's other rows say
    item_out = y - before[rows.user] - item_left
    user_out = y - item[rows.item] - left
    assert baseline.sd == pytest.approx(np.sqrt(np.mean((y - item_out - user_out) ** 2)))
    cold = np.setdiff1d(np.arange(data.n_users), rows.user)
    assert len(cold) == 5
    assert (baseline.user[cold] == 0).all()
    both = baseline.spread(np.array([cold[0], rows.user[0], -1]), rows.item[:3])
    assert both.tolist() == [baseline.sd_new, baseline.sd, baseline.sd_new]


def test_own_bias_helps_known_users_and_nobody_else():
    frame, _ = br.data.synthetic.cross_domain(n_users=300, rank=1, noise=0.3, seed=3)
    data = br.Interactions.from_frame(frame, target="target", value="value")

    def gain(train, test):
        errors = [br.metrics.rmse(test.value, f(train).predict(test.user, test.item)) for f in (item_bias, target_bias)]
        return errors[0] - errors[1]

    assert gain(*br.split.holdout(data)) > 0.02
    assert abs(gain(*br.split.cold_users(data))) < 0.02


def test_the_old_name_is_the_same_function():
    assert item_user_bias is bias_transfer


def test_bias_transfer_with_shared_items_is_the_mirror_image(data):
    """Swap the two columns, share items: the same numbers with users and items swapped."""
    frame = data.to_frame().rename(columns={"user": "item", "item": "user"})
    mirror = br.Interactions.from_frame(frame, target="target", shared="items")
    one, other = bias_transfer(data), bias_transfer(mirror)
    np.testing.assert_allclose(one.user, other.item)
    np.testing.assert_allclose(one.item, other.user)
    assert (one.sd, one.slope) == pytest.approx((other.sd, other.slope))
