"""Designs: sums, bounds, names and weights that stay when a study grows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.ablation.design import DesignError, DesignOptions, design, optimum_runs
from mixing.ablation.region import BoundsError
from mixing.ablation.sampling import DUPLICATE_DISTANCE, d_optimal, space_filling

NAMES = ["code", "web_de/head", "web_de/tail", "wiki"]
NATURAL = {"code": 0.1, "web_de/head": 0.4, "web_de/tail": 0.3, "wiki": 0.2}


def by_name(runs):
    return {run.name: run for run in runs}


def test_design_of_a_small_study_names_every_run():
    runs = design(NAMES, NATURAL, DesignOptions(dirichlet=2, repeats=2, leave_one_out=1))
    assert [run.name for run in runs] == [
        "natural.s0",
        "natural.s1",
        "one.code",
        "one.web_de/head",
        "one.web_de/tail",
        "one.wiki",
        "without.code",
        "without.web_de/head",
        "without.web_de/tail",
        "without.wiki",
        "dirichlet.000",
        "dirichlet.001",
    ]
    assert [run.seed for run in runs[:3]] == [0, 1, 0]


def test_design_leave_one_out_keeps_the_others_in_natural_proportion():
    run = by_name(design(NAMES, NATURAL, DesignOptions(leave_one_out=1)))["without.wiki"]
    assert run.weights == pytest.approx({"code": 0.125, "web_de/head": 0.5, "web_de/tail": 0.375, "wiki": 0.0})


def test_design_draws_mix_at_least_two_domains():
    names = [f"domain_{place}" for place in range(8)]
    runs = design(names, dict.fromkeys(names, 0.125), DesignOptions(dirichlet=32, seed=1))
    assert max(max(run.weights.values()) for run in runs if run.kind == "dirichlet") < 1


def test_design_with_more_runs_keeps_the_runs_it_had():
    small = design(NAMES, NATURAL, DesignOptions(dirichlet=5, space_filling=2, d_optimal=2, repeats=1))
    large = design(NAMES, NATURAL, DesignOptions(dirichlet=9, space_filling=4, d_optimal=5, repeats=3, leave_one_out=1))
    known = by_name(large)
    assert all(known[run.name] == run for run in small)


def test_design_does_not_depend_on_the_order_of_domains():
    options = DesignOptions(dirichlet=4, space_filling=2)
    assert design(NAMES, NATURAL, options) == design(NAMES[::-1], dict(reversed(NATURAL.items())), options)


def test_design_with_another_domain_keeps_runs_of_one_domain_apart_from_the_zero():
    wider = by_name(design([*NAMES, "zh"], NATURAL | {"zh": 0.1}, DesignOptions()))
    assert wider["one.code"].weights == {"code": 1.0, "web_de/head": 0, "web_de/tail": 0, "wiki": 0, "zh": 0}


def test_design_with_another_seed_draws_other_mixtures():
    one, other = (by_name(design(NAMES, NATURAL, DesignOptions(dirichlet=1, seed=seed))) for seed in (0, 1))
    assert one["dirichlet.000"].weights != other["dirichlet.000"].weights


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 9),
    st.integers(0, 2**32),
    st.floats(0, 0.4),
    st.floats(0.05, 0.5),
)
def test_design_mixtures_sum_to_one_and_keep_their_bounds(num_domains, seed, low, width):
    names = [f"zh_{i}" if i % 2 else f"en_{i}" for i in range(num_domains)]
    shares = np.random.default_rng(seed).dirichlet(np.ones(num_domains)) * 0.9 + 0.1 / num_domains
    bounds = (("zh_*", low, low + width),)
    options = DesignOptions(dirichlet=6, space_filling=2, d_optimal=2, bounds=bounds, seed=seed)
    for run in design(names, dict(zip(names, shares.tolist(), strict=True)), options):
        assert sum(run.weights.values()) == pytest.approx(1, abs=1e-9)
        assert min(run.weights.values()) >= 0
        if run.kind in ("dirichlet", "space_filling", "d_optimal"):
            chinese = sum(weight for name, weight in run.weights.items() if name.startswith("zh_"))
            assert low - 1e-5 <= chinese <= low + width + 1e-5


def test_design_dirichlet_mixtures_are_not_near_duplicates():
    runs = design(NAMES, NATURAL, DesignOptions(dirichlet=40))
    drawn = np.array([list(run.weights.values()) for run in runs if run.kind == "dirichlet"])
    distance = 0.5 * np.abs(drawn[:, None] - drawn).sum(2) + np.eye(len(drawn))
    assert distance.min() >= DUPLICATE_DISTANCE


def test_design_dirichlet_mixtures_lie_around_the_flattened_natural_weights():
    runs = design(NAMES, NATURAL, DesignOptions(dirichlet=300))
    mean = np.mean([list(run.weights.values()) for run in runs if run.kind == "dirichlet"], axis=0)
    flattened = np.sqrt(list(NATURAL.values()))
    np.testing.assert_allclose(mean, flattened / flattened.sum(), atol=0.05)


def test_design_baselines_and_orders_share_the_seeds_of_natural():
    orders = (("blocked", ("wiki", "*"), "asc"), ("uniform", (), "asc"), ("by", ("perplexity",), "desc"))
    options = DesignOptions(one_domain=0, repeats=2, seed=7, baselines=(("natural^0.5", dict(NATURAL)),), orders=orders)
    runs = design(NAMES, NATURAL, options)
    assert [(run.name, run.seed) for run in runs if run.kind in ("baseline", "order")] == [
        ("baseline.natural^0-5.s0", 7),
        ("baseline.natural^0-5.s1", 8),
        ("order.blocked_wiki_all.s0", 7),
        ("order.blocked_wiki_all.s1", 8),
        ("order.by_perplexity_desc.s0", 7),
        ("order.by_perplexity_desc.s1", 8),
    ]
    assert by_name(runs)["order.blocked_wiki_all.s0"].order == orders[0]


def test_design_of_one_domain_is_its_natural_runs():
    assert [run.name for run in design(["only"], {"only": 1.0}, DesignOptions(dirichlet=5))] == [
        "natural.s0",
        "natural.s1",
        "natural.s2",
    ]


def test_design_with_contradicting_bounds_is_refused_with_the_bounds():
    options = DesignOptions(bounds=(("web_de", 0.7, 0.9), ("wiki", 0.5, 0.6)))
    with pytest.raises(BoundsError, match=r"web_de: \[0.7, 0.9\], wiki: \[0.5, 0.6\]"):
        design(NAMES, NATURAL, options)


def test_design_with_bounds_on_no_domain_is_refused():
    with pytest.raises(BoundsError, match="'zh_\\*' names no domain"):
        design(NAMES, NATURAL, DesignOptions(bounds=(("zh_*", 0.1, 0.2),)))


def test_design_with_a_domain_without_tokens_is_refused_by_name():
    with pytest.raises(DesignError, match="wiki: 0"):
        design(NAMES, NATURAL | {"wiki": 0.0}, DesignOptions())


def test_optimum_runs_are_paired_with_natural_by_seed():
    assert [(run.name, run.seed) for run in optimum_runs({"a": 1.0}, 2, 5)] == [("optimum.s0", 5), ("optimum.s1", 6)]


def test_space_filling_takes_the_corner_that_is_farthest_from_what_was_taken():
    pool = np.array([[0.9, 0.1], [0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(space_filling(np.array([[1.0, 0.0]]), pool, 2), [[0.0, 1.0], [0.5, 0.5]])


def test_d_optimal_first_pick_is_the_best_of_all_single_additions():
    chance = np.random.default_rng(3)
    taken, pool = chance.dirichlet(np.ones(4), 3), chance.dirichlet(np.ones(4), 30)

    def log_determinant(mixtures):
        features = np.c_[np.ones(len(mixtures)), np.sqrt(mixtures)]
        return np.linalg.slogdet(features.T @ features + 1e-2 * np.eye(5))[1]

    best = max(range(30), key=lambda i: log_determinant(np.vstack([taken, pool[i : i + 1]])))
    np.testing.assert_array_equal(d_optimal(taken, pool, 1)[0], pool[best])
