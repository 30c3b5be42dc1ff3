"""What the one seed of all drawn mixtures may add: no claim from a seed's own liking for a domain."""

from dataclasses import replace

import numpy as np
import pytest

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.design import DesignOptions, design
from mixing.ablation.runs import table_of
from mixing.ablation.seeds import SeedEffect, seed_effect
from mixing.ablation.verdict import Noise, Spare, surrogate_gain

LAWS = ("exponential_sqrt", "ridge_sqrt", "linear")


def test_seed_effect_is_nothing_between_equal_mixtures_and_twice_the_noise_between_corners():
    effect = SeedEffect(0.01, 2, 1.0, known=True)
    corner, other = np.eye(2)
    assert effect.variance(corner[None], corner) == pytest.approx(0.0)
    assert effect.variance(corner[None], other) == pytest.approx(2 * 0.01**2)


def test_seed_effect_drawn_has_the_variance_it_says():
    effect = SeedEffect(0.02, 2, 0.5, known=True)
    mixtures = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    drawn = effect.drawn(mixtures, 40_000, 0)
    assert drawn.std(0) == pytest.approx(0.02 * 0.5**0.5, rel=0.02)
    assert (drawn[:, 0] - drawn[:, 1]).var() == pytest.approx(effect.variance(mixtures[:1], mixtures[1])[0], rel=0.05)


def test_seed_effect_of_runs_on_four_seeds_is_a_quarter(make_table):
    table = make_table(one_domain=4, repeats=3)
    at_natural = np.array([kind == "natural" for kind in table.kinds])
    assert seed_effect(table, at_natural, 0.01, 2, None).shared == pytest.approx(0.25)


def test_seed_effect_without_repeats_is_the_held_out_error(make_table):
    table = make_table(dirichlet=4, repeats=1)
    effect = seed_effect(table, np.zeros(table.num_runs, dtype=bool), None, 0, 0.03)
    assert (effect.sd, effect.known) == (0.03, False)


def test_surrogate_gain_within_what_seeds_may_add_does_not_beat():
    gains, noise = np.full(100, -0.03), Noise(0.02, 2)
    assert surrogate_gain(-0.03, gains, 0.0, 0.0, noise, Spare(30, 1.0)).beats
    assert not surrogate_gain(-0.03, gains, 0.0, 0.0, noise, Spare(30, 1.0), 0.02**2).beats


def _study(seed, losses_of, natural):
    """A swarm on which each seed likes some domains: no mixture is better on the mean of all seeds."""
    runs = design(sorted(natural), natural, DesignOptions(dirichlet=12, repeats=3, seed=seed))
    rows = []
    for run in runs:
        taste = 0.02 * np.random.default_rng([seed, run.seed, 7]).standard_normal((4, 4))
        noise = 0.005 * np.random.default_rng([seed, *run.name.encode()]).standard_normal(4)
        added = taste @ np.sqrt([run.weights[name] for name in sorted(natural)]) + noise
        losses = {name: loss + more for (name, loss), more in zip(losses_of(run.weights).items(), added, strict=True)}
        measured = [{"step": 1, "tokens": 9, "losses": losses, "bits_per_byte": {}}]
        rows.append({"name": run.name, "weights": run.weights, "seed": run.seed, "held_out": measured})
    return table_of(rows, {run.name: run.kind for run in runs})


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_analyse_keeps_natural_weights_where_only_a_seed_likes_others(flat, natural, seed):
    options = AnalysisOptions(natural=natural, objective={}, bootstraps=40, surrogates=LAWS)
    found = analyse(_study(seed, flat, natural), options)
    assert found["reason"] == "natural"


def test_analyse_of_an_unconfirmed_proposal_says_so(make_table, natural):
    options = AnalysisOptions(natural=natural, objective={}, bootstraps=40, surrogates=LAWS)
    found = analyse(make_table(dirichlet=24), options)
    assert found["reason"] == "surrogate"
    assert found["notes"][1].startswith("Not confirmed: what was drawn was trained on one seed")


def test_analyse_names_runs_that_lack_a_loss_and_lets_them_count_for_the_others(make_table, natural):
    table = make_table(dirichlet=12)
    losses = table.losses.copy()
    losses[-1, 0] = np.nan
    options = AnalysisOptions(natural=natural, objective={}, bootstraps=20, surrogates=("ridge_sqrt",))
    notes = analyse(replace(table, losses=losses), options)["notes"]
    assert any(f"lack the loss of some domain and count for the others: {table.names[-1]}." in note for note in notes)
