"""plans.jsonl: what is in force where, torn lines, and replaying train steps across edits and skips."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.journal import (
    BatchSize,
    Journal,
    JournalError,
    PlanLine,
    Skip,
    append_lines,
    lines_of,
    read_journal,
    replay,
    step_at,
    step_positions,
)
from mixing.plan import DomainSupply, make_plan
from mixing.schedule import Amount, BatchLine, Phase

STARTED = Journal((PlanLine(0, "one"), BatchSize(0, 4)))


def plan_of(*steps, batch=((0, 8),), contexts=None):
    phases = [
        Phase(f"p{place}", Amount(number, "train steps"), {"web": 1}, (contexts or [2] * len(steps))[place])
        for place, number in enumerate(steps)
    ]
    return make_plan([DomainSupply("web", 100_001)], phases, [BatchLine(*line) for line in batch])


def replayed(journal, *plans):
    """Return the positions of every train step."""
    runs = replay(journal, {plan.id: plan for plan in plans})
    total = runs[-1].step + runs[-1].num_steps
    return [step_positions(runs, step).tolist() for step in range(total)]


def test_effective_gives_the_plan_and_batch_of_the_last_line_before():
    journal = STARTED.with_lines([BatchSize(100, 8), PlanLine(200, "two"), BatchSize(200, 8)])

    assert [journal.effective(position).plan for position in (0, 199, 200)] == ["one", "one", "two"]
    assert [journal.effective(position).sequences for position in (99, 100, 250)] == [4, 8, 8]
    assert journal.effective(50).skip is None


def test_effective_inside_a_skip_tells_the_skip():
    journal = STARTED.with_lines([Skip(40, 80)])

    assert [journal.effective(p).skip for p in (39, 40, 79, 80)] == [None, Skip(40, 80), Skip(40, 80), None]


def test_a_plan_line_voids_all_that_was_said_from_there_on():
    journal = STARTED.with_lines([BatchSize(100, 8), Skip(150, 250), PlanLine(200, "two"), BatchSize(200, 2)])
    back = journal.with_lines([PlanLine(160, "three"), BatchSize(160, 6)])

    assert [line.plan for line in back.plans()] == ["one", "three"]
    assert [line.sequences for line in back.batches()] == [4, 8, 6]
    assert back.skips() == [Skip(150, 160)]


def test_a_plan_line_voids_what_begins_where_it_does():
    said = STARTED.with_lines([BatchSize(200, 8), Skip(200, 250)])
    back = said.with_lines([PlanLine(200, "two")])

    assert (back.batches(), back.skips()) == ([BatchSize(0, 4)], [])
    assert back.effective(200).sequences == 4
    assert back.with_lines([PlanLine(200, "three")]).plans() == [PlanLine(0, "one"), PlanLine(200, "three")]


def test_a_batch_line_voids_batch_lines_only():
    journal = STARTED.with_lines([BatchSize(100, 8), Skip(150, 250), BatchSize(60, 16)])

    assert journal.batches() == [BatchSize(0, 4), BatchSize(60, 16)]
    assert journal.skips() == [Skip(150, 250)]
    assert journal.with_lines([BatchSize(60, 2)]).batches() == [BatchSize(0, 4), BatchSize(60, 2)]


def test_skips_that_touch_are_joined():
    assert STARTED.with_lines([Skip(40, 80), Skip(0, 10), Skip(60, 100), Skip(100, 110)]).skips() == [
        Skip(0, 10),
        Skip(40, 110),
    ]


def test_lines_of_a_plan_with_a_growing_batch_and_another_context():
    # 4 sequences a step up to 40 tokens (5 steps), then 8; sequences of 4 halve that
    plan = plan_of(10, 5, batch=[(0, 8), (40, 16)], contexts=[2, 4])

    assert lines_of(plan) == [PlanLine(0, plan.id), BatchSize(0, 4), BatchSize(20, 8), BatchSize(60, 4)]


def test_lines_of_a_plan_from_the_middle_begin_there():
    plan = plan_of(10, 5, batch=[(0, 8), (40, 16)], contexts=[2, 4])

    assert lines_of(plan, 32) == [PlanLine(32, plan.id), BatchSize(32, 8), BatchSize(60, 4)]


def test_replay_of_an_untouched_plan_gives_its_steps():
    plan = plan_of(3, 2, batch=[(0, 8), (16, 12)])
    steps = replayed(Journal(tuple(lines_of(plan))), plan)

    assert [len(step) for step in steps] == [4, 4, 6, 6, 6]
    assert [p for positions in steps for p in positions] == list(range(plan.num_positions))


def test_replay_with_a_skip_leaves_its_positions_out_and_ends_where_it_did():
    plan = plan_of(5)
    steps = replayed(Journal(tuple(lines_of(plan))).with_lines([Skip(4, 12)]), plan)

    assert steps == [[0, 1, 2, 3], [12, 13, 14, 15], [16, 17, 18, 19]]


def test_replay_with_a_skip_inside_a_step_cuts_the_step_short():
    plan = plan_of(3)
    steps = replayed(Journal(tuple(lines_of(plan))).with_lines([Skip(6, 7)]), plan)

    assert steps == [[0, 1, 2, 3], [4, 5], [7, 8, 9, 10], [11]]


def test_replay_of_a_longer_plan_taken_up_in_the_middle_goes_on_there():
    old, new = plan_of(5), plan_of(5, 2)
    journal = Journal(tuple(lines_of(old))).with_lines(lines_of(new, 12))
    runs = replay(journal, {old.id: old, new.id: new})

    assert [run.plan for run in runs] == [old.id, new.id, new.id]
    assert runs[-1].stop == 28
    assert step_positions(runs, 3).tolist() == [12, 13, 14, 15]


def test_replay_without_a_plan_it_names_is_refused():
    with pytest.raises(JournalError, match="plans one"):
        replay(STARTED, {})


@given(
    skips=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30)), max_size=4),
    sizes=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 9)), max_size=4),
)
@settings(max_examples=60)
def test_replay_trains_every_position_once_unless_it_is_skipped(skips, sizes):
    plan = plan_of(10, 15)
    journal = Journal(tuple(lines_of(plan))).with_lines(
        [*(Skip(start, start + length) for start, length in skips), *(BatchSize(*size) for size in sizes)]
    )
    runs = replay(journal, {plan.id: plan})
    skipped = {p for start, length in skips for p in range(start, start + length)}
    trained = [p for p in range(100) if p not in skipped]

    steps = [step_positions(runs, run.step + i).tolist() for run in runs for i in range(run.num_steps)]
    assert [p for positions in steps for p in positions] == trained
    assert [step_at(runs, p) for step, ps in enumerate(steps) for p in ps] == [
        step for step, ps in enumerate(steps) for _ in ps
    ]
    assert all(step_at(runs, p) is None for p in skipped | {100})
    for positions in steps:
        assert len(positions) <= journal.effective(positions[0]).sequences


def test_step_positions_outside_the_run_is_refused():
    plan = plan_of(3)

    with pytest.raises(JournalError, match="outside 0 to 2"):
        step_positions(replay(Journal(tuple(lines_of(plan))), {plan.id: plan}), 3)


def test_journal_written_and_read_is_the_same(tmp_path):
    path = tmp_path / "plans.jsonl"
    lines = [PlanLine(0, "one"), BatchSize(0, 4), Skip(5, 9)]

    append_lines(path, lines[:2])
    journal = append_lines(path, lines[2:])

    assert journal == read_journal(path) == Journal(tuple(lines))
    assert path.read_text().splitlines()[2] == '{"from": 5, "skip": [5, 9]}'


def test_journal_that_is_not_there_is_empty(tmp_path):
    assert read_journal(tmp_path / "plans.jsonl") == Journal()
    with pytest.raises(JournalError, match="no plan"):
        Journal().effective(0)


def test_journal_cut_anywhere_in_its_last_line_goes_on_after_the_line_before(tmp_path):
    path = tmp_path / "plans.jsonl"
    append_lines(path, [PlanLine(0, "one"), BatchSize(0, 4)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_journal(path).lines == (PlanLine(0, "one"),)
        append_lines(path, [Skip(1, 2)])
        assert read_journal(path).lines == (PlanLine(0, "one"), Skip(1, 2))


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"from": 3}', '{"from": 0, "skip": [3]}'])
def test_journal_with_a_bad_line_says_which(tmp_path, line):
    path = tmp_path / "plans.jsonl"
    path.write_text('{"from": 0, "plan": "one"}\n' + line + "\n")

    with pytest.raises(JournalError, match=r"plans\.jsonl:2"):
        read_journal(path)


@pytest.mark.parametrize(
    "lines",
    [[BatchSize(0, 4)], [PlanLine(5, "one")], [PlanLine(0, "one"), Skip(5, 5)], [PlanLine(0, "a"), BatchSize(0, 0)]],
)
def test_journal_refuses_lines_that_make_no_sense_before_writing(tmp_path, lines):
    path = tmp_path / "plans.jsonl"

    with pytest.raises(JournalError):
        append_lines(path, lines)
    assert not path.exists()


def test_replay_of_an_empty_journal_is_a_clear_error():
    with pytest.raises(JournalError, match="empty"):
        replay(Journal(), {})
