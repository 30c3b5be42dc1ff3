"""A running training's course: its plan, changed by amendments of the recipe and by rollbacks.

Both are lines of a journal (`mixing.journal`): text that is passed over, another batch size. Positions and the token
clock (learning rate, checkpoints) of all other text stay as planned, so passing text over shortens the run. Changed
values of the optimizer and the learning rate hold from the same train step on.

Beside the training's log, `plans.jsonl` is the journal in force and `rollbacks.json` lists what rollbacks passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from curation.amounts import Amount
from mixing.journal import BatchSize, Journal, Line, Skip, StepRun, append_lines, lines_of, read_journal, replay
from mixing.plan_record import Plan
from recipes.artifacts import to_json, write_atomically
from recipes.errors import RunError
from recipes.pretraining.clock import (
    before,
    behind,
    phase_at,
    position_at,
    position_until,
    steps_as_planned,
    token_at,
    tokens_from_start,
    tokens_to_end,
)
from recipes.pretraining.shapes import batch_lines, optimizer_of, rate_over, tokens_of
from training import spec as specs
from training.config import amended_values
from training.learning_rate import LearningRate


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
        unrolled: the same as if nothing had been rolled back; amounts in train steps are counted along them.
        spans: the same as a training takes them.
        num_steps: train steps in all.
        changes: values that change on the way.
        changed: (position, {path: value}) of each change, for the prefix of checkpoints.
        rates: (position, course of the learning rate from there on), the first from 0.
    """

    journal: Journal
    runs: tuple[StepRun, ...]
    unrolled: tuple[StepRun, ...]
    spans: tuple[specs.Span, ...]
    num_steps: int
    changes: tuple[specs.Change, ...]
    changed: tuple[tuple[int, dict[str, Any]], ...]
    rates: tuple[tuple[int, LearningRate], ...] = ()

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

    Amounts of amendments are counted as if nothing had been rolled back, so they stay where they are when that happens.

    Raises:
        RunError: for an amendment behind the end of what is left of the run.
    """
    journal, values = Journal(tuple(lines_of(plan))), recipe.training
    rates, changed, optimizers, last = [], [], [], 0
    if values is not None:
        rates.append((0, _rate_of(values.learning_rate, recipe.model.context, plan, steps_as_planned(plan))))
    for place, amendment in enumerate(values.amendments if values is not None else ()):
        where, context = f"training.amendments[{place}]", recipe.model.context
        runs = replay(journal, {plan.id: plan})
        start = _boundary(plan, runs, amendment.at, context, where)
        if start < last:
            raise RunError(f"{where}.at: {amendment.at} lies before the amendment above it; let `at` rise")
        last = start
        if amendment.skip_data is not None:
            stop = behind(plan, runs, start, amendment.skip_data, context)
            journal = journal.with_lines([_skip(plan, start, stop, where)])
            continue
        values = amended_values(values, amendment.set)
        if "batch" in amendment.set:
            journal = journal.with_lines(_batches(batch_lines(values, context), plan, start))
        runs = replay(journal, {plan.id: plan})
        rates.append((start, _rate_of(values.learning_rate, context, plan, runs, rates[-1][1], amendment.set)))
        optimizers.append(optimizer_of(values))
        changed.append((start, {path: _plain(value) for path, value in sorted(amendment.set.items())}))
    unrolled = tuple(replay(journal, {plan.id: plan}))
    journal = journal.with_lines([Skip(one.start, min(one.stop, plan.num_positions)) for one in rollbacks])
    runs = replay(journal, {plan.id: plan})
    changes = [
        specs.Change(_step_from(runs, start), rate, optimizer)
        for (start, rate), optimizer in zip(rates[1:], optimizers, strict=True)
        if start < runs[-1].stop  # else a rollback passed over the rest of the run
    ]
    spans = tuple(_span(plan, run) for run in runs)
    num_steps = runs[-1].step + runs[-1].num_steps
    return Course(journal, tuple(runs), unrolled, spans, num_steps, tuple(changes), tuple(changed), tuple(rates))


def decays_of(plan: Plan, course: Course) -> list[tuple[int, LearningRate]]:
    """(position, course of the learning rate) of each wsd decay that is begun before another course holds."""
    rates = [course.rates[0], *(after for (_, last), after in pairwise(course.rates) if after[1] != last)]
    ends = [*(start for start, _ in rates[1:]), plan.num_positions + 1]
    begun = [(max(start, position_until(plan, rate.total_tokens - rate.decay_tokens)), rate) for start, rate in rates]
    return [one for one, end in zip(begun, ends, strict=True) if one[1].shape == "wsd" and one[0] < end]


def rate_entries(plan: Plan, course: Course) -> list[list[Any]]:
    """(position, value) of all that makes the learning rate, for the prefix of checkpoints.

    Until a wsd decay begins, the length of the run does not matter; for all other shapes it always does.
    """
    first = course.rates[0][1]
    entries: list[list[Any]] = [[0, [first.peak, first.warmup_tokens, first.shape]]]
    if first.shape != "wsd":
        entries[0][1] += [first.final, first.total_tokens]
    else:
        amended = dict(course.rates[1:])
        for begins, rate in decays_of(plan, course):
            # Amended into the middle of its decay: the position does not tell how long that is.
            inside = [rate.decay_tokens] if begins in amended else []
            entries.append([begins, [rate.final, rate.total_tokens, *inside]])
        entries += [[start, [rate.final, rate.total_tokens]] for start, rate in amended.items() if rate.shape != "wsd"]
    return entries + [[position, changed] for position, changed in course.changed]


def _span(plan: Plan, run: StepRun) -> specs.Span:
    context = phase_at(plan, run.start).context
    return specs.Span(run.step, run.start, token_at(plan, run.start), run.sequences, context)


def _boundary(plan: Plan, runs: Sequence[StepRun], at: Amount, context: int, where: str) -> int:
    """The beginning of the first train step at or behind an amount of training."""
    wanted = behind(plan, runs, 0, at, context)
    for run in runs:
        if wanted < run.stop:
            step = max(0, -(-(wanted - run.start) // run.sequences))
            if run.start + step * run.sequences < run.stop:
                return run.start + step * run.sequences
    raise RunError(f"{where}.at: {at} lies behind the last train step of the run; leave it out, or lengthen the run")


def _step_from(runs: Sequence[StepRun], position: int) -> int:
    """The train step that holds a position, or the first one behind it."""
    for run in runs:
        if position < run.stop:
            return run.step + max(0, position - run.start) // run.sequences
    raise RunError("an amendment begins behind the last train step of the run")


def _skip(plan: Plan, start: int, stop: int, where: str) -> Skip:
    if stop >= plan.num_positions:
        raise RunError(f"{where}.skip_data: nothing of the run is left behind it; skip less, or end the run earlier")
    return Skip(start, max(stop, start + 1))


def _rate_of(
    rate: Any,
    context: int,
    plan: Plan,
    runs: Sequence[StepRun],
    known: LearningRate | None = None,
    changes: Mapping[str, Any] | None = None,
) -> LearningRate:
    """The course of a recipe's learning rate; warm-up and decay stay as `known` where `changes` do not set them."""
    if known is None or "learning_rate.warmup" in (changes or {}):
        warmup = tokens_from_start(plan, runs, rate.warmup, context)
    else:
        warmup = known.warmup_tokens
    if known is None or "learning_rate.decay" in (changes or {}):
        decay = 0 if rate.decay is None else tokens_to_end(plan, runs, rate.decay, context)
    else:
        decay = known.decay_tokens
    return rate_over(rate, warmup, decay, plan.num_tokens)


def _batches(lines: Sequence[tuple[int, int]], plan: Plan, start: int) -> list[Line]:
    """The batch from a position on, in sequences of each phase; where a list lets it grow, at the last whole step."""
    borders = {phase.start for phase in plan.phases if phase.start > start}
    grows = {position_at(plan, token) for token, _ in lines}
    found: list[BatchSize] = []
    for mark in sorted({start, *borders, *(position for position in grows if start < position < plan.num_positions)}):
        tokens = [size for token, size in lines if token <= token_at(plan, mark)][-1]
        if found and mark not in borders:
            mark = found[-1].start + (mark - found[-1].start) // found[-1].sequences * found[-1].sequences
        found.append(BatchSize(mark, max(1, tokens // phase_at(plan, mark).context)))
    return [found[0], *(line for last, line in pairwise(found) if last.sequences != line.sequences)]


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | list | type(None)) else str(value)


# ---------------------------------------------------------------- rollbacks, and what lies beside the log


def read_rollbacks(log: Path) -> list[Rollback]:
    """What rollbacks of a run passed over so far."""
    path = log / "rollbacks.json"
    return [Rollback(**one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def tokens_back(plan: Plan, course: Course, step: int, back: Amount, context: int) -> int:
    """Tokens of the clock that a rollback goes back from behind train step `step`, counted from 1."""
    if back.unit != "train steps":
        return tokens_of(back, context, 0)
    stop = _end_of(course, step)
    return token_at(plan, stop) - token_at(plan, before(plan, course.unrolled, stop, back, context))


def _end_of(course: Course, step: int) -> int:
    """The position behind a train step, counted from 1."""
    run = next(run for run in course.runs if run.step <= step - 1 < run.step + run.num_steps)
    return run.start + (step - run.step) * run.sequences


def roll_back(log: Path, plan: Plan, course: Course, step: int, back_tokens: int, why: str) -> Rollback:
    """Note that a run goes back before the spike that was seen after train step `step`, and passes its text over.

    It goes back to the train step that began `back_tokens` earlier; the text from there to the spike is not trained.
    """
    stop = _end_of(course, step)
    wanted = position_at(plan, max(0, token_at(plan, stop) - back_tokens))
    start = course.runs[0].start
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
