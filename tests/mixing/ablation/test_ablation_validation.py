"""Cross-validation: folds, ranks, the combination, choosing, learning curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mixing.ablation.objective import Objective
from mixing.ablation.surrogates import FITS, all_rows
from mixing.ablation.validation import (
    Validation,
    choose,
    folds_of,
    learning_curve,
    nested,
    rank_correlation,
    scores,
    validate,
)


def made(num_runs=36, noise=0.01):
    chance = np.random.default_rng(0)
    weights = chance.dirichlet(np.ones(3), num_runs)
    losses = (
        2 + np.exp(0.5 - np.sqrt(weights) @ np.diag([1.0, 1.5, 2.0])) + noise * chance.standard_normal((num_runs, 3))
    )
    return weights, losses, Objective("shares", ("a", "b", "c"), np.full(3, 1 / 3), losses.mean(0))


def test_folds_of_equal_mixtures_are_equal_and_folds_are_even():
    weights = np.repeat(np.random.default_rng(0).dirichlet(np.ones(3), 12), 2, axis=0)
    for folds in folds_of(weights, 3, seed=1):
        assert (folds[::2] == folds[1::2]).all()
        assert np.bincount(folds).tolist() == [4] * 6


def test_validate_predicts_each_run_as_a_fit_without_its_fold_would():
    weights, losses, objective = made()
    checked = validate(["constant", "ridge_sqrt", "exponential_sqrt"], weights, losses, objective, 2, seed=0)
    for repeat, folds in enumerate(checked.folds):
        for name in ("constant", "ridge_sqrt", "exponential_sqrt"):
            kept = folds != 3
            alone = FITS[name](weights[kept], losses[kept], all_rows(losses[kept]))(weights[~kept])[0]
            np.testing.assert_allclose(checked.predictions[name][repeat][~kept], alone, atol=1e-3)


def test_validate_chooses_the_law_that_made_the_losses():
    weights, losses, objective = made()
    checked = validate(["constant", "linear", "ridge_sqrt", "exponential_sqrt"], weights, losses, objective, 1, seed=0)
    assert choose(checked.predictions, losses, objective) in ("exponential_sqrt", "combination")
    assert max(checked.shares, key=checked.shares.get) == "exponential_sqrt"
    assert sum(checked.shares.values()) == pytest.approx(1)


def test_choose_with_a_tie_takes_the_first():
    _, losses, objective = made()
    same = losses[None] + 0.1
    assert choose({"simple": same, "complex": same}, losses, objective) == "simple"


def test_nested_takes_for_each_fold_what_was_best_on_the_others():
    losses = np.array([[1.0], [2.0], [3.0], [4.0]])
    objective = Objective("shares", ("a",), np.ones(1), np.ones(1))
    good_early = np.array([[[1.0], [2.0], [9.0], [9.5]]])
    good_late = np.array([[[5.0], [6.0], [3.0], [4.0]]])
    checked = Validation(np.array([[0, 0, 1, 1]]), {"early": good_early, "late": good_late}, {})
    assert nested(checked, losses, objective)[0, :, 0].tolist() == [5.0, 6.0, 9.0, 9.5]


@given(st.lists(st.integers(0, 6), min_size=3, max_size=20), st.integers(0, 2**32))
def test_rank_correlation_with_ties_equals_scipy(left, seed):
    left = np.array(left, dtype=float)
    right = np.random.default_rng(seed).integers(0, 5, len(left)).astype(float)
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        assert rank_correlation(left, right) is None
    else:
        assert rank_correlation(left, right) == pytest.approx(spearmanr(left, right).statistic)


def test_scores_of_exact_predictions_are_perfect():
    _, losses, objective = made()
    perfect = scores(losses[None], losses, objective)
    assert perfect["rank_correlation"] == pytest.approx(1)
    assert perfect["mae"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert (perfect["regret"], perfect["objective_error"]) == (0.0, 0.0)


def test_scores_of_a_wrong_favourite_show_the_regret():
    losses = np.exp(np.array([[0.0], [0.1], [0.3]]))
    objective = Objective("shares", ("a",), np.ones(1), np.ones(1))
    assert scores(losses[::-1][None], losses, objective)["regret"] == pytest.approx(0.3)


def test_learning_curve_falls_with_more_runs():
    weights, losses, objective = made(60, noise=0.002)
    points = learning_curve("exponential_sqrt", weights, losses, objective, seed=0)
    assert [size for size, _ in points] == [24, 33, 42, 51]
    assert points[-1][1] < points[0][1]
