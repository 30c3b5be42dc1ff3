"""Runs at the optimum that a study proposes, on the seeds of natural weights."""

import pytest

pytest.importorskip("torch", reason="the ablation's runs are proxies")

from mixing.ablation.analysis import AnalysisOptions
from mixing.ablation.design import DesignOptions, design
from recipes.ablation.placing import place_by_rows, runs_at_optimum

NATURAL = {"a": 0.7, "b": 0.3}


def rows_of(runs, gain):
    """Losses that fall with the weight of b, and a little noise by name."""
    rows = []
    for run in runs:
        noise = 1e-4 * (sum(run.name.encode()) % 7)
        losses = {"a": 3.0 - gain * run.weights["b"] ** 0.5 + noise, "b": 3.0 - noise}
        measured = [{"step": 1, "tokens": 9, "losses": losses, "bits_per_byte": {}}]
        rows.append({"name": run.name, "weights": run.weights, "seed": run.seed, "held_out": measured})
    return rows


def test_optimum_runs_are_where_the_losses_are_least_beside_natural_seed_by_seed():
    runs = design(["a", "b"], NATURAL, DesignOptions(dirichlet=12, repeats=3, seed=5))
    options = AnalysisOptions(NATURAL, {}, bounds=(("b", 0.0, 0.6),), bootstraps=20, surrogates=("ridge_sqrt",), seed=5)
    more = place_by_rows(runs_at_optimum, rows_of(runs, 0.8), {run.name: run.kind for run in runs}, options, 2)
    assert [(run.name, run.seed, run.kind) for run in more] == [
        ("optimum.s0", 5, "optimum"),
        ("optimum.s1", 6, "optimum"),
    ]
    assert more[0].weights["b"] == pytest.approx(0.6, abs=0.01)
