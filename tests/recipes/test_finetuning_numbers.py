"""The numbers of a fine-tuning: what its train steps are and how much each of them trains."""

import pytest

pytest.importorskip("torch", reason="training needs the `training` extra")

from recipes.finetuning.numbers import learning_rate_of_tuning, steps_of
from training.learning_rate import learning_rate_at
from training.tuning.config import Finetuning
from training.tuning.prepare import Prepared, PreparedSet

CONTEXT = 128


def rates(sequences, **wanted):
    """The learning rate of each train step of some sequences, four a step."""
    counts = PreparedSet("chat", sequences, {}, sequences, 0, 0, 1, 1, sequences, 0)
    prepared = Prepared([counts], CONTEXT, None, None, 0)
    asked = Finetuning(examples="chat.jsonl", batch="4 sequences", epochs=1, **wanted)
    course, (batch, steps) = learning_rate_of_tuning(asked, prepared), steps_of(asked, prepared)
    ends = [min(sequences, batch * (step + 1)) * CONTEXT for step in range(steps)]
    return [learning_rate_at(course, end) for end in ends]


@pytest.mark.parametrize("steps", [1, 2, 3, 16])
def test_rates_of_a_short_tuning_are_those_of_transformers(steps):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-5)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, steps)
    theirs = []
    for _ in range(steps):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates(4 * steps) == pytest.approx(theirs)


@pytest.mark.parametrize("sequences", [1, 3, 5, 402])
@pytest.mark.parametrize(
    "rate",
    [
        None,
        {"peak": 2e-5},
        {"peak": 2e-5, "shape": "linear", "warmup": "2 train steps"},
        {"peak": 2e-5, "shape": "wsd", "decay": "1 train step"},
    ],
)
def test_every_train_step_trains_and_none_above_the_peak(sequences, rate):
    found = rates(sequences, learning_rate=rate)
    assert all(0 < one <= 2e-5 for one in found)
    assert rate is not None or found[0] == 2e-5 or sequences == 402
    assert len(found) < 9 or found[-1] <= 1.01e-5


def test_final_rate_of_the_recipe_is_reached_in_the_last_train_step():
    assert rates(40, learning_rate={"peak": 2e-5, "final": 2e-6})[-1] == pytest.approx(2e-6)
