import numpy as np
import pytest

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.repeats import PUBLISHED_HALF_LIFE, Repeats, identification, repeats_of


def test_effective_tokens_are_weights_until_something_repeats():
    repeats = Repeats(np.array([100.0, 1000.0]), 1000)
    seen = repeats.seen(np.array([[0.1, 0.9], [0.05, 0.95]]))
    np.testing.assert_allclose(seen, [[0.1, 0.9], [0.05, 0.95]], atol=1e-15)


def test_effective_tokens_of_four_passes_are_the_published_law():
    # U = 100, D = 400 of it: 100 * (1 + 15.387756 * (1 - exp(-3 / 15.387756))) = 372.5 tokens of 1000.
    seen = Repeats(np.array([100.0, 1000.0]), 1000).seen(np.array([[0.4, 0.6]]))
    assert seen[0, 0] == pytest.approx(0.1 * (1 + 15.387756 * (1 - np.exp(-3 / 15.387756))))
    assert seen[0, 0] == pytest.approx(0.3725, abs=1e-3)
    assert np.array_equal(Repeats(np.array([1.0]), 9, float("inf")).seen(np.array([[1.0]])), [[1.0]])


def test_repeats_of_unknown_supply_are_none():
    assert repeats_of(["a"], None, 10) is None
    assert repeats_of(["a"], {"a": 5}, 0) is None


def test_identification_of_a_flat_profile_says_that_nothing_can_be_told():
    flat = identification({2.0: 0.011, PUBLISHED_HALF_LIFE: 0.01, float("inf"): 0.0105}, 0.002)
    assert "cannot tell" in flat
    steep = identification({2.0: 0.05, PUBLISHED_HALF_LIFE: 0.01, float("inf"): 0.0105}, 0.002)
    assert "Within a standard error of the best: 15.3878, inf" in steep


def test_analysis_with_effective_tokens_follows_losses_that_only_they_explain(make_table, natural):
    """Losses that depend on effective tokens alone are predicted better by a law that sees them."""
    supply, budget = {name: 20.0 if name == "code" else 4000.0 for name in natural}, 4000
    repeats = Repeats(np.array([supply[name] for name in sorted(natural)]), budget)

    def losses(weights):
        seen = repeats.seen(np.array([[weights.get(name, 0.0) for name in sorted(natural)]]))[0]
        return {name: 2 + np.exp(0.5 - 2 * np.sqrt(part)) for name, part in zip(sorted(natural), seen, strict=True)}

    table = make_table(losses, 1e-4, dirichlet=24, seed=3)
    options = {"natural": natural, "objective": {}, "supply": supply, "max_epochs": dict.fromkeys(natural, 400.0)}
    names = ("exponential_sqrt",)
    errors = {}
    for effective in (False, True):
        found = analyse(
            table,
            AnalysisOptions(
                **options, budget_tokens=budget, surrogates=names, bootstraps=20, effective_tokens=effective
            ),
        )
        errors[effective] = found["surrogates"]["exponential_sqrt"]["mae"]["code"]
    assert errors[True] < 0.8 * errors[False]
    assert any("half-life" in note for note in found["notes"])
