"""What training will cost, against what a plan of the same recipe and the shapes themselves say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.pretraining import training_cost
from recipes.pretraining.training_cost import num_steps, training_forecast
from recipes.run import Run
from recipes.schema.recipe import load_recipe

pytest.importorskip("torch")


def slow_steps(batches, tokens):
    """One train step after another."""
    place = steps = 0
    while place < tokens:
        size = next(size for start, size in reversed(batches) if start <= place)
        ends = [start for start, _ in batches if start > place]
        place = min(place + size, *ends) if ends else place + size
        steps += 1
    return steps


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 90)), max_size=3, unique_by=lambda line: line[0]),
    st.integers(1, 90),
    st.integers(1, 800),
)
def test_num_steps_equal_steps_taken_one_by_one(later, first, tokens):
    batches = [(0, first), *sorted(later)]
    assert num_steps(batches, tokens) == slow_steps(batches, tokens)


def test_training_forecast_of_the_quickstart(tmp_path, monkeypatch):
    monkeypatch.setattr(training_cost, "free_bytes", lambda: 8 << 30)
    monkeypatch.setattr(training_cost, "_seconds", lambda *_: (12.0, "by heart"))
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    options = (f"execution.workdir={tmp_path}", "execution.training.devices=2", "checkpoints.async=true")
    with Run.open(load_recipe(recipe, options), silent=True) as run:
        found = training_forecast(run)
        assert found is not None
        # 16 sequences of 256 tokens a train step; two processes share them.
        assert (found.tokens, found.steps, found.share, found.processes) == (400_000, 98, 8, 2)
        assert found.checkpoint_bytes == 12 * found.parameters
        assert found.micro_batch == 8
        assert found.fits
        assert 0.5e9 < found.process_bytes < 1.5e9


def test_training_forecast_of_a_recipe_without_training_is_none(tmp_path):
    (tmp_path / "r.yaml").write_text("sources:\n  a: {path: a.jsonl, language: de}\nexecution: {workdir: work}\n")
    with Run.open(load_recipe(tmp_path / "r.yaml"), silent=True) as run:
        assert training_forecast(run) is None
