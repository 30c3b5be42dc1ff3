"""`plans.jsonl`: which plan, which skips and which batch size were in force from which position on.

Lines are only appended. Each tells the position from which it holds, and one of three things:

    {"from": 0, "plan": "<id>"}            the plan that is followed; voids all that earlier lines say from there on
    {"from": 0, "batch": 1024}             sequences of a train step; voids earlier batch lines from there on
    {"from": 5000, "skip": [5000, 9000]}   positions that are not trained (stop excluded)

So an edited plan, a rollback and a batch that grows all read alike, and `replay` tells which positions any train step
held. Positions are never renumbered: skipping shortens the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mixing.plan_record import Plan
from mixing.targets import Int64s


class JournalError(ValueError):
    """A journal that cannot be read, or a line that does not fit it."""


@dataclass(frozen=True)
class PlanLine:
    """From a position on, the plan with this id is followed."""

    start: int
    plan: str


@dataclass(frozen=True)
class BatchSize:
    """From a position on, a train step holds so many sequences."""

    start: int
    sequences: int


@dataclass(frozen=True)
class Skip:
    """Positions `start` to `stop` (excluded) are not trained."""

    start: int
    stop: int


Line = PlanLine | BatchSize | Skip


@dataclass(frozen=True)
class Effective:
    """What is in force at a position.

    Attributes:
        plan: id of the plan.
        sequences: sequences of a train step that begins there.
        skip: the skip that holds the position, or None.
    """

    plan: str
    sequences: int
    skip: Skip | None


def lines_of(plan: Plan, start: int = 0) -> list[Line]:
    """Return the lines with which a plan is followed from a position on: its id, and its batch where that changes."""
    lines: list[Line] = [PlanLine(start, plan.id)]
    sequences = None
    for phase in plan.phases:
        position = phase.start
        for run in phase.steps:
            stop = position + run.num_sequences
            if stop > start and run.sequences != sequences:
                lines.append(BatchSize(max(position, start), run.sequences))
                sequences = run.sequences
            position = stop
    return lines


@dataclass(frozen=True)
class Journal:
    """The lines of a `plans.jsonl`, in the order they were written."""

    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        """Check that lines begin with a plan from position 0 and make sense one by one."""
        if self.lines and not (isinstance(self.lines[0], PlanLine) and self.lines[0].start == 0):
            raise JournalError("the first line must name the plan from position 0")
        for line in self.lines:
            _check_line(line)

    def with_lines(self, lines: Sequence[Line]) -> Journal:
        """Return the journal with lines appended."""
        return Journal((*self.lines, *lines))

    def plans(self) -> list[PlanLine]:
        """Return the plans in force, by position."""
        return [line for line in self._in_force() if isinstance(line, PlanLine)]

    def batches(self) -> list[BatchSize]:
        """Return the batch sizes in force, by position."""
        return [line for line in self._in_force() if isinstance(line, BatchSize)]

    def skips(self) -> list[Skip]:
        """Return the skips in force, by position, joined where they touch or overlap."""
        joined: list[Skip] = []
        for skip in (line for line in self._in_force() if isinstance(line, Skip)):
            if joined and skip.start <= joined[-1].stop:
                joined[-1] = Skip(joined[-1].start, max(joined[-1].stop, skip.stop))
            else:
                joined.append(skip)
        return joined

    def effective(self, position: int) -> Effective:
        """Return the plan, batch and skip in force at a position.

        Raises:
            JournalError: if the journal is empty, or has no batch size there.
        """
        plans = [line for line in self.plans() if line.start <= position]
        batches = [line for line in self.batches() if line.start <= position]
        if not plans or not batches:
            raise JournalError(f"no {'batch size' if plans else 'plan'} is in force at position {position}")
        skip = next((skip for skip in self.skips() if skip.start <= position < skip.stop), None)
        return Effective(plans[-1].plan, batches[-1].sequences, skip)

    def _in_force(self) -> list[Line]:
        """Return the lines that no later line voids, by position (stable)."""
        kept: list[Line] = []
        for line in self.lines:
            if isinstance(line, PlanLine):
                kept = [cut for old in kept if (cut := _before(old, line.start)) is not None]
            elif isinstance(line, BatchSize):
                kept = [old for old in kept if not (isinstance(old, BatchSize) and old.start >= line.start)]
            kept.append(line)
        return sorted(kept, key=lambda line: line.start)


def _before(line: Line, position: int) -> Line | None:
    """Return what remains of a line before a position."""
    if line.start >= position:
        return None
    return Skip(line.start, min(line.stop, position)) if isinstance(line, Skip) else line


def _check_line(line: Line) -> None:
    if line.start < 0:
        raise JournalError(f"{line}: positions begin at 0")
    if isinstance(line, Skip) and line.stop <= line.start:
        raise JournalError(f"{line}: a skip must end after it begins")
    if isinstance(line, BatchSize) and line.sequences < 1:
        raise JournalError(f"{line}: a train step holds at least one sequence")


def read_journal(path: Path) -> Journal:
    """Read a journal; none yet is an empty one, and a last line that was not written whole is left out.

    Raises:
        JournalError: with the file's line, for one that cannot be read.
    """
    if not path.exists():
        return Journal()
    texts = path.read_text(encoding="utf-8").split("\n")[:-1]
    return Journal(tuple(_parse(path, number, text) for number, text in enumerate(texts, start=1)))


def append_lines(path: Path, lines: Sequence[Line]) -> Journal:
    """Append lines to a journal and return it whole; they are on disk when this returns.

    A last line that was not written whole is cut off first. The caller sees to it that one process writes.

    Raises:
        JournalError: before anything is written, if a line does not fit.
    """
    journal = read_journal(path).with_lines(lines)
    with path.open("ab") as file:
        whole = _whole_bytes(path)
        if file.tell() > whole:
            file.truncate(whole)
        file.write("".join(json.dumps(_fields(line)) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    return journal


def _whole_bytes(path: Path) -> int:
    """Return how many bytes of the file are whole lines."""
    return path.read_bytes().rfind(b"\n") + 1


def _fields(line: Line) -> dict[str, Any]:
    if isinstance(line, PlanLine):
        return {"from": line.start, "plan": line.plan}
    if isinstance(line, BatchSize):
        return {"from": line.start, "batch": line.sequences}
    return {"from": line.start, "skip": [line.start, line.stop]}


def _parse(path: Path, number: int, text: str) -> Line:
    try:
        fields = json.loads(text)
        if "plan" in fields:
            return PlanLine(int(fields["from"]), str(fields["plan"]))
        if "batch" in fields:
            return BatchSize(int(fields["from"]), int(fields["batch"]))
        start, stop = fields["skip"]
        return Skip(int(start), int(stop))
    except (ValueError, TypeError, KeyError) as error:
        raise JournalError(f"{path}:{number}: not a line of a journal: {text[:80]!r}") from error


@dataclass(frozen=True)
class StepRun:
    """A run of train steps of equal size over adjacent positions.

    Attributes:
        step: the first of them.
        num_steps: how many.
        start: position at which the first begins.
        sequences: of each step.
        plan: id of the plan they follow.
    """

    step: int
    num_steps: int
    start: int
    sequences: int
    plan: str

    @property
    def stop(self) -> int:
        """The first position after the run."""
        return self.start + self.num_steps * self.sequences


def replay(journal: Journal, plans: Mapping[str, Plan]) -> list[StepRun]:
    """Cut a run into train steps as its journal tells, from step 0 to the end of the last plan.

    A step ends early where a phase, a skip, another plan or another batch size begins: it then holds fewer sequences.

    Args:
        journal: the journal.
        plans: the plans it names, by id.

    Raises:
        JournalError: if the journal is empty, or a plan is missing.
    """
    if not journal.lines:
        raise JournalError("the journal is empty: no plan was followed")
    missing = sorted({line.plan for line in journal.plans()} - set(plans))
    if missing:
        raise JournalError(f"plans {', '.join(missing)} are in the journal but were not given")
    runs: list[StepRun] = []
    step = 0
    for start, stop in _trained_stretches(journal, plans):
        now = journal.effective(start)
        whole, rest = divmod(stop - start, now.sequences)
        if whole:
            runs.append(StepRun(step, whole, start, now.sequences, now.plan))
        if rest:
            runs.append(StepRun(step + whole, 1, stop - rest, rest, now.plan))
        step += whole + bool(rest)
    return runs


def _trained_stretches(journal: Journal, plans: Mapping[str, Plan]) -> list[tuple[int, int]]:
    """Return the stretches [start, stop) of positions that are trained under one plan, phase and batch size."""
    lines = journal.plans()
    end = plans[lines[-1].plan].num_positions
    marks = {0, end, *(line.start for line in lines), *(line.start for line in journal.batches())}
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        stop = following.start if following else end
        marks |= {phase.start for phase in plans[line.plan].phases if line.start < phase.start < stop}
    skips = journal.skips()
    for skip in skips:
        marks |= {skip.start, skip.stop}
    edges = sorted(mark for mark in marks if mark <= end)
    return [(a, b) for a, b in pairwise(edges) if not any(skip.start <= a < skip.stop for skip in skips)]


def step_positions(runs: Sequence[StepRun], step: int) -> Int64s:
    """Return the positions of a train step, int64 (sequences,).

    Raises:
        JournalError: for a step the run does not have.
    """
    for run in runs:
        if run.step <= step < run.step + run.num_steps:
            start = run.start + (step - run.step) * run.sequences
            return np.arange(start, start + run.sequences, dtype=np.int64)
    last = runs[-1].step + runs[-1].num_steps if runs else 0
    raise JournalError(f"train step {step} is outside 0 to {last - 1}")


def step_at(runs: Sequence[StepRun], position: int) -> int | None:
    """Return the train step that holds a position; None where it is skipped or outside the run."""
    for run in runs:
        if run.start <= position < run.stop:
            return run.step + (position - run.start) // run.sequences
    return None
