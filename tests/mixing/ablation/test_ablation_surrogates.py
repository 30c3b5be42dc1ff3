"""Surrogates against independent fits: scipy's least squares, scikit-learn's ridge and Gaussian process."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from sklearn.linear_model import Ridge

from mixing.ablation import exponential
from mixing.ablation.linear import clip_to_observed
from mixing.ablation.surrogates import FITS, SurrogateError, all_rows, combined, usable


def made_runs(num_runs, num_domains=4, num_targets=3, noise=0.01, seed=0):
    chance = np.random.default_rng(seed)
    slopes = np.random.default_rng(7).normal(-0.6, 0.6, (num_domains, num_targets))
    weights = chance.dirichlet(np.full(num_domains, 0.7), num_runs)
    losses = 2 + np.exp(0.5 + np.sqrt(weights) @ slopes) + noise * chance.standard_normal((num_runs, num_targets))
    return weights, losses


def scipy_exponential(weights, losses, start):
    """The same penalised Huber problem for one domain, by another solver, from a given start; returns its cost."""
    scaled = (losses - losses.mean()) / losses.std()
    features = np.sqrt(weights)

    def cost(p):
        r = np.abs(p[0] + np.exp(p[1] + features @ p[2:]) - scaled)
        huber = np.where(r <= exponential.HUBER, r**2 / 2, exponential.HUBER * (r - exponential.HUBER / 2))
        return huber.sum() + exponential.RIDGE / 2 * (p[2:] ** 2).sum() + exponential.FLOOR_RIDGE / 2 * p[0] ** 2

    def residuals(p):
        r = p[0] + np.exp(p[1] + features @ p[2:]) - scaled
        size = np.abs(r)
        # The square root of twice Huber's function, so that half its square is Huber's function.
        root = np.where(
            size <= exponential.HUBER, size, np.sqrt(np.maximum(2 * exponential.HUBER * size - exponential.HUBER**2, 0))
        )
        return np.r_[np.sign(r) * root, np.sqrt(exponential.RIDGE) * p[2:], np.sqrt(exponential.FLOOR_RIDGE) * p[0]]

    solved = least_squares(residuals, start, x_scale="jac", max_nfev=2000, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    return cost(solved.x), cost


@pytest.mark.parametrize("num_runs", [14, 40])
def test_exponential_sqrt_reaches_the_cost_that_scipy_reaches(num_runs):
    weights, losses = made_runs(num_runs, noise=0.05)
    features = np.concatenate([np.ones((num_runs, 1)), np.sqrt(weights)], axis=1)
    problems, _, _ = exponential._standardised(features, losses, all_rows(losses), exponential.RIDGE)
    ours = exponential._solve_from_starts(problems)
    for column in range(losses.shape[1]):
        _, cost = scipy_exponential(weights, losses[:, column], ours[column])
        best = min(
            scipy_exponential(weights, losses[:, column], np.r_[-1.5 - below, 0.5, np.zeros(4)])[0]
            for below in (0.05, 0.5, 3)
        )
        assert cost(ours[column]) <= best * (1 + 1e-3) + 1e-6


def test_exponential_sqrt_finds_the_law_that_made_the_losses():
    weights, losses = made_runs(60, noise=0.0)
    others, expected = made_runs(200, noise=0.0, seed=1)
    inside = (expected >= losses.min(0)) & (expected <= losses.max(0))
    predicted = FITS["exponential_sqrt"](weights, losses, all_rows(losses))(others)[0]
    assert np.abs(predicted - expected)[inside].max() < 0.01


def test_linear_and_ridge_equal_scikit_learn():
    weights, losses = made_runs(30)
    others, _ = made_runs(50, seed=1)
    for name, transform, penalty in (("linear", np.asarray, 1e-6), ("ridge_sqrt", np.sqrt, 0.1)):
        oracle = Ridge(penalty).fit(transform(weights), losses).predict(transform(others))
        low, high = clip_to_observed(losses, all_rows(losses))
        predicted = FITS[name](weights, losses, all_rows(losses))(others)[0]
        np.testing.assert_allclose(predicted, np.clip(oracle, low[0], high[0]), atol=1e-5)


def test_gaussian_process_passes_close_to_noiseless_runs():
    weights, losses = made_runs(50, noise=0.0)
    predicted = FITS["gaussian_process"](weights, losses, all_rows(losses))(weights)[0]
    assert np.abs(predicted - losses).max() < 0.05 * losses.std()


@pytest.mark.parametrize("name", [name for name in FITS if name != "lightgbm"])
def test_fit_of_replicates_equals_fits_one_by_one(name):
    weights, losses = made_runs(24)
    chance = np.random.default_rng(5)
    rows = (chance.random((3, 24, 1)) > 0.2) * np.ones((3, 24, 3))
    others, _ = made_runs(10, seed=2)
    together = FITS[name](weights, losses, rows)(others)
    alone = np.concatenate([FITS[name](weights, losses, rows[r : r + 1])(others) for r in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", list(FITS))
def test_fit_ignores_runs_that_do_not_count(name):
    weights, losses = made_runs(24)
    rows = all_rows(losses)
    rows[:, 20:] = 0
    spoiled = losses.copy()
    spoiled[20:] = np.nan
    others, _ = made_runs(10, seed=2)
    kept = FITS[name](weights[:20], losses[:20], all_rows(losses[:20]))(others)
    if name in ("linear", "ridge_sqrt"):  # centred on all runs
        np.testing.assert_allclose(FITS[name](weights, spoiled, rows)(others), kept, atol=1e-4)
    else:
        np.testing.assert_allclose(FITS[name](weights, spoiled, rows)(others), kept, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 20))
def test_fit_of_any_table_predicts_within_the_widened_range(seed, num_runs):
    chance = np.random.default_rng(seed)
    weights = chance.dirichlet(np.full(3, 0.3), num_runs)
    losses = 3 + chance.standard_exponential((num_runs, 2))
    others = chance.dirichlet(np.full(3, 0.3), 20)
    margin = 0.3 * losses.std(0) + 1e-6
    for name in ("constant", "linear", "ridge_sqrt", "exponential", "exponential_sqrt", "gaussian_process"):
        predicted = FITS[name](weights, losses, all_rows(losses))(others)[0]
        assert (predicted >= losses.min(0) - margin).all()
        assert (predicted <= losses.max(0) + margin).all()


def test_fit_of_losses_that_never_vary_predicts_that_loss():
    weights, _ = made_runs(12)
    losses = np.full((12, 2), 3.25)
    for name, fit in FITS.items():
        np.testing.assert_allclose(fit(weights, losses, all_rows(losses))(weights)[0], 3.25, atol=1e-6, err_msg=name)


def test_exponential_bootstraps_from_the_whole_fit_agree_with_fits_from_scratch(monkeypatch):
    weights, losses = made_runs(30, noise=0.02)
    rows = np.random.default_rng(1).standard_exponential((45, 30, 1)) * np.ones((1, 1, 3))
    warm = FITS["exponential_sqrt"](weights, losses, rows)(weights)
    monkeypatch.setattr(exponential, "MANY_REPLICATES", 100)
    cold = FITS["exponential_sqrt"](weights, losses, rows)(weights)
    assert np.quantile(np.abs(warm - cold), 0.99) < 0.1 * 0.02  # of the noise
    assert np.abs(warm - cold).max() < 0.5 * 0.02


def test_combined_takes_members_with_fewer_replicates_in_turn():
    def four(mixtures):
        return np.arange(4.0)[:, None, None] * np.ones((1, len(mixtures), 1))

    def two(mixtures):
        return np.array([10.0, 20.0])[:, None, None] * np.ones((1, len(mixtures), 1))

    predicted = combined({"four": four, "two": two}, {"four": 0.5, "two": 0.5})(np.ones((1, 1)))
    assert predicted[:, 0, 0].tolist() == [5.0, 10.5, 6.0, 11.5]


def test_usable_with_fewer_than_two_runs_a_domain_falls_back_and_says_so():
    names, notes = usable(15, 8)
    assert names == ["constant", "ridge_sqrt", "gaussian_process"]
    assert "need at least 16, better 32" in notes[0]


def test_usable_with_a_misspelt_surrogate_suggests_the_right_one():
    with pytest.raises(SurrogateError, match="did you mean 'lightgbm'"):
        usable(100, 5, ("lightgm",))


def test_importing_the_analysis_loads_neither_scipy_nor_lightgbm_nor_scikit_learn():
    code = (
        "import sys, mixing.ablation.analysis, mixing.ablation.design, mixing.ablation.sequential\n"
        "print([name for name in ('scipy', 'sklearn', 'lightgbm', 'torch') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
