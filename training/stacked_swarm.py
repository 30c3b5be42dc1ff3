"""Several runs of a swarm trained as one stacked model, as a task: rows are those of single runs up to rounding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from curation.stage import Counts, Output
from mixing.domain_stage import read_domains
from mixing.plan_stage import plan_of
from training import stacked
from training.batches import TokenStream, TrainBatches, tokens_after
from training.evaluate import by_domain, held_out_sums
from training.learning_rate import learning_rate_at
from training.models import build, num_parameters
from training.proxy import CurvePoint, Measurement, ProxyResult
from training.spec import Span
from training.step import StepOptions
from training.stream import open_stream
from training.swarm import TOKENS_AT_ONCE, SwarmOptions, SwarmRun, evaluation_steps, plan_options, row_of


@dataclass
class _Course:
    """What one proxy of a stack has come to so far: nats of train steps that no point of the curve counts yet."""

    unread: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    held_out: list[Measurement] = field(default_factory=list)
    sequences: dict[str, list[list[float]]] = field(default_factory=dict)
    diverged_at: int | None = None


def train_stack(runs: Sequence[SwarmRun], options: SwarmOptions, output: Output) -> Counts:
    """Train K runs at once and write `.rows.json`: for each its row and the nats of every held-out sequence.

    Memory is that of K proxies and one more. A proxy that diverges is left behind, the others go on as they would.
    """
    torch.set_num_threads(options.threads)
    streams, steps = _open(runs, options, output)
    stack = stacked.make_stack(options.shape, [run.seed for run in runs])
    optimizer = stacked.make_optimizer(stack, options.optimizer)
    step_options = StepOptions(
        max(1, TOKENS_AT_ONCE // options.shape.context), precision=options.precision, clip=options.optimizer.clip,
        z_loss=options.optimizer.z_loss, separator=options.separator,
    )  # fmt: skip
    spans = (Span(0, 0, 0, options.batch_tokens // options.shape.context, options.shape.context),)
    batches = [iter(TrainBatches(stream, spans, 0, steps, 0, 1)) for stream in streams]
    courses = [_Course() for _ in runs]
    measured, log_every = evaluation_steps(steps, options.evaluate), max(1, steps // 50)
    for done in range(1, steps + 1):
        tokens_KBT1 = torch.stack([next(batch).tokens for batch in batches])
        rate = learning_rate_at(options.learning_rate, tokens_after(spans, done))
        found_K2 = stacked.stacked_step(stack, optimizer, tokens_KBT1, rate, step_options)
        for course, (norm, nats) in zip(courses, found_K2.tolist(), strict=True):
            _note(course, done, norm, nats)
        if done % log_every == 0 or done == steps or done in measured:
            _draw(courses, done, tokens_after(spans, done))
        if done in measured:
            _measure(stack, streams, courses, options, step_options, done)
    results = [_result(run.name, course, options, steps) for run, course in zip(runs, courses, strict=True)]
    rows = [
        {"row": row_of(run, result), "sequences": result.sequences} for run, result in zip(runs, results, strict=True)
    ]
    output.path(".rows.json").write_text(json.dumps(rows, sort_keys=True), encoding="utf-8")
    return {"tokens": sum(result.num_tokens for result in results), "runs": len(runs)}


def _open(runs: Sequence[SwarmRun], options: SwarmOptions, output: Output) -> tuple[list[TokenStream], int]:
    """The text of each run, and the train steps that all of them take."""
    streams, steps = [], set()
    for place, run in enumerate(runs):
        path = output.path(f".{place}.plan.json")
        plan = plan_of(read_domains(run.domains), plan_options(run, options))
        path.write_text(plan.to_json(), encoding="utf-8")
        steps.add(plan.num_steps)
        streams.append(
            open_stream(str(path), run.domains, options.shape.context, options.max_held_out, run.measured, run.values)
        )
    assert len(steps) == 1, "runs of one swarm are equally long"
    return streams, steps.pop()


def _note(course: _Course, step: int, norm: float, nats: float) -> None:
    if course.diverged_at is None:
        if torch.isfinite(torch.tensor([norm, nats])).all():
            course.unread.append(nats)
        else:
            course.diverged_at = step


def _draw(courses: Sequence[_Course], step: int, tokens: int) -> None:
    for course in courses:
        if course.diverged_at is None and course.unread:
            course.curve.append(CurvePoint(step, tokens, sum(course.unread) / len(course.unread)))
            course.unread = []


def _measure(
    stack: stacked.Stack,
    streams: Sequence[TokenStream],
    courses: Sequence[_Course],
    options: SwarmOptions,
    step_options: StepOptions,
    done: int,
) -> None:
    """Held-out losses of every proxy that goes on, one after another, by the single model's own code."""
    model = build(options.shape)
    for place, (stream, course) in enumerate(zip(streams, courses, strict=True)):
        if course.diverged_at is not None or stream.held_out is None:
            continue
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(stack.parameters[f"model.{name}"][place])
        sums, numbers = held_out_sums(model, stream.held_out, step_options, torch.device("cpu"))
        found = by_domain(stream.held_out, sums, numbers)
        losses = {domain.domain: domain.loss_nats for domain in found}
        bits = {domain.domain: domain.bits_per_byte for domain in found}
        course.held_out.append(Measurement(done, done * options.batch_tokens, losses, bits))
        names = stream.held_out.domains
        course.sequences = {name: sums[numbers == number].tolist() for number, name in enumerate(names)}


def _result(name: str, course: _Course, options: SwarmOptions, steps: int) -> ProxyResult:
    done = steps if course.diverged_at is None else course.diverged_at
    return ProxyResult(
        name, num_parameters(options.shape), tuple(course.curve), tuple(course.held_out), course.diverged_at,
        done * options.batch_tokens, 0.0, 0.0, course.sequences,
    )  # fmt: skip
