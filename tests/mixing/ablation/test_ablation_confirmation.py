import numpy as np
import pytest
from scipy import stats

from mixing.ablation.confirmation import (
    compare,
    confirmation_runs,
    paired,
    proposed_weights,
    reference_weights,
    rows_as_csv,
    settled,
)
from mixing.ablation.runs import table_of
from mixing.ablation.words import KEPT_NATURAL

NATURAL = {"a": 0.7, "b": 0.3}
PROPOSED = {"a": 0.4, "b": 0.6}


def confirmed_table(losses_of, seeds=3, baselines=(("even", {"a": 0.5, "b": 0.5}),), diverged=()):
    """Runs of a confirmation whose losses are `losses_of(weights, seed)`."""
    runs = confirmation_runs(NATURAL, PROPOSED, baselines, seeds, 7)
    rows = [
        {
            "name": run.name,
            "weights": run.weights,
            "seed": run.seed,
            "held_out": [{"step": 1, "tokens": 10, "losses": losses_of(run.weights, run.seed), "bits_per_byte": {}}],
            "diverged_at": 1 if run.name in diverged else None,
            "num_parameters": 1000,
            "num_tokens": 10,
        }
        for run in runs
    ]
    return table_of(rows, {run.name: run.kind for run in runs})


def test_confirmation_runs_are_natural_first_on_the_same_seeds():
    runs = confirmation_runs(NATURAL, PROPOSED, [("even", {"a": 0.5, "b": 0.5})], 2, 7)
    assert [(run.name, run.seed) for run in runs] == [
        ("confirm.natural.s0", 107),
        ("confirm.natural.s1", 108),
        ("confirm.proposed.s0", 107),
        ("confirm.proposed.s1", 108),
        ("confirm.baseline.even.s0", 107),
        ("confirm.baseline.even.s1", 108),
    ]
    assert runs[2].weights == PROPOSED


def test_paired_interval_is_scipys_paired_t():
    first, second = np.random.default_rng(0).normal(2.0, 0.1, (2, 5))
    found = paired(first - second)
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert paired(np.array([0.1])).high is None


def test_confirmation_beyond_the_noise_of_pairs_chooses_the_proposed_weights():
    # Seeds move both arms by a tenth; inside a pair the difference is 2 % with hardly any noise.
    def losses(weights, seed):
        better = 0.98 if weights == PROPOSED else 1.0
        return {"a": 3 * better * (1 + 0.1 * (seed - 108)) * (1 + 1e-4 * (seed % 3)), "b": 2.0 + 0.1 * (seed - 108)}

    found = compare(confirmed_table(losses), {}, NATURAL)
    assert found["verdict"] == "confirmed"
    tested = next(arm for arm in found["arms"] if arm["name"] == "proposed")
    assert tested["domains"]["a"]["difference"] == pytest.approx(np.log(0.98), abs=1e-4)
    assert tested["domains"]["b"]["difference"] == pytest.approx(0)
    assert tested["objective"]["difference"] == pytest.approx(np.log(0.98) / 2, abs=1e-4)
    assert tested["objective"]["low"] < np.log(0.98) / 2 < tested["objective"]["high"] < 0
    assert found["against_baselines"]["baseline.even"]["difference"] == pytest.approx(np.log(0.98) / 2, abs=1e-4)
    kept = f"{KEPT_NATURAL}: the fit expects of the best mixture -0.10%."
    shy = {"chosen": NATURAL, "optimum": PROPOSED, "natural": NATURAL, "reason": "natural", "notes": [kept]}
    trusted = settled(shy, found)  # the surrogate did not dare; its optimum was tried all the same and won
    assert trusted["chosen"] == PROPOSED
    assert trusted["notes"][-1].startswith("By the proxies alone nothing beats natural weights beyond noise: the fit")
    analysis = {"chosen": PROPOSED, "natural": NATURAL, "home": NATURAL, "reason": "surrogate", "notes": ["old"]}
    assert settled(analysis, found)["chosen"] == PROPOSED
    assert settled(analysis, found)["reason"] == "confirmed"
    assert rows_as_csv(found)[1][:2] == ["proposed", "objective"]


@pytest.mark.parametrize(("change", "verdict"), [(1.02, "worse"), (1.0, "open")])
def test_confirmation_that_does_not_hold_keeps_natural_weights(change, verdict):
    chance = np.random.default_rng(1)

    def losses(weights, seed):
        factor = change if weights == PROPOSED else 1.0
        return {name: 3 * factor + 1e-3 * chance.standard_normal() for name in NATURAL}

    found = compare(confirmed_table(losses), {}, NATURAL)
    analysis = {"chosen": PROPOSED, "natural": NATURAL, "reason": "surrogate", "notes": []}
    assert found["verdict"] == verdict
    assert settled(analysis, found)["chosen"] == NATURAL
    assert settled(analysis, found)["proposed"] == {"weights": PROPOSED, "reason": "surrogate"}


def test_sentences_tell_the_change_of_the_loss_and_not_of_its_logarithm():
    chance = np.random.default_rng(2)

    def losses(weights, seed):
        factor = 2.0 if weights == PROPOSED else 1.0
        return dict.fromkeys(NATURAL, 3 * factor * (1 + 1e-6 * chance.standard_normal()))

    notes = compare(confirmed_table(losses), {}, NATURAL)["notes"]
    assert "+100.00% against natural ones (95% interval +100.00% to +100.00%)" in notes[0]
    assert notes[-1] == "Domains that changed beyond noise: a +100.00%, b +100.00%."


def test_objective_on_what_a_longer_context_does_not_measure_is_that_of_the_rest():
    chance = np.random.default_rng(3)

    def losses(weights, seed):
        factor = 0.98 if weights == PROPOSED else 1.0
        return {name: 3 * factor * (1 + 1e-4 * chance.standard_normal()) for name in ("a", "b")}

    table = confirmed_table(losses)
    found = compare(table, {"a": 0.25, "b": 0.25, "c": 0.5}, NATURAL)
    assert found["verdict"] == "confirmed"
    assert found["objective"]["shares"] == {"a": 0.5, "b": 0.5}
    assert found["notes"][0].startswith("Confirmation: c of the objective has no held-out sequence")
    nothing = compare(table, {"c": 1.0}, NATURAL)
    assert nothing["verdict"] == "open"
    assert nothing["notes"] == ["Nothing of the objective was measured (c): nothing can be compared."]
    assert settled({"chosen": PROPOSED, "natural": NATURAL, "reason": "surrogate", "notes": []}, nothing)[
        "chosen"
    ] == NATURAL  # fmt: skip


def test_forbidden_natural_weights_are_compared_and_kept_as_what_is_nearest_to_them():
    home = {"a": 0.5, "b": 0.5}
    analysis = {"chosen": PROPOSED, "natural": NATURAL, "home": home, "reason": "surrogate", "notes": []}
    assert reference_weights(analysis) == home
    assert reference_weights({**analysis, "home": {"a": 0.7 + 1e-12, "b": 0.3 - 1e-12}}) == NATURAL
    runs = confirmation_runs(reference_weights(analysis), proposed_weights(analysis), [], 1, 7)
    assert [run.weights for run in runs] == [home, PROPOSED]
    assert settled(analysis, {"verdict": "open", "notes": []})["chosen"] == home


def test_confirmation_of_one_seed_claims_nothing():
    found = compare(confirmed_table(lambda weights, seed: {"a": 3 - weights["b"]}, seeds=1), {}, NATURAL)
    assert found["verdict"] == "open"
    assert found["arms"][1]["objective"]["high"] is None


def test_confirmation_without_a_diverged_run_compares_the_pairs_that_are_left():
    table = confirmed_table(lambda weights, seed: {"a": 3 - weights["b"]}, diverged=("confirm.proposed.s1",))
    tested = next(arm for arm in compare(table, {}, NATURAL)["arms"] if arm["name"] == "proposed")
    assert tested["seeds"] == [107, 109]
    assert tested["objective"]["pairs"] == 2


def test_confirmation_without_natural_runs_stays_open():
    names = tuple(f"confirm.natural.s{number}" for number in range(3))
    assert compare(confirmed_table(lambda w, s: {"a": 3.0}, diverged=names), {}, NATURAL)["verdict"] == "open"


def test_proposed_weights_are_the_optimum_where_natural_ones_were_kept():
    analysis = {"chosen": NATURAL, "natural": NATURAL, "home": NATURAL, "optimum": PROPOSED}
    assert proposed_weights(analysis) == PROPOSED
    assert proposed_weights({**analysis, "optimum": NATURAL}) is None
    assert proposed_weights({**analysis, "chosen": {"a": 0.1, "b": 0.9}}) == {"a": 0.1, "b": 0.9}


def test_confirmation_trains_other_orders_of_natural_weights_on_its_own_seeds():
    orders = [("uniform", (), "asc"), ("blocked", ("a", "*"), "asc")]
    runs = confirmation_runs(NATURAL, PROPOSED, [], 2, 7, orders)
    added = [run for run in runs if run.kind == "order"]
    assert [(run.name, run.seed) for run in added] == [
        ("confirm.order.blocked_a_all.s0", 107), ("confirm.order.blocked_a_all.s1", 108),
    ]  # fmt: skip
    assert added[0].order == orders[1]
    assert added[0].weights == NATURAL
