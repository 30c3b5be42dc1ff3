"""What makes a training's checkpoints its own: where a longer run may go on from a shorter one's."""

from types import SimpleNamespace

import pytest

from mixing.plan import DomainSupply, make_plan
from mixing.schedule import Amount, BatchLine, Phase
from recipes.pretraining.amended import course_of
from recipes.pretraining.shapes import shape_of
from recipes.pretraining.train import _checkpoints, _prefix
from training.config import Checkpoints, Model, Training
from training.learning_rate import learning_rate_at
from training.resume import cut_prefix, first_difference
from training.spec import values_at

RATE = {"peak": 1e-3, "warmup": 0, "shape": "wsd", "decay": "100000 tokens"}
LONGER_DECAY = ({"at": "400000 tokens", "set": {"learning_rate.decay": "200000 tokens"}, "why": "w"},)


def trained(contexts, tokens, amendments=()):
    """(course, prefix, kept checkpoints' positions) of two phases of these contexts, the first of 320,000 tokens."""
    model = Model.model_validate({"preset": "llama_tiny", "context": 16})
    values = model.training.model_dump(mode="json") | {"batch": "64 sequences", "learning_rate": RATE}
    phases = [
        Phase(name, Amount(length), {"a": 1}, context)
        for name, length, context in zip("pq", (320_000, tokens), contexts, strict=True)
    ]
    plan = make_plan([DomainSupply("a", 10_000_000)], phases, [BatchLine(0, 1024)], seed=1)
    recipe = SimpleNamespace(
        model=model,
        training=Training.model_validate(values | {"amendments": list(amendments)}),
        checkpoints=Checkpoints(),
        seed=0,
        sequences=SimpleNamespace(document_masks=False, stretch=SimpleNamespace(number=0)),
    )
    course = course_of(recipe, plan)
    run, domains = SimpleNamespace(recipe=recipe, sort_values=None), SimpleNamespace(folder=SimpleNamespace(key="k"))
    prefix = _prefix(run, SimpleNamespace(domains=domains), plan, shape_of(model, 100), course)
    return course, prefix, _checkpoints(recipe, plan, course).at


def rate_of(course, step):
    """The learning rate of a train step."""
    span = next(span for span in reversed(course.spans) if span.first_step <= step)
    spec = SimpleNamespace(learning_rate=course.rates[0][1], optimizer=None, changes=course.changes)
    end = span.first_token + (step + 1 - span.first_step) * span.sequences * span.context
    return learning_rate_at(values_at(spec, step)[0], end)


@pytest.mark.parametrize("amendments", [(), LONGER_DECAY], ids=["as written", "amended decay"])
@pytest.mark.parametrize("contexts", [(16, 16), (4, 16), (16, 64)])
def test_longer_run_goes_on_from_a_shorter_one_until_their_rates_part(contexts, amendments):
    """Asked of every train step: a checkpoint is the longer run's own exactly where no rate before it differs."""
    short, prefix, kept = trained(contexts, 320_000, amendments)
    long, longer, _ = trained(contexts, 640_000, amendments)
    owned, agree = [], []
    for step in range(1, short.num_steps):
        run = next(run for run in short.runs if run.step <= step - 1 < run.step + run.num_steps)
        position = run.start + (step - run.step) * run.sequences
        # The end of a phase cuts its last window too, which is another matter.
        cuts = [cut_prefix({**one, "order": 0}, position) for one in (prefix, longer)]
        owned.append(first_difference(*cuts) is None)
        agree.append(rate_of(short, step - 1) == rate_of(long, step - 1))
    last = max(step for step, same in enumerate(agree, start=1) if same)
    assert owned == [step <= last for step in range(1, short.num_steps)] == agree
    assert last in kept
