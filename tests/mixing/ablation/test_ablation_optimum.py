"""Optima: against grids and by hand; objectives; fronts; the verdict."""

import numpy as np
import pytest

from mixing.ablation.candidates import bootstrap_rows, make_scores
from mixing.ablation.objective import Objective, ObjectiveError, make_objective
from mixing.ablation.optimum import minimise, pareto_front, uncertainty
from mixing.ablation.question import AnalysisOptions, pose
from mixing.ablation.region import make_region
from mixing.ablation.report import evenly
from mixing.ablation.sampling import pool_of
from mixing.ablation.surrogates import all_rows
from mixing.ablation.verdict import Noise, Spare, best_run, spare_of, surrogate_gain

NAMES = ("a", "b", "c")
EVEN = np.full(3, 1 / 3)


def squares(centre):
    return lambda weights: np.square(weights - np.array(centre)).sum(1)


def test_minimise_finds_the_centre_of_a_bowl():
    region = make_region(NAMES)
    best = minimise(squares([0.2, 0.5, 0.3]), region, pool_of(region, EVEN, 300, (0,)), 0)
    np.testing.assert_allclose(best, [0.2, 0.5, 0.3], atol=2e-3)


def test_minimise_under_a_cap_and_a_bound_ends_at_the_edge_of_both():
    region = make_region(NAMES, (("c", 0.4, 0.6),), {"a": 0.1})
    best = minimise(squares([1.0, 0.0, 0.0]), region, pool_of(region, EVEN, 300, (0,)), 0)
    assert best[0] == pytest.approx(0.1, abs=1e-3)
    assert 0.4 - 1e-6 <= best[2] <= 0.6 + 1e-6
    # Of (0.1, b, c) with b + c = 0.9 the nearest to (1, 0, 0) is b = c = 0.45.
    np.testing.assert_allclose(best, [0.1, 0.45, 0.45], atol=3e-3)


def test_minimise_of_a_law_beats_a_fine_grid():
    region = make_region(NAMES)
    slopes = np.array([[-1.0, -0.2, 0], [0, -2.0, -0.1], [-0.1, 0, -1.5]])

    def score(weights):
        return np.log(2 + np.exp(0.5 + np.sqrt(weights) @ slopes.T)).mean(1)

    ticks = np.arange(0, 101)
    a, b = (grid.ravel() for grid in np.meshgrid(ticks, ticks))
    grid = np.stack([a, b, 100 - a - b], axis=1)[a + b <= 100] / 100
    best = minimise(score, region, pool_of(region, EVEN, 300, (0,)), 0)
    assert score(best[None])[0] <= score(grid).min() + 1e-6


def test_uncertainty_of_replicates_that_all_agree_has_no_width():
    mixtures = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
    values = np.tile([0.0, -0.1, 0.2], (20, 1))
    doubt = uncertainty(values, values[0], mixtures, optimum=1, natural=0)
    assert doubt.low.tolist() == doubt.high.tolist() == [0.2, 0.8]
    assert doubt.tied.tolist() == [False, True, False]
    assert doubt.optimism == 0.0
    np.testing.assert_allclose(doubt.gains, -0.1)


def test_uncertainty_of_pure_noise_knows_that_its_best_is_luck():
    chance = np.random.default_rng(0)
    whole = 0.01 * chance.standard_normal(50)
    values = whole + 0.01 * chance.standard_normal((200, 50))
    doubt = uncertainty(values, whole, chance.dirichlet(np.ones(3), 50), optimum=int(whole.argmin()), natural=0)
    assert doubt.optimism > 0.005


def test_pareto_front_keeps_what_nothing_beats():
    axes = np.array([[1.0, 3.0], [2.0, 2.0], [2.5, 2.5], [3.0, 1.0], [1.0, 4.0]])
    assert pareto_front(axes).tolist() == [0, 1, 3]


def test_objective_of_natural_losses_is_zero_and_of_one_per_cent_less_is_its_log():
    objective = make_objective({}, NAMES, np.array([2.0, 3.0, 4.0]), {})
    assert objective.of(np.array([2.0, 3.0, 4.0])) == pytest.approx(0)
    assert objective.of(0.99 * np.array([2.0, 3.0, 4.0])) == pytest.approx(np.log(0.99))


def test_objective_shares_of_a_pattern_follow_natural_weights_and_are_even_without():
    targets = ("web/head", "web/tail", "exam_de", "exam_en")
    natural = {"web/head": 0.6, "web/tail": 0.2, "books": 0.2}
    objective = make_objective({"web": 0.4, "exam_*": 0.6}, targets, np.ones(4), natural)
    np.testing.assert_allclose(objective.shares, [0.3, 0.1, 0.3, 0.3])


def test_objective_worst_is_the_domain_that_lost_most():
    objective = make_objective("worst", NAMES, np.ones(3), {})
    assert objective.of(np.array([0.9, 1.1, 1.0])) == pytest.approx(np.log(1.1))


def test_objective_on_a_domain_without_held_out_text_is_refused_by_name():
    with pytest.raises(ObjectiveError, match=r"'exam_\*' names no domain .* measured: a, b, c"):
        make_objective({"a": 0.5, "exam_*": 0.5}, NAMES, np.ones(3), {})


def test_points_of_a_front_are_taken_evenly_along_it_with_its_ends_and_the_least_sum():
    across = np.concatenate([[0.0], np.linspace(0.49, 0.51, 101), [1.0]])  # nearly all of them in the middle
    axes = np.stack([across, (1 - across) ** 2], axis=1)
    picked = evenly(axes, 5)
    assert picked[0] == 0
    assert picked[-1] == len(axes) - 1
    assert len(picked) <= 8
    assert int(axes.sum(1).argmin()) in picked


def test_objective_axes_of_a_front_are_logs():
    objective = Objective("pareto", NAMES, np.array([0.5, 0.5, 0.0]), np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(objective.axes(np.array([1.0, 1.0, 4.0])), [0, np.log(0.5), 0])


def test_surrogate_gain_beyond_every_doubt_beats():
    gain = surrogate_gain(-0.03, np.full(100, -0.03), 0.001, 0.002, Noise(0.004, 20), Spare(30, 1.0))
    assert gain.beats
    assert gain.corrected == pytest.approx(-0.029)


@pytest.mark.parametrize(("optimism", "error", "spread"), [(0.03, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.0, 0.02)])
def test_surrogate_gain_that_any_single_doubt_explains_does_not_beat(optimism, error, spread):
    gains = -0.03 + spread * np.array([-1.0, 1.0] * 50)
    assert not surrogate_gain(-0.03, gains, optimism, error, Noise(None, 0), Spare(30, 1.0)).beats


def test_noise_from_two_seeds_may_be_half_as_large_and_from_many_hardly():
    assert Noise(1.0, 1).at_least() == pytest.approx(0.51, abs=0.01)
    assert Noise(1.0, 400).at_least() == pytest.approx(0.94, abs=0.01)
    assert Noise(None, 0).at_least() == 0.0


def test_spare_of_ten_runs_and_four_domains_inflates_by_the_root_of_two():
    assert spare_of(10, 8, 4) == Spare(3, pytest.approx(2**0.5))
    assert spare_of(4, 4, 4).degrees == 1
    assert spare_of(1000, 900, 4).inflation == pytest.approx(1, abs=0.01)


def test_surrogate_gain_from_few_mixtures_has_a_wider_interval():
    gains = np.random.default_rng(0).normal(-0.03, 0.012, 200)
    few, many = (surrogate_gain(-0.03, gains, 0.0, 0.0, Noise(None, 0), Spare(k, 1.0)) for k in (2, 400))
    assert few.high - few.low == pytest.approx((many.high - many.low) * 2.92 / 1.649, rel=0.01)
    assert many.beats
    assert not few.beats


def test_best_run_beyond_noise_is_clear_and_without_repeats_never_is():
    values = np.array([0.01, -0.05, np.nan])
    assert best_run(values, np.array([0.0, 0.0, 0.0]), Noise(0.001, 2)) == (1, True)
    assert best_run(values, np.array([0.0]), Noise(None, 0)) == (1, False)


def test_best_run_of_many_noisy_runs_is_rarely_clear():
    chance = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        natural = chance.standard_normal(3)
        wrong += best_run(chance.standard_normal(30), natural, Noise(float(natural.std(ddof=1)), 2))[1]
    assert wrong <= 0.05 * 300


@pytest.mark.parametrize(("trees", "distinct"), [(0.5, 32), (0.05, 40)])
def test_members_of_a_combination_with_many_trees_see_the_same_draws(make_table, natural, trees, distinct):
    question = pose(make_table(dirichlet=44), AnalysisOptions(natural, {}))
    rows = bootstrap_rows(question.fitted.losses, 40, 0)
    mixtures = np.array([[0.4, 0.2, 0.2, 0.2], [0.1, 0.3, 0.1, 0.5]])
    shares = {"lightgbm": trees, "ridge_sqrt": 1 - trees}
    whole = {name: question.fit(name, all_rows(question.fitted.losses)) for name in shares}
    values = make_scores(question, shares, whole, rows).replicates(mixtures)
    of_trees = question.fit("lightgbm", rows[:32])(mixtures)
    of_ridge = question.fit("ridge_sqrt", rows[:distinct])(mixtures)
    wanted = [trees * of_trees[r % 32] + (1 - trees) * of_ridge[r % distinct] for r in range(40)]
    np.testing.assert_allclose(values, question.objective.of(np.array(wanted)))
