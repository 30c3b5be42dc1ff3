"""Amounts of a recipe's training in tokens, and rules on them: they lie inside the schedule, in whole sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from pydantic import ValidationError

from curation.amounts import Amount, in_tokens
from curation.fields import Problem
from mixing.config import Phase
from recipes.pretraining.shapes import batch_lines, phase_tokens, steps_of_phases
from recipes.schema.located import Segments
from recipes.schema.names import Names
from recipes.schema.recipe import Recipe
from training.config import Model, TrainingValues, amended_values


def step_tokens(training: TrainingValues | None, model: Model | None) -> int | None:
    """Tokens of the last batch size, if known."""
    if training is None or model is None:
        return None
    return in_tokens(training.batch[-1].size, batch_tokens=1, context=model.context)


def batch_sizes(recipe: Recipe) -> list[tuple[int, int]]:
    """(tokens trained before it, tokens of a train step) of each batch size; none without a model."""
    if recipe.training is None or recipe.model is None:
        return []
    return batch_lines(recipe.training, recipe.model.context)


def sizes_within(recipe: Recipe, phase: Phase) -> list[int]:
    """Tokens of a train step of each batch size that holds in a phase of the schedule; none without a model."""
    lines = batch_sizes(recipe)
    if len(lines) < 2:
        return [size for _, size in lines]
    try:
        ends = list(accumulate(phase_tokens(recipe)))
    except ValueError:  # a phase of less than a train step, which is told where it stands
        return [size for _, size in lines[-1:]]
    place = next(number for number, one in enumerate(recipe.schedule) if one is phase)
    start, end = ([0, *ends])[place : place + 2]
    stops = [*(first for first, _ in lines[1:]), end]
    return [size for (first, size), stop in zip(lines, stops) if first < end and stop > start]


def _growing_steps(recipe: Recipe) -> list[list[tuple[int, int]]]:
    """(train steps, tokens of each) of each phase where the batch grows; none elsewhere, or without a plan."""
    if len(batch_sizes(recipe)) < 2 or not recipe.schedule:
        return []
    from mixing.schedule import ScheduleError

    try:
        return steps_of_phases(recipe)
    except ScheduleError:
        return []


def _counted(number: int, runs: Sequence[tuple[int, int]]) -> int:
    """Tokens of so many train steps along runs of (train steps, tokens of each), the last of which goes on for ever."""
    counts = [
        min(run[0], max(0, number - before)) for run, before in zip(runs, accumulate((n for n, _ in runs), initial=0))
    ]
    return sum(n * tokens for n, (_, tokens) in zip(counts, runs)) + (number - sum(counts)) * runs[-1][1]


def span_tokens(span: Amount, recipe: Recipe, phase: Phase | None = None, *, to_end: bool = False) -> int | None:
    """Tokens of a span; None where it needs a model and there is none.

    Where the batch grows, train steps are counted from the first one on, or `to_end`: up to the last.
    """
    if span.unit == "tokens":
        return span.number
    if span.unit == "train steps" and phase is None and (grown := _growing_steps(recipe)):
        runs = [run for runs in grown for run in runs]
        return _counted(span.number, runs[::-1] if to_end else runs)
    step = step_tokens(recipe.training, recipe.model)
    if step is None or recipe.model is None:
        return None
    context = (phase.context if phase else None) or recipe.model.context
    return in_tokens(span, batch_tokens=step, context=context)


def _budget(recipe: Recipe) -> int | None:
    """Tokens of the whole schedule, if known."""
    if _growing_steps(recipe):
        return sum(phase_tokens(recipe))
    spans = [span_tokens(phase.tokens, recipe, phase) for phase in recipe.schedule]
    known = [span for span in spans if span is not None]
    return sum(known) if known and len(known) == len(spans) else None


def span_problems(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Warm-up, decay and amendments lie inside the budget."""
    budget, training = _budget(recipe), recipe.training
    if budget is None or training is None:
        return
    rate = training.learning_rate
    for key, span in (("warmup", rate.warmup), ("decay", rate.decay)):
        tokens = None if span is None else span_tokens(span, recipe, to_end=key == "decay")
        if tokens is not None and tokens > budget:
            whole = f"longer than the schedule of {budget:,} tokens"
            yield ("training", "learning_rate", key), str(span), f"{whole}; shorten it, or lengthen the schedule"
    yield from _rise_and_fall(recipe, training, budget)
    before = -1
    for place, amendment in enumerate(training.amendments):
        at = span_tokens(amendment.at, recipe)
        if at is not None and at < before:
            yield ("training", "amendments", place, "at"), str(amendment.at), "amendments stand in the order of `at`"
        if at is not None and at >= budget:
            yield ("training", "amendments", place, "at"), str(amendment.at), "lies behind the end of the schedule"
        before = at if at is not None else before
        yield from _amended(recipe.model, training, place, amendment.set or {})
    back = span_tokens(training.spikes.back, recipe, to_end=True)
    if training.spikes.action == "rollback" and back is not None and back > budget // 2:
        reason = f"more than half of the schedule of {budget:,} tokens; go back less far, such as {budget // 50:,}"
        yield ("training", "spikes", "back"), str(training.spikes.back), reason


def _rise_and_fall(recipe: Recipe, training: TrainingValues, budget: int) -> Iterator[Problem]:
    """Warm-up and decay that each fit into the budget, and together do not."""
    rate = training.learning_rate
    parts = ((rate.warmup, False), (rate.decay, True))
    spans = [span_tokens(span, recipe, to_end=to_end) for span, to_end in parts if span is not None]
    tokens = [span for span in spans if span is not None]
    if rate.shape == "wsd" and len(tokens) == 2 and max(tokens) <= budget < sum(tokens):
        reason = f"with the decay of {rate.decay} longer than the schedule of {budget:,} tokens; shorten one of them"
        yield ("training", "learning_rate", "warmup"), str(rate.warmup), reason


def _amended(
    model: Model | None, training: TrainingValues, place: int, changes: Mapping[str, Any]
) -> Iterator[Problem]:
    """Values that an amendment sets and that their paths cannot have."""
    for path, value in changes.items():
        try:
            after = amended_values(training, {path: value})
            if path == "batch" and model is not None:
                where = ("training", "amendments", place, "set", path)
                yield from whole_sequences(after, model, where)
        except ValueError as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            yield ("training", "amendments", place, "set", path), value, told.removeprefix("Value error, ")


def whole_sequences(training: TrainingValues, model: Model, path: Segments) -> Iterator[Problem]:
    """A batch in tokens is a multiple of the context; starts in tokens and sequences rise together."""
    starts = [in_tokens(batch.start, batch_tokens=0, context=model.context) for batch in training.batch]
    for place, (before, start) in enumerate(pairwise(starts), start=1):
        if start <= before:
            reason = f"begins at {start:,} tokens, not behind the batch before it ({before:,}); let the starts rise"
            yield (*path, place), str(training.batch[place].start), reason
    for place, batch in enumerate(training.batch):
        where = path if len(training.batch) == 1 else (*path, place)
        if batch.size.number == 0:
            yield where, str(batch.size), "a train step has at least one sequence"
        elif batch.size.unit == "tokens" and batch.size.number % model.context:
            below = batch.size.number // model.context
            fits = [count for count in (below, below + 1) if count]
            choices = " or ".join(f"{count} sequences ({count * model.context} tokens)" for count in fits)
            reason = f"not whole sequences of {model.context} tokens (the model's context); did you mean {choices}?"
            yield where, str(batch.size), reason
