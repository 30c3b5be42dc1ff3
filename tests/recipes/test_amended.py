import dataclasses
from types import SimpleNamespace

import pytest

from mixing.journal import Skip, read_journal, step_positions
from mixing.plan import DomainSupply, make_plan
from mixing.schedule import Amount, BatchLine, Phase
from recipes.errors import RunError
from recipes.pretraining.amended import course_of, read_rollbacks, roll_back, tokens_back, write_journal
from recipes.pretraining.clock import position_at, token_at
from training.config import Model, Training, merged
from training.resume import cut_prefix, first_difference


@pytest.fixture
def plan():
    """100 train steps of 4 sequences of 16 tokens, then 20 of 2 sequences of 32."""
    domains = [DomainSupply("a", 100_000, 100, 400_000, 400_000)]
    phases = [
        Phase("main", Amount(6400, "tokens"), {"a": 1}, 16),
        Phase("long", Amount(1280, "tokens"), {"a": 1}, 32),
    ]
    return make_plan(domains, phases, [BatchLine(0, 64)], seed=1)


@pytest.fixture
def recipe():
    """A recipe's model and training with amendments."""

    def make(*amendments, **changed):
        model = Model.model_validate({"preset": "llama_tiny", "context": 16})
        values = model.training.model_dump(mode="json") | {"batch": "4 sequences", "amendments": list(amendments)}
        values |= changed
        return SimpleNamespace(model=model, training=Training.model_validate(merged({}, values)))

    return make


def trained(course):
    """Positions of all train steps."""
    return [step_positions(course.runs, step).tolist() for step in range(course.num_steps)]


def test_course_without_amendments_is_the_plan(plan, recipe):
    course = course_of(recipe(), plan)
    assert course.num_steps == plan.num_steps == 120
    assert [(s.first_step, s.first_position, s.first_token, s.sequences, s.context) for s in course.spans] == [
        (0, 0, 0, 4, 16),
        (100, 400, 6400, 2, 32),
    ]


def test_step_from_finds_the_step_of_a_position_or_the_next(plan, recipe):
    course = course_of(recipe({"at": "640 tokens", "skip_data": "320 tokens", "why": "w"}), plan)
    assert [course.step_from(position) for position in (0, 3, 4, 39, 41, 60, 400)] == [0, 0, 1, 9, 10, 10, 95]


def test_skipped_data_shortens_the_run_and_leaves_all_other_steps(plan, recipe):
    skip = {"at": "640 tokens", "skip_data": "320 tokens", "why": "bad text"}
    course = course_of(recipe(skip), plan)
    whole = trained(course_of(recipe(), plan))
    assert trained(course) == whole[:10] + whole[15:]
    assert course.journal.skips() == [Skip(40, 60)]
    # The clock of the text behind it is as planned.
    assert next(s for s in course.spans if s.first_position == 60).first_token == 960


@pytest.mark.parametrize(("position", "same"), [(36, True), (40, True), (44, False), (60, False), (64, False)])
def test_checkpoint_inside_skipped_text_is_another_runs(plan, recipe, position, same):
    """Positions 40 to 60 are passed over; one inside has no later span to differ by."""
    skip = {"at": "640 tokens", "skip_data": "320 tokens", "why": "bad text"}
    told = [
        cut_prefix({"from": [[0, "a"], *course.passed_over]}, position)
        for course in (course_of(recipe(), plan), course_of(recipe(skip), plan))
    ]
    assert (first_difference(*told) is None) is same


def test_set_values_hold_from_the_train_step_at_or_behind_the_place(plan, recipe):
    slower = {"at": "650 tokens", "set": {"learning_rate.peak": 1e-3, "optimizer.clip": 0.5}, "why": "spikes"}
    course = course_of(recipe({"at": "64 tokens", "skip_data": "64 tokens", "why": "w"}, slower), plan)
    (change,) = course.changes
    # 650 tokens lie in the step of positions 40 to 44; the one behind it is the tenth, as one was passed over.
    assert (change.first_step, change.learning_rate.peak, change.optimizer.clip) == (10, 1e-3, 0.5)
    assert course.changed == ((44, {"learning_rate.peak": 1e-3, "optimizer.clip": 0.5}),)


def test_set_batch_cuts_the_rest_anew(plan, recipe):
    course = course_of(recipe({"at": "640 tokens", "set": {"batch": "8 sequences"}, "why": "faster"}), plan)
    assert [len(step) for step in trained(course)[8:12]] == [4, 4, 8, 8]
    assert [position for step in trained(course) for position in step] == list(range(plan.num_positions))


def steps_of(course):
    """(first train step, first token, sequences, tokens of a step) of each stretch of equal steps."""
    return [(s.first_step, s.first_token, s.sequences, s.sequences * s.context) for s in course.spans]


def test_set_batch_keeps_its_tokens_in_phases_of_another_context(plan, recipe):
    course = course_of(recipe({"at": "640 tokens", "set": {"batch": "8 sequences"}, "why": "faster"}), plan)
    assert steps_of(course) == [(0, 0, 4, 64), (10, 640, 8, 128), (55, 6400, 4, 128)]


def test_set_batch_may_be_a_list_that_grows_by_tokens_of_the_run(plan, recipe):
    grows = [[0, "2 sequences"], ["60 sequences", "8 sequences"], ["7000 tokens", "256 tokens"]]
    course = course_of(recipe({"at": "640 tokens", "set": {"batch": grows}, "why": "w"}), plan)
    # The last whole step before 960 and 7,000 tokens; a step of 64 is what is left of its phase.
    assert steps_of(course) == [
        (0, 0, 4, 64),
        (10, 640, 2, 32),
        (20, 960, 8, 128),
        (62, 6336, 4, 64),
        (63, 6400, 4, 128),
        (67, 6912, 8, 256),
    ]


WSD = {"peak": 1e-3, "warmup": "10 train steps", "shape": "wsd", "decay": "20 train steps"}


def test_set_batch_leaves_the_learning_rate_and_what_sets_its_decay_counts_in_train_steps_from_then_on(plan, recipe):
    larger = {"at": "640 tokens", "set": {"batch": "8 sequences"}, "why": "w"}
    decay = {"at": "30 train steps", "set": {"learning_rate.decay": "5 train steps"}, "why": "w"}
    course = course_of(recipe(larger, decay, learning_rate=WSD), plan)
    told = [(start, rate.warmup_tokens, rate.decay_tokens) for start, rate in course.rates]
    # 30 train steps are 10 of 4 sequences and 20 of 8.
    assert told == [(0, 640, 1280), (40, 640, 1280), (40 + 20 * 8, 640, 5 * 128)]
    assert [change.first_step for change in course.changes] == [10, 30]


def test_amounts_in_train_steps_are_counted_along_a_batch_that_grows(recipe, tmp_path):
    phases = [Phase("main", Amount(64_000), {"a": 1}, 16)]
    plan = make_plan([DomainSupply("a", 1_000_000)], phases, [BatchLine(0, 64), BatchLine(6400, 512)], seed=1)
    wanted = [
        {"at": "150 train steps", "set": {"optimizer.clip": 0.5}, "why": "w"},
        {"at": "160 train steps", "skip_data": "3 train steps", "why": "w"},
    ]
    grows = [[0, "4 sequences"], ["6400 tokens", "32 sequences"]]
    values = recipe(*wanted, batch=grows, learning_rate={**WSD, "warmup": "101 train steps", "decay": "7 train steps"})
    course = course_of(values, plan)
    assert [change.first_step for change in course.changes] == [150]
    assert course.journal.skips() == [Skip(400 + 60 * 32, 400 + 63 * 32)]
    rate = course.rates[0][1]
    assert (rate.warmup_tokens, rate.decay_tokens) == (6400 + 512, 7 * 512)
    # Five steps back from the 103rd: three of 32 sequences and two of 4.
    back = tokens_back(plan, course, 103, Amount(5, "train steps"), 16)
    found = roll_back(tmp_path, plan, course, 103, back, "spike")
    assert (found.start, found.stop) == (400 - 2 * 4, 400 + 3 * 32)


def test_amendment_behind_the_end_is_refused(plan, recipe):
    with pytest.raises(RunError, match=r"amendments\[0\]\.at: 1B lies behind"):
        course_of(recipe({"at": "1B", "set": {"optimizer.clip": 1.0}, "why": "w"}), plan)
    # After the batch has grown, 40 train steps are 640 + 30 * 128 tokens.
    grown = {"at": "640 tokens", "set": {"batch": "8 sequences"}, "why": "w"}
    skips = [{"at": at, "skip_data": "64 tokens", "why": "w"} for at in ("40 train steps", "4000 tokens")]
    with pytest.raises(RunError, match=r"amendments\[2\]\.at: 4K lies before the amendment above"):
        course_of(recipe(grown, *skips), plan)
    with pytest.raises(RunError, match="nothing of the run is left"):
        course_of(recipe({"at": "640 tokens", "skip_data": "1B", "why": "w"}), plan)


@pytest.mark.parametrize("position", [0, 1, 399, 400, 401, 440])
def test_positions_and_the_token_clock_are_inverse(plan, position):
    assert position_at(plan, token_at(plan, position)) == position


def test_roll_back_passes_over_what_led_to_the_spike_and_is_remembered(plan, recipe, tmp_path):
    course = course_of(recipe(), plan)
    found = roll_back(tmp_path, plan, course, 30, back_tokens=5 * 64, why="step 30: loss 9")
    assert (found.start, found.stop) == (100, 120)
    after = course_of(recipe(), plan, read_rollbacks(tmp_path))
    whole = trained(course)
    assert trained(after) == whole[:25] + whole[30:]
    # A second spike, nearer than it goes back: the run goes back to what was trained before the text passed over.
    roll_back(tmp_path, plan, after, 27, back_tokens=4 * 64, why="step 27: loss 9")
    twice = course_of(recipe(), plan, read_rollbacks(tmp_path))
    assert trained(twice)[:25] == whole[:25]
    assert not {position for step in trained(twice) for position in step} & set(range(100, 128))
    assert trained(course_of(recipe(), plan, [])) == whole


def test_rollback_over_skipped_text_skips_it_once(plan, recipe, tmp_path):
    skip = {"at": "640 tokens", "skip_data": "320 tokens", "why": "bad text"}
    slower = {"at": "1280 tokens", "set": {"learning_rate.peak": 1e-3}, "why": "w"}
    course = course_of(recipe(skip, slower), plan)
    # Behind the skip (positions 40 to 60) five steps are trained, then it goes back to position 32.
    found = roll_back(tmp_path, plan, course, 15, 48 * 16, "spike")
    assert (found.start, found.stop) == (32, 80)
    after = course_of(recipe(skip, slower), plan, read_rollbacks(tmp_path))
    assert after.journal.skips() == [Skip(32, 80)]
    assert trained(after) == trained(course)[:8] + trained(course)[15:]
    # What is set where text is passed over holds behind it; what lies behind the rest too is left out.
    assert [change.first_step for change in after.changes] == [8]
    whole = [dataclasses.replace(found, stop=plan.num_positions)]
    assert course_of(recipe(skip, slower), plan, whole).changes == ()


def test_journal_is_appended_to_only_when_it_says_something_new(plan, recipe, tmp_path):
    write_journal(tmp_path, course_of(recipe(), plan).journal)
    before = (tmp_path / "plans.jsonl").read_text()
    write_journal(tmp_path, course_of(recipe(), plan).journal)
    assert (tmp_path / "plans.jsonl").read_text() == before
    amended = course_of(recipe({"at": "640 tokens", "skip_data": "64 tokens", "why": "w"}), plan).journal
    write_journal(tmp_path, amended)
    assert (tmp_path / "plans.jsonl").read_text().startswith(before)
    assert read_journal(tmp_path / "plans.jsonl").skips() == amended.skips() == [Skip(40, 44)]
    assert dataclasses.is_dataclass(amended)
