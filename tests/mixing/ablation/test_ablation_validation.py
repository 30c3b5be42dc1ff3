"""Cross-validation: folds, ranks, the combination, choosing, learning curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mixing.ablation.objective import Objective
from mixing.ablation.surrogates import FITS, all_rows
from mixing.ablation.validation import (
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


def test_nested_is_the_procedure_written_out_for_each_fold():
    names = ["constant", "ridge_sqrt", "gaussian_process"]
    weights, losses, objective = made(24, noise=0.05)
    checked = validate(names, weights, losses, objective, 1, seed=3)
    found = nested(checked, weights, losses, objective, names)[0]
    chosen = set()
    for fold in range(6):
        kept = np.flatnonzero(checked.folds[0] != fold)
        inner = {name: np.empty_like(losses[kept])[None] for name in names}
        for other in set(range(6)) - {fold}:
            at = checked.folds[0][kept] == other
            for name in names:
                fit = FITS[name](weights[kept[~at]], losses[kept[~at]], all_rows(losses[kept[~at]]))
                inner[name][0, at] = fit(weights[kept[at]])[0]
        name = choose(inner, losses[kept], objective)
        chosen.add(name)
        out = checked.folds[0] == fold
        said = FITS[name](weights[kept], losses[kept], all_rows(losses[kept]))(weights[out])[0]
        np.testing.assert_allclose(found[out], said, atol=2e-3)
    assert chosen - {"constant"}


def test_nested_predictions_of_a_fold_know_nothing_of_its_losses():
    names = ["constant", "linear", "ridge_sqrt", "exponential_sqrt"]
    weights, losses, objective = made(24, noise=0.02)
    checked = validate(names, weights, losses, objective, 1, seed=0)
    out = checked.folds[0] == 2
    other = losses.copy()
    other[out] = losses[out][::-1] * 1.05
    again = validate(names, weights, other, objective, 1, seed=0)
    allowed = [*names, "combination"]
    first = nested(checked, weights, losses, objective, allowed)[0]
    second = nested(again, weights, other, objective, allowed)[0]
    np.testing.assert_allclose(first[out], second[out], atol=1e-4)
    assert np.abs(first[~out] - second[~out]).max() > 1e-3


def test_nested_chooses_among_what_may_be_chosen():
    weights, losses, objective = made(24)
    checked = validate(["constant", "exponential_sqrt"], weights, losses, objective, 1, seed=0)
    only = nested(checked, weights, losses, objective, ["constant"])[0]
    np.testing.assert_allclose(only, checked.predictions["constant"][0])


def test_nested_needs_three_folds_that_know_every_domain():
    weights, losses, objective = made(24)
    checked = validate(["constant", "ridge_sqrt"], weights, losses, objective, 1, seed=0)
    losses[checked.folds[0] > 1, 0] = np.nan
    assert nested(checked, weights, losses, objective, ["constant", "ridge_sqrt"]) is None


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


def test_learning_curve_leaves_out_all_seeds_of_a_mixture():
    weights, losses, objective = made(14, noise=0.0)
    chance = np.random.default_rng(0)
    thrice, seen = np.repeat(weights, 3, axis=0), np.repeat(losses, 3, axis=0)
    seen = seen * (1 + 1e-4 * chance.standard_normal(seen.shape))
    points = learning_curve("gaussian_process", thrice, seen, objective, seed=0)
    assert [size for size, _ in points] == [18, 24, 30, 36]
    checked = validate(["gaussian_process"], thrice, seen, objective, 3, seed=0)
    grouped = scores(checked.predictions["gaussian_process"], seen, objective)["objective_error"]
    assert points[-1][1] == pytest.approx(grouped, rel=0.7)
