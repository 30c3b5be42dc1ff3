"""A running training's course: its plan, changed by amendments of the recipe and by rollbacks.

Both are lines of a journal (`mixing.journal`): text that is passed over, another batch size. Positions and the token
clock (learning rate, checkpoints) of all other text stay as planned, so passing text over shortens the run. Changed
values of the optimizer and the learning rate hold from the same train step on.

Beside the training's log, `plans.jsonl` is the journal in force and `rollbacks.json` lists what rollbacks passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixing.journal import BatchSize, Journal, Line, Skip, StepRun, append_lines, lines_of, read_journal, replay
from mixing.plan_record import Plan, PlannedPhase
from recipes.artifacts import to_json, write_atomically
from recipes.errors import RunError
from recipes.pretraining.shapes import batch_tokens_of, learning_rate_of, optimizer_of, tokens_of
from training import spec as specs
from training.config import amended_values


@dataclass(frozen=True)
class Rollback:
    """Text that a run passes over because of a spike: positions `start` to `stop`, seen at a train step."""

    start: int
    stop: int
    step: int
    why: str


@dataclass(frozen=True)
class Course:
    """What a training does when.

    Attributes:
        journal: plan, batches and skips in force.
        runs: train steps of equal size over adjacent positions.
        spans: the same as a training takes them.
        num_steps: train steps in all.
        changes: values that change on the way.
        changed: (position, {path: value}) of each change, for the prefix of checkpoints.
    """

    journal: Journal
    runs: tuple[StepRun, ...]
    spans: tuple[specs.Span, ...]
    num_steps: int
    changes: tuple[specs.Change, ...]
    changed: tuple[tuple[int, dict[str, Any]], ...]

    @property
    def passed_over(self) -> list[list[Any]]:
        """(position, where it ends) of each stretch of text left out, for the prefix of checkpoints.

        One inside a stretch was made with text that the run now leaves out: it is another run's.
        """
        return [[skip.start, ["passed over to", skip.stop]] for skip in self.journal.skips()]

    def step_from(self, position: int) -> int:
        """The train step that holds a position, or the first one behind it."""
        return _step_from(self.runs, position)


def course_of(recipe: Any, plan: Plan, rollbacks: Sequence[Rollback] = ()) -> Course:
    """Follow a plan with a recipe's amendments and the rollbacks so far.

    Raises:
        RunError: for an amendment behind the end of what is left of the run.
    """
    journal = Journal(tuple(lines_of(plan)))
    # What a rollback passed over stays passed over, whatever is amended around it.
    journal = journal.with_lines([Skip(one.start, min(one.stop, plan.num_positions)) for one in rollbacks])
    changes, changed, values = [], [], recipe.training
    for place, amendment in enumerate(values.amendments if values is not None else ()):
        where = f"training.amendments[{place}]"
        start = _boundary(recipe, plan, journal, amendment.at, where)
        if amendment.skip_data is not None:
            wanted = tokens_of(amendment.skip_data, recipe.model.context, _step_tokens(recipe, plan))
            journal = journal.with_lines([_skip(plan, start, wanted, where)])
            continue
        values = amended_values(values, amendment.set)
        journal = journal.with_lines(_batches(amendment.set, values, plan, start))
        step = _step_from(replay(journal, {plan.id: plan}), start)
        rate = learning_rate_of(values, recipe.model.context, plan.num_tokens)
        changes.append(specs.Change(step, rate, optimizer_of(values)))
        changed.append((start, {path: _plain(value) for path, value in sorted(amendment.set.items())}))
    runs = replay(journal, {plan.id: plan})
    spans = tuple(_span(plan, run) for run in runs)
    num_steps = runs[-1].step + runs[-1].num_steps
    return Course(journal, tuple(runs), spans, num_steps, tuple(changes), tuple(changed))


def _span(plan: Plan, run: StepRun) -> specs.Span:
    phase = _phase_at(plan, run.start)
    return specs.Span(run.step, run.start, token_at(plan, run.start), run.sequences, phase.context)


def _phase_at(plan: Plan, position: int) -> PlannedPhase:
    return next((phase for phase in plan.phases if position < phase.stop), plan.phases[-1])


def token_at(plan: Plan, position: int) -> int:
    """The token clock at a position; it also counts text that is passed over."""
    passed = [(min(position, phase.stop) - phase.start, phase.context) for phase in plan.phases]
    return sum(sequences * context for sequences, context in passed if sequences > 0)


def position_at(plan: Plan, token: int) -> int:
    """The first position whose text begins at this token of the clock or behind it."""
    for phase in plan.phases:
        begins = token_at(plan, phase.start)
        if token <= begins + phase.num_tokens:
            return phase.start + max(0, -(-(token - begins) // phase.context))
    return plan.num_positions


def _boundary(recipe: Any, plan: Plan, journal: Journal, at: Any, where: str) -> int:
    """The beginning of the first train step at or behind an amount of training."""
    wanted = position_at(plan, tokens_of(at, recipe.model.context, _step_tokens(recipe, plan)))
    for run in replay(journal, {plan.id: plan}):
        if wanted < run.stop:
            step = max(0, -(-(wanted - run.start) // run.sequences))
            if run.start + step * run.sequences < run.stop:
                return run.start + step * run.sequences
    raise RunError(f"{where}.at: {at} lies behind the last train step of the run; leave it out, or lengthen the run")


def _step_from(runs: Sequence[StepRun], position: int) -> int:
    """The first train step at or behind a position."""
    for run in runs:
        if position < run.stop:
            return run.step + max(0, position - run.start) // run.sequences
    raise RunError("an amendment begins behind the last train step of the run")


def _step_tokens(recipe: Any, plan: Plan) -> int:
    return batch_tokens_of(recipe.training, recipe.model.context)


def _skip(plan: Plan, start: int, tokens: int, where: str) -> Skip:
    stop = position_at(plan, token_at(plan, start) + tokens)
    if stop >= plan.num_positions:
        raise RunError(f"{where}.skip_data: nothing of the run is left behind it; skip less, or end the run earlier")
    return Skip(start, max(stop, start + 1))


def _batches(changes: dict[str, Any], values: Any, plan: Plan, start: int) -> list[Line]:
    if "batch" not in changes:
        return []
    context = _phase_at(plan, start).context
    return [BatchSize(start, max(1, tokens_of(values.batch[-1].size, context, 0) // context))]


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | list | type(None)) else str(value)


# ---------------------------------------------------------------- rollbacks, and what lies beside the log


def read_rollbacks(log: Path) -> list[Rollback]:
    """What rollbacks of a run passed over so far."""
    path = log / "rollbacks.json"
    return [Rollback(**one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def roll_back(log: Path, plan: Plan, course: Course, step: int, back_tokens: int, why: str) -> Rollback:
    """Note that a run goes back before the spike that was seen after train step `step`, and passes its text over.

    It goes back to the train step that began `back_tokens` earlier; the text from there to the spike is not trained.
    """
    run = next(run for run in course.runs if run.step <= step - 1 < run.step + run.num_steps)
    stop = run.start + (step - run.step) * run.sequences
    wanted = position_at(plan, max(0, token_at(plan, stop) - back_tokens))
    start = run.start
    for one in course.runs:
        if one.start <= wanted:
            start = one.start + min(one.num_steps, (wanted - one.start) // one.sequences) * one.sequences
    found = Rollback(start, stop, step, why)
    kept = [*read_rollbacks(log), found]
    write_atomically(log / "rollbacks.json", to_json([vars(one) for one in kept]))
    return found


def write_journal(log: Path, journal: Journal) -> None:
    """Append the journal to `plans.jsonl` where it says something new."""
    path = log / "plans.jsonl"
    known = read_journal(path)
    told = [(one.plans(), one.batches(), one.skips()) for one in (known, journal)]
    if told[0] != told[1]:
        append_lines(path, journal.lines)
