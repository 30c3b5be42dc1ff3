"""The whole analysis on swarms whose truth is known, and on everything that can be wrong with a table."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.design import DesignOptions, design
from mixing.ablation.evidence import seed_noise
from mixing.ablation.objective import ObjectiveError, percent
from mixing.ablation.preparation import TableError
from mixing.ablation.question import natural_rows, pose
from mixing.ablation.runs import table_of
from mixing.ablation.sequential import next_runs
from mixing.ablation.verdict import Gain
from mixing.ablation.words import verdict

FEW = 60  # bootstraps


@pytest.fixture(scope="module")
def options(natural):
    return AnalysisOptions(natural=natural, objective={}, bootstraps=FEW, surrogates=("ridge_sqrt", "exponential_sqrt"))


@pytest.fixture(scope="module")
def swarm(make_table):
    return make_table(dirichlet=24, leave_one_out=1)


@pytest.fixture(scope="module")
def analysis(swarm, options):
    return analyse(swarm, options)


def test_analyse_finds_weights_that_are_truly_better_than_natural(analysis, truth, natural):
    assert analysis["reason"] == "surrogate"
    assert sum(analysis["chosen"].values()) == pytest.approx(1)
    low, high = analysis["predicted"]["interval"]
    assert low <= truth(analysis["chosen"]) <= high < 0


def test_analyse_comes_close_to_the_true_optimum(analysis, truth):
    grid = [
        dict(zip(("books", "code", "forum", "law"), (a, b, c, 1 - a - b - c), strict=True))
        for a in np.arange(0.05, 0.6, 0.05)
        for b in np.arange(0.05, 0.6, 0.05)
        for c in np.arange(0.05, 0.6, 0.05)
        if a + b + c < 1
    ]
    assert truth(analysis["chosen"]) <= min(map(truth, grid)) + 0.001


@pytest.mark.parametrize(
    ("moved", "note"),
    [
        (0.0, None),
        (0.003, "Runs whose weights differ from natural ones in 0.30% of the tokens count as natural."),
        (0.1, "Runs called natural have other weights than those that are natural here (10.0% of the tokens lie elsew"),
    ],
)
def test_runs_at_weights_that_were_natural_before_texts_changed(swarm, natural, moved, note):
    options = AnalysisOptions({**natural, "forum": natural["forum"] - moved, "law": natural["law"] + moved}, {})
    question = pose(swarm, options)
    found = natural_rows(question.fitted, question.natural)
    named = [name for name, at in zip(question.fitted.names, found, strict=True) if at]
    assert named == ([] if moved > 0.005 else [name for name in swarm.names if name.startswith("natural.")])
    if named:
        rows = [swarm.names.index(name) for name in named]
        np.testing.assert_allclose(question.objective.reference, swarm.losses[rows].mean(0))
    said = [one for one in question.notes if "natural" in one.lower()]
    assert len(said) == (note is not None)
    assert all(one.startswith(note) for one in said)


def test_table_without_natural_runs_says_where_its_reference_comes_from(make_table, natural):
    table = make_table(dirichlet=12)
    table = table.rows(np.array([kind == "dirichlet" for kind in table.kinds]))
    notes = pose(table, AnalysisOptions(natural, {})).notes
    assert "No run was trained at natural weights: losses at natural weights are a surrogate's prediction." in notes


def test_luck_of_a_noisy_corner_is_no_best_run(make_table, natural):
    table = make_table(lambda weights: dict.fromkeys(natural, 3.0), noise=0.002, dirichlet=6)
    lucky = np.where([name == "one.law" for name in table.names], 0.97, 1.0)
    table = replace(table, losses=table.losses * lucky[:, None])
    found = analyse(table, AnalysisOptions(natural, {}, bootstraps=20, surrogates=("constant",)))
    assert found["reason"] == "natural"


def test_best_run_is_judged_by_the_natural_runs_that_measured_everything(make_table, natural):
    table = make_table(lambda weights: dict.fromkeys(natural, 3.0), noise=0.002, dirichlet=6, repeats=4)
    good = np.where([name == "dirichlet.003" for name in table.names], 0.9, 1.0)
    losses = table.losses * good[:, None]
    losses[[table.names.index("natural.s2"), table.names.index("natural.s3")], 0] = np.nan
    found = analyse(
        replace(table, losses=losses), AnalysisOptions(natural, {}, bootstraps=20, surrogates=("constant",))
    )
    assert found["reason"] == "best_run"
    assert found["objective_noise"]["degrees"] == 1  # two of four measured the objective


def test_analyse_is_json_without_nan_and_deterministic(analysis, swarm, options):
    again = json.dumps(analyse(swarm, options), allow_nan=False, sort_keys=True)
    assert json.dumps(analysis, allow_nan=False, sort_keys=True) == again


def test_analyse_has_every_documented_key(analysis):
    assert set(analysis) >= {
        "chosen", "natural", "optimum", "reason", "objective", "surrogate", "surrogates", "nested", "matrix", "noise",
        "predicted", "weights_interval", "tied", "front", "regret", "more_runs", "runs", "observed_vs_predicted",
        "learnability", "curves", "arms", "natural_losses", "objective_noise", "matrix_bits_per_byte", "notes",
    }  # fmt: skip


def test_analyse_matrix_holds_the_loss_of_each_proxy_of_one_domain(analysis, swarm):
    row = swarm.names.index("one.code")
    assert analysis["matrix"]["code"]["law"] == swarm.losses[row, swarm.targets.index("law")]
    assert set(analysis["matrix"]) == {"books", "code", "forum", "law"}


def test_analyse_intervals_hold_the_optimum_of_each_weight(analysis):
    for name, (low, high) in analysis["weights_interval"].items():
        assert low - 0.01 <= analysis["optimum"][name] <= high + 0.01
        assert analysis["tied"]["ranges"][name][0] <= analysis["optimum"][name] <= analysis["tied"]["ranges"][name][1]


def test_analyse_regret_of_a_surrogate_judged_by_itself_is_least(analysis):
    for judge in analysis["regret"]:
        own = analysis["regret"][judge][judge]
        assert own <= min(analysis["regret"][name][judge] for name in analysis["regret"]) + 1e-3


def test_analyse_without_any_effect_of_the_mixture_keeps_natural_weights(make_table, options, flat, natural):
    for noise in (0.0, 0.01):
        found = analyse(make_table(flat, noise, dirichlet=16), options)
        assert found["reason"] == "natural"
        assert found["chosen"] == pytest.approx(natural)
        assert found["notes"][0].startswith("Nothing beats natural weights")
        assert f"the fit expects of the best mixture {percent(found['predicted']['gain'])}" in found["notes"][0]


@pytest.mark.parametrize(
    ("corrected", "told"),
    [(-0.02, "-1.98% (90% interval"), (0.0, "-1.98%, or +0.00% once the luck of having picked it is taken off (90%")],
)
def test_natural_weights_that_stay_are_told_what_the_fit_expects_and_what_is_left_of_it(swarm, corrected, told):
    found = SimpleNamespace(
        gain=Gain(expected=-0.02, corrected=corrected, error=0.05, low=-0.1, high=0.1, beats=False),
        reason="natural",
        question=SimpleNamespace(fitted=swarm),
        noise={"objective": 0.01, "degrees": 2},
        portfolio=SimpleNamespace(chosen="linear"),
    )
    assert f"the fit expects of the best mixture {told}" in verdict(found)[0]


def test_analyse_respects_supply_and_bounds(swarm, options, natural):
    capped = replace(
        options,
        supply={name: 100 * weight for name, weight in natural.items()},
        max_epochs=dict.fromkeys(natural, 2.0) | {"forum": float("inf")},
        budget_tokens=100,
        bounds=(("law", 0.3, 0.4),),
    )
    optimum = analyse(swarm, capped)["optimum"]
    assert optimum["books"] <= 0.2 + 1e-5
    assert optimum["code"] <= 0.1 + 1e-5
    assert 0.3 - 1e-5 <= optimum["law"] <= 0.4 + 1e-5


def test_analyse_of_a_small_design_says_what_it_could_not_fit(make_table, natural):
    found = analyse(make_table(dirichlet=2, repeats=1), AnalysisOptions(natural=natural, objective={}, bootstraps=FEW))
    assert set(found["surrogates"]) == {"constant", "ridge_sqrt", "gaussian_process", "combination"}
    assert any("7 different mixtures for 4 domains" in note for note in found["notes"])
    assert any("seed noise is unknown" in note for note in found["notes"])


def test_analyse_of_natural_runs_alone_keeps_natural_weights(make_table, options, natural):
    found = analyse(make_table(one_domain=0, repeats=3), options)
    assert found["reason"] == "natural"
    assert found["chosen"] == pytest.approx(natural)


def test_analyse_leaves_out_diverged_missing_and_copied_runs_and_names_them(swarm, options, analysis):
    spoiled = replace(
        swarm,
        names=(*swarm.names, "bad", "empty", "copy"),
        kinds=(*swarm.kinds, "dirichlet", "dirichlet", "dirichlet"),
        seeds=(*swarm.seeds, 0, 0, swarm.seeds[-1]),
        weights=np.vstack([swarm.weights, swarm.weights[-1:], swarm.weights[-1:], swarm.weights[-1:]]),
        losses=np.vstack([swarm.losses, np.full((1, 4), 99.0), np.full((1, 4), np.nan), swarm.losses[-1:]]),
        bits=np.vstack([swarm.bits, np.full((3, 4), np.nan)]),
        diverged=np.r_[swarm.diverged, True, False, False],
        curves=(*swarm.curves, {}, {}, {}),
    )
    found = analyse(spoiled, options)
    assert found["chosen"] == analysis["chosen"]
    notes = " ".join(found["notes"])
    for name in ("bad", "empty", "copy"):
        assert f": {name}." in notes


def test_analyse_with_a_domain_that_never_moved_holds_it_at_natural(make_rows, options, natural):
    runs = design(["books", "code", "forum"], {"books": 0.2, "code": 0.1, "forum": 0.7}, DesignOptions(dirichlet=20))
    scaled = [replace(run, weights={n: 0.75 * w for n, w in run.weights.items()} | {"law": 0.25}) for run in runs]
    found = analyse(table_of(make_rows(scaled), {run.name: run.kind for run in runs}), options)
    assert found["optimum"]["law"] == pytest.approx(0.25, abs=1e-5)
    assert any("No run changed the weight of law" in note for note in found["notes"])


def test_analyse_with_collinear_weights_says_which(make_rows, natural):
    names = ["books", "code", "forum"]
    runs = design(names, dict.fromkeys(names, 1 / 3), DesignOptions(one_domain=0, dirichlet=20))
    split = [
        replace(run, weights={**run.weights, "code": run.weights["code"] / 2, "law": run.weights["code"] / 2})
        for run in runs
    ]
    options = AnalysisOptions(
        natural={"books": 1 / 3, "code": 1 / 6, "forum": 1 / 3, "law": 1 / 6}, objective={}, bootstraps=FEW
    )
    found = analyse(table_of(make_rows(split)), options)
    assert any("code and law always moved together" in note for note in found["notes"])


def test_analyse_with_a_domain_that_is_only_measured_counts_it(swarm, options):
    wider = replace(
        swarm,
        targets=(*swarm.targets, "exam"),
        losses=np.c_[swarm.losses, 0.5 * swarm.losses[:, 1] + 1],
        bits=np.c_[swarm.bits, swarm.bits[:, 1]],
    )
    found = analyse(wider, replace(options, objective={"exam": 1.0}))
    assert found["objective"]["shares"] == {"exam": 1.0}
    assert found["optimum"]["code"] > 0.5  # what exam follows


def test_analyse_with_some_missing_losses_uses_the_rest(swarm, options, truth):
    losses = swarm.losses.copy()
    losses[10:14, 2] = np.nan
    found = analyse(replace(swarm, losses=losses), options)
    assert truth(found["chosen"]) < -0.005


def test_analyse_of_worst_lowers_the_worst_domain(swarm, options):
    found = analyse(swarm, replace(options, objective="worst"))
    assert found["objective"]["kind"] == "worst"
    assert found["predicted"]["at_optimum"] <= found["predicted"]["natural"]


def test_analyse_of_a_front_lists_mixtures_that_trade_off(swarm, options):
    front = analyse(swarm, replace(options, objective=("code", "law")))["front"]
    assert len(front) >= 3
    pairs = sorted((point["axes"]["code"], point["axes"]["law"]) for point in front)
    assert all(left[1] >= right[1] for left, right in itertools.pairwise(pairs))
    for name in ("code", "law"):  # its ends are what each domain alone would have
        alone = analyse(swarm, replace(options, objective={name: 1.0}))["predicted"]["at_optimum"]
        assert min(point["axes"][name] for point in front) == pytest.approx(alone, abs=3e-3)


def test_analyse_with_an_objective_that_nothing_measures_is_refused(swarm, options):
    with pytest.raises(ObjectiveError, match="'exam' names no domain"):
        analyse(swarm, replace(options, objective={"exam": 1.0}))


def test_analyse_of_runs_on_an_unknown_domain_is_refused(swarm, options):
    with pytest.raises(TableError, match="law, which has no natural weight"):
        analyse(swarm, replace(options, natural={"books": 0.2, "code": 0.2, "forum": 0.6}))


def test_analyse_of_runs_that_all_diverged_is_refused(swarm, options):
    with pytest.raises(TableError, match=r"0 runs .* are left"):
        analyse(replace(swarm, diverged=np.ones(swarm.num_runs, dtype=bool)), options)


def test_analyse_arms_are_paired_by_seed(make_table, natural, options):
    orders = (("blocked", ("law", "*"), "asc"),)
    table = make_table(
        one_domain=1, dirichlet=6, repeats=3, baselines=(("even", dict.fromkeys(natural, 0.25)),), orders=orders
    )
    arms = {arm["name"]: arm for arm in analyse(table, options)["arms"]}
    assert set(arms) == {"natural", "baseline.even", "order.blocked_law_all"}
    assert arms["natural"]["difference"] == pytest.approx(0)
    assert arms["baseline.even"]["difference"] < -5 * arms["baseline.even"]["error"]
    assert abs(arms["order.blocked_law_all"]["difference"]) < 0.005
    assert [arms[name]["pairs"] for name in ("natural", "baseline.even")] == [3, 3]
    diverged = np.array([name == "natural.s1" for name in table.names])
    even = next(a for a in analyse(replace(table, diverged=diverged), options)["arms"] if a["name"] == "baseline.even")
    assert (even["pairs"], len(even["seeds"])) == (2, 3)


def test_seed_noise_is_pooled_over_mixtures_and_leaves_corners_out(make_table):
    table = make_table(noise=0.02, one_domain=8, repeats=40)
    noise = seed_noise(table)
    assert noise["degrees"] == 39
    assert noise["losses"]["law"] == pytest.approx(0.02, rel=0.35)


def test_next_runs_place_different_mixtures_where_improvement_is_expected(make_table, options, truth):
    table = make_table(dirichlet=12)
    planned = next_runs(table, options, 3)
    assert [run.name for run in planned] == ["sequential.000", "sequential.001", "sequential.002"]
    placed = np.array([[run.weights[name] for name in table.domains] for run in planned])
    assert all(0.5 * np.abs(table.weights - weights).sum(1).min() > 0.01 for weights in placed)
    observed = [truth(dict(zip(table.domains, weights.tolist(), strict=True))) for weights in table.weights]
    assert min(truth(run.weights) for run in planned) < min(observed) + 1e-6
