"""Which checkpoints an export averages."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from recipes.pretraining.export import longer_context, spread
from recipes.pretraining.train import step_of

STEPS = [20, 40, 50, 60, 62]


@pytest.mark.parametrize(
    ("last", "number", "every", "wanted"),
    [
        (62, 1, 20, [62]),
        (62, 3, 20, [20, 40, 62]),
        (62, 3, 1, [50, 60, 62]),
        (50, 2, 10, [40, 50]),
        (62, 9, 30, [20, 62]),
    ],
)
def test_spread_takes_the_last_and_others_far_enough_apart(last, number, every, wanted):
    folders = [Path(f"step-{step:08d}-0123456789") for step in STEPS]
    assert [step_of(path) for path in spread(folders, step_of, last, number, every)] == wanted


@pytest.mark.parametrize(("contexts", "longer"), [((64,), 0), ((16, 64), 0), ((64, 256, 128), 256)])
def test_longer_context_is_a_phases_where_the_model_has_less(contexts, longer):
    plan = SimpleNamespace(phases=[SimpleNamespace(context=context) for context in contexts])
    training = SimpleNamespace(plan=plan, spec=SimpleNamespace(shape=SimpleNamespace(context=64)))
    assert longer_context(SimpleNamespace(training=training)) == longer
