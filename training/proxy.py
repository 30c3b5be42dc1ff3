"""Proxy runs: one small model, one process, a set number of threads, no Lightning (its import takes seconds).

Model, loss, batches and train step are the trainer's own. A run is a pure function of its `ProxyRun`: the same losses
bit for bit on the same kind of processor and number of threads.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.batches import TokenStream, TrainBatches, position_after, tokens_after
from training.evaluate import by_domain, held_out_sums
from training.learning_rate import LearningRate, learning_rate_at
from training.models import ModelShape, build, num_parameters
from training.models.initial import initialise
from training.spec import Factory, Optimizer, Span, check_spans
from training.step import StepOptions, StepSums, make_optimizer, train_step
from training.watch import DivergedError, check_finite


@dataclass(frozen=True)
class ProxyRun:
    """One training of a small model; see `training.spec.TrainSpec` for the words they share.

    Attributes:
        name: of the run, in results.
        evaluate_at: train steps after which held-out losses are measured, 0 is before the first; the last always is.
        threads: torch's threads; another number gives other bits.
        log_every: train steps a point of the loss curve.
        save_to: folder for a checkpoint of the trained weights; None saves none.
        stop_after: train steps after which the run pauses, one of `evaluate_at`; None trains to the end.
        state: file that a run is kept in whenever it was measured, and that it goes on from where it is there. The
            result is bit for bit that of a run without a pause; only its speed is measured anew.
    """

    name: str
    shape: ModelShape
    stream: Factory
    spans: tuple[Span, ...]
    num_steps: int
    learning_rate: LearningRate
    seed: int = 0
    precision: str = "fp32"
    optimizer: Optimizer = field(default_factory=Optimizer)
    evaluate_at: tuple[int, ...] = ()
    threads: int = 1
    micro_batch: int = 16
    device: str = "cpu"
    compile: bool = False
    log_every: int = 10
    separator: int | None = None
    save_to: str | None = None
    stop_after: int | None = None
    state: str | None = None

    def __post_init__(self) -> None:
        check_spans(self.spans)
        if self.stop_after is not None and self.stop_after not in self.evaluate_at:
            raise ValueError(f"a run pauses where it is measured; {self.stop_after} is not among {self.evaluate_at}")


@dataclass(frozen=True)
class CurvePoint:
    """Training loss: the mean of the train steps since the last point, in nats a token."""

    step: int
    tokens: int
    loss: float


@dataclass(frozen=True)
class Measurement:
    """Held-out loss of each domain, in nats a token (None without sequences), and in bits a byte where known."""

    step: int
    tokens: int
    losses: dict[str, float | None]
    bits_per_byte: dict[str, float | None]


@dataclass(frozen=True)
class ProxyResult:
    """What a proxy run gave, JSON-serialisable through `training.spec.to_json`.

    Attributes:
        name: the run's.
        num_parameters: of the model.
        curve: training loss over steps.
        held_out: measurements in order of steps.
        diverged_at: train step whose loss or gradient was no number, where the run ended; None if it is whole.
        num_tokens: tokens trained on.
        tokens_per_s: over the training alone, without evaluations.
        elapsed_s: the whole run.
        sequences: nats and tokens of every held-out sequence at the end, by domain, in the stream's order.
    """

    name: str
    num_parameters: int
    curve: tuple[CurvePoint, ...]
    held_out: tuple[Measurement, ...]
    diverged_at: int | None
    num_tokens: int
    tokens_per_s: float
    elapsed_s: float
    sequences: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass
class _Course:
    """What a run has come to so far."""

    curve: list[CurvePoint] = field(default_factory=list)
    held_out: list[Measurement] = field(default_factory=list)
    unread: list[StepSums] = field(default_factory=list)
    done: int = 0
    sequences: dict[str, list[list[float]]] = field(default_factory=dict)
    training_s: float = 0.0
    begun: int = 0  # train step that this process went on from
    diverged_at: int | None = None


def train_proxy(run: ProxyRun, progress: Callable[[int, int], None] | None = None) -> ProxyResult:
    """Train one proxy in this process.

    Args:
        run: what to train.
        progress: called with (steps done, steps in all) at every point of the curve.

    Returns:
        Losses and speed. A run that diverges returns with `diverged_at` set and is no error: it is a result.
    """
    started = time.perf_counter()
    torch.set_num_threads(run.threads)
    device = torch.device(run.device)
    stream: TokenStream = run.stream.make()
    with torch.device("meta"):
        model = build(run.shape)
    model.to_empty(device=device)
    initialise(model, run.shape, run.seed)
    if run.compile:
        for block in model.blocks:
            block.compile()
    course = _Course()
    try:
        _train(run, stream, model, course, progress or (lambda done, steps: None))
    except DivergedError:
        course.diverged_at = course.done
    tokens = tokens_after(run.spans, course.done) - run.spans[0].first_token
    if run.save_to is not None and course.diverged_at is None:
        _save(run, model)
    here = tokens - tokens_after(run.spans, course.begun) + run.spans[0].first_token
    speed = here / course.training_s if course.training_s else 0.0
    return ProxyResult(
        name=run.name,
        num_parameters=num_parameters(run.shape),
        curve=tuple(course.curve),
        held_out=tuple(course.held_out),
        diverged_at=course.diverged_at,
        num_tokens=tokens,
        tokens_per_s=speed,
        elapsed_s=time.perf_counter() - started,
        sequences=course.sequences,
    )


def _train(
    run: ProxyRun, stream: TokenStream, model: Any, course: _Course, progress: Callable[[int, int], None]
) -> None:
    device = torch.device(run.device)
    options = StepOptions(
        micro_batch=run.micro_batch,
        precision=run.precision,
        clip=run.optimizer.clip,
        z_loss=run.optimizer.z_loss,
        separator=run.separator,
    )
    optimizer = make_optimizer(model, run.optimizer)
    until = run.num_steps if run.stop_after is None else run.stop_after
    if not _resume(run, until, model, optimizer, course):
        _measure(run, stream, model, options, course)
    since, course.begun = time.perf_counter(), course.done
    for batch in TrainBatches(stream, run.spans, course.done, until, 0, 1):
        rate = learning_rate_at(run.learning_rate, tokens_after(run.spans, batch.step + 1))
        course.unread.append(train_step(model, optimizer, batch.to(device), rate, options))
        course.done = batch.step + 1
        last = course.done == run.num_steps
        if course.done % run.log_every == 0 or last or course.done in run.evaluate_at:
            _note_losses(run, course)
            progress(course.done, run.num_steps)
        if course.done in run.evaluate_at or last:
            course.training_s += time.perf_counter() - since
            _measure(run, stream, model, options, course)
            if run.state is not None and (run.stop_after is not None or not last):
                _keep(Path(run.state), model, optimizer, course)
            since = time.perf_counter()


def _keep(path: Path, model: Any, optimizer: torch.optim.Optimizer, course: _Course) -> None:
    """Keep a run on its way: weights, moments, and what was measured. All losses are noted where a run is measured."""
    kept = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "done": course.done,
        "curve": [dataclasses.asdict(point) for point in course.curve],
        "held_out": [dataclasses.asdict(found) for found in course.held_out],
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(kept, temporary)
    temporary.replace(path)


def _resume(run: ProxyRun, until: int, model: Any, optimizer: torch.optim.Optimizer, course: _Course) -> bool:
    """Go on from the kept state, where there is one that is not beyond the train step to stop after."""
    if run.state is None or not Path(run.state).exists():
        return False
    kept = torch.load(run.state, map_location="cpu", weights_only=True)
    if kept["done"] > until:
        return False
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    course.done = kept["done"]
    course.curve = [CurvePoint(**point) for point in kept["curve"]]
    course.held_out = [Measurement(**found) for found in kept["held_out"]]
    return True


def _note_losses(run: ProxyRun, course: _Course) -> None:
    totals = torch.stack([sums.totals for sums in course.unread]).cpu()
    first = course.done - len(course.unread) + 1
    course.unread = []
    for place, (norm, loss, _) in enumerate(totals.tolist()):
        course.done = first + place
        check_finite(course.done, loss, norm)
    mean = float(totals[:, 1].mean())
    course.curve.append(CurvePoint(course.done, tokens_after(run.spans, course.done), mean))


def _measure(run: ProxyRun, stream: TokenStream, model: Any, options: StepOptions, course: _Course) -> None:
    if stream.held_out is None or (course.done not in run.evaluate_at and course.done != run.num_steps):
        return
    sums, numbers = held_out_sums(model, stream.held_out, options, torch.device(run.device))
    found = by_domain(stream.held_out, sums, numbers)
    names = stream.held_out.domains
    course.sequences = {name: sums[numbers == place].tolist() for place, name in enumerate(names)}
    losses = {domain.domain: domain.loss_nats for domain in found}
    bits = {domain.domain: domain.bits_per_byte for domain in found}
    course.held_out.append(Measurement(course.done, tokens_after(run.spans, course.done), losses, bits))


def _save(run: ProxyRun, model: Any) -> None:
    from training import checkpoint

    position = position_after(run.spans, run.num_steps)
    manifest = {
        "step": run.num_steps,
        "position": position,
        "tokens": tokens_after(run.spans, run.num_steps),
        "prefix": {"proxy": run.name, "seed": run.seed},
        "shape": checkpoint.shape_entry(run.shape),
        "state": {},
    }
    checkpoint.save(Path(run.save_to), model, None, manifest)
