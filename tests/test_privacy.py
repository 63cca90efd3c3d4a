"""The Gaussian mechanism against integration, and the noise on a user's ratings against an attack.

Random checks raise a false alarm once in 10,000 runs; each must catch a planted fault, noise of half the size.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from bayesrec.errors import DataError
from bayesrec.privacy import gaussian_delta, gaussian_sigma, noisy, sensitivity

ALARM = 1e-4


def integrated(epsilon, sigma, shift):
    """Mass by which N(shift, sigma^2) exceeds exp(epsilon) N(0, sigma^2): the integral of the privacy loss above epsilon."""
    edge = sigma**2 * epsilon / shift + shift / 2.0
    mine, theirs = stats.norm(shift, sigma).pdf, stats.norm(0.0, sigma).pdf
    return integrate.quad(
        lambda x: mine(x) - np.exp(epsilon) * theirs(x), edge, edge + 40 * sigma, epsabs=1e-14, points=[edge + sigma]
    )[0]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_delta_is_the_integral_of_the_privacy_loss(epsilon, sigma, shift):
    delta = gaussian_delta(epsilon, sigma, shift)
    assert delta == pytest.approx(integrated(epsilon, sigma, shift), abs=1e-12)
    assert delta < 1e-10 or delta != pytest.approx(integrated(epsilon, 2 * sigma, shift), abs=1e-12)


@pytest.mark.parametrize("epsilon", [1e-3, 0.5, 1.0, 8.0, 200.0])
@pytest.mark.parametrize("delta", [1e-300, 1e-12, 1e-5, 0.2, 0.99])
def test_sigma_is_the_smallest_that_keeps_the_budget(epsilon, delta):
    sigma = gaussian_sigma(epsilon, delta, 2.5)
    assert gaussian_delta(epsilon, sigma, 2.5) <= delta * (1 + 1e-6)
    assert gaussian_delta(epsilon, 0.9999 * sigma, 2.5) > delta
    assert gaussian_delta(epsilon, 0.5 * sigma, 2.5) > delta * 1.001
    assert sigma == pytest.approx(2.5 * gaussian_sigma(epsilon, delta, 1.0))


def test_less_noise_than_the_classical_bound_and_more_for_more_privacy():
    classical = np.sqrt(2 * np.log(1.25 / 1e-5)) / 0.5
    assert 0.6 * classical < gaussian_sigma(0.5, 1e-5, 1.0) < classical
    sizes = [gaussian_sigma(epsilon, 1e-5, 1.0) for epsilon in (0.1, 1.0, 10.0, 100.0)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan, "1", True, None])
def test_numbers_that_are_no_budget_are_refused(bad):
    for call in (
        lambda: gaussian_sigma(bad, 0.1, 1.0),
        lambda: gaussian_sigma(1.0, 0.1, bad),
        lambda: gaussian_delta(bad, 1.0, 1.0),
        lambda: gaussian_delta(1.0, bad, 1.0),
        lambda: gaussian_delta(1.0, 1.0, bad),
        lambda: gaussian_sigma(1.0, 1.0 if bad == np.inf else bad, 1.0),
    ):
        with pytest.raises(DataError, match="must"):
            call()


def distance(d, r, e, s):
    """Between what two ratings add to a user's natural parameters."""
    return np.sqrt(((np.outer(d, d) - np.outer(e, e)) ** 2).sum() + ((r * d - s * e) ** 2).sum())


@pytest.mark.parametrize(("bound", "clip"), [(1.0, 0.3), (1.0, 1.4), (0.6, 2.0), (2.0, 2.0)])
def test_no_pair_of_ratings_is_farther_apart_than_the_sensitivity(bound, clip):
    rng = np.random.default_rng(0)
    largest = sensitivity(bound, clip)
    for _ in range(3000):
        d, e = rng.standard_normal((2, 3))
        d, e = (x / np.linalg.norm(x) * bound * rng.choice([1.0, rng.random()]) for x in (d, e))
        r, s = clip * rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], 2)
        assert distance(d, r, e, s) <= largest * (1 + 1e-12)
    angles = np.linspace(0.0, np.pi, 2001)
    first = np.array([bound, 0.0])
    found = max(distance(first, clip, bound * np.array([np.cos(a), np.sin(a)]), -clip) for a in angles)
    assert found == pytest.approx(largest, rel=1e-5)


def even(draws, sigma):
    """Whether projections (draw, direction) have the variance sigma^2: a chi-squared test for each direction."""
    n = len(draws)
    p = stats.chi2(n).cdf((draws**2).sum(0) / sigma**2)
    return bool((np.minimum(p, 1 - p) > ALARM / 2 / draws.shape[1]).all())


def test_the_noise_is_the_same_along_every_direction():
    gram, linear = noisy(np.zeros((4000, 3, 3)), np.zeros((4000, 3)), 1.7, np.random.default_rng(1))
    assert np.array_equal(gram, gram.transpose(0, 2, 1))
    rng = np.random.default_rng(2)
    matrix, vector = rng.standard_normal((10, 3, 3)), rng.standard_normal((10, 3))
    matrix += matrix.transpose(0, 2, 1)
    matrix[:3], vector[3:6] = 0.0, 0.0
    norm = np.sqrt((matrix**2).sum((1, 2)) + (vector**2).sum(1))
    draws = (np.einsum("uij,kij->uk", gram, matrix) + linear @ vector.T) / norm
    assert even(draws, 1.7)
    assert not even(draws, 1.6)


def attacked(epsilon, delta, sigma, needed):
    """Whether the best attack on one rating proves that the budget is broken.

    Neighbours as far apart as can be; the likelihood-ratio test with the noise that there really is.
    """
    rng, n, clip = np.random.default_rng(3), 40000, 1.0
    d, e = np.array([1.0, 0.0]), np.array([0.5, np.sqrt(0.75)])  # the worst cosine for bound 1 and clip 1
    release = [
        noisy(np.tile(np.outer(x, x), (n, 1, 1)), np.tile(r * x, (n, 1)), sigma, rng)
        for x, r in ((d, clip), (e, -clip))
    ]
    matrix, vector = np.outer(d, d) - np.outer(e, e), clip * (d + e)
    far = np.sqrt((matrix**2).sum() + (vector**2).sum())
    assert far == pytest.approx(needed)
    centre = (matrix * np.outer(e, e)).sum() + vector @ (-clip * e)
    score = [(np.einsum("uij,ij->u", g, matrix) + l @ vector - centre) / far for g, l in release]
    edge = sigma**2 * epsilon / far + far / 2.0
    hit, false = (float((s > edge).mean()) for s in score)
    excess = hit - np.exp(epsilon) * false - delta
    sd = np.sqrt((hit * (1 - hit) + np.exp(2 * epsilon) * false * (1 - false)) / n)
    return bool(excess > stats.norm.isf(ALARM) * sd)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_an_attack_finds_too_little_noise_and_nothing_else(epsilon):
    delta, needed = 0.02, sensitivity(1.0, 1.0)
    sigma = gaussian_sigma(epsilon, delta, needed)
    assert not attacked(epsilon, delta, sigma, needed)
    assert attacked(epsilon, delta, sigma / 2, needed)
