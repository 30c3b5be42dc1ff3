"""Amounts of a training on its token clock: where in a plan so many tokens, sequences or train steps lie.

A train step has no length of its own where the batch grows, so amounts in train steps are counted along the train steps
themselves (`mixing.journal.replay`), from the place that they are meant from.
"""

from __future__ import annotations

from collections.abc import Sequence

from curation.amounts import Amount
from mixing.journal import Journal, StepRun, lines_of, replay
from mixing.plan_record import Plan, PlannedPhase
from recipes.pretraining.shapes import tokens_of


def steps_as_planned(plan: Plan) -> list[StepRun]:
    """The train steps of a plan that nothing changes."""
    return replay(Journal(tuple(lines_of(plan))), {plan.id: plan})


def phase_at(plan: Plan, position: int) -> PlannedPhase:
    """The phase of a position; behind the end the last one."""
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


def position_until(plan: Plan, token: int) -> int:
    """The last position before which no more than so many tokens of the clock lie."""
    for phase in plan.phases:
        begins = token_at(plan, phase.start)
        if token < begins + phase.num_tokens:
            return phase.start + max(0, token - begins) // phase.context
    return plan.num_positions


def position_of_step(runs: Sequence[StepRun], step: int) -> int:
    """The position at which a train step begins: that of the first below 0, the end of the last behind it."""
    for run in runs:
        if step < run.step + run.num_steps:
            return run.start + max(0, step - run.step) * run.sequences
    return runs[-1].stop


def steps_before(runs: Sequence[StepRun], position: int) -> int:
    """Train steps that begin before a position."""
    counts = [(-(-(position - run.start) // run.sequences), run.num_steps) for run in runs if run.start < position]
    return sum(min(count) for count in counts)


def behind(plan: Plan, runs: Sequence[StepRun], position: int, size: Amount, context: int) -> int:
    """The position that lies an amount behind a position; the end of the run where nothing does."""
    if size.unit == "train steps":
        return position_of_step(runs, steps_before(runs, position) + size.number)
    return position_at(plan, token_at(plan, position) + tokens_of(size, context, 0))


def before(plan: Plan, runs: Sequence[StepRun], position: int, size: Amount, context: int) -> int:
    """The position that lies an amount before a position; 0 where nothing does."""
    if size.unit == "train steps":
        return position_of_step(runs, steps_before(runs, position) - size.number)
    return position_at(plan, max(0, token_at(plan, position) - tokens_of(size, context, 0)))


def tokens_from_start(plan: Plan, runs: Sequence[StepRun], size: Amount, context: int) -> int:
    """Tokens of an amount that is meant from the beginning of the run, such as a warm-up."""
    if size.unit == "train steps":
        return token_at(plan, position_of_step(runs, size.number))
    return tokens_of(size, context, 0)


def tokens_to_end(plan: Plan, runs: Sequence[StepRun], size: Amount, context: int) -> int:
    """Tokens of an amount that is meant up to the end of the run, such as a decay."""
    if size.unit == "train steps":
        return plan.num_tokens - token_at(plan, before(plan, runs, runs[-1].stop, size, context))
    return tokens_of(size, context, 0)
