"""One run of a swarm as a task: train a proxy on a mixture and write its row.

The function that an ablation is given to train with: `mixing.ablation` never imports this package.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from curation.stage import Counts, Output
from mixing.domain_stage import read_domains
from mixing.plan_stage import PhaseOptions, PlanOptions, plan_of
from training.learning_rate import LearningRate
from training.memory import kept_memory
from training.models.shape import ModelShape
from training.proxy import ProxyResult, ProxyRun, train_proxy
from training.spec import Factory, Optimizer, Span

TOKENS_AT_ONCE = 4096  # of a micro-batch: as fast as 16 sequences of 1024, in half the memory or less


@dataclass(frozen=True)
class SwarmOptions:
    """What all runs of a swarm share.

    Attributes:
        shape: the proxy.
        tokens: tokens of a run, rounded down to whole train steps.
        batch_tokens: tokens of a train step.
        learning_rate: its course.
        optimizer: AdamW's numbers.
        precision: bf16 or fp32.
        evaluate: times the held-out loss is measured.
        max_held_out: most held-out windows of a domain.
        threads: torch's threads; losses differ bitwise between numbers.
        separator: end-of-document id where attention stays inside documents.
    """

    shape: ModelShape
    tokens: int
    batch_tokens: int
    learning_rate: LearningRate
    optimizer: Optimizer
    precision: str
    evaluate: int
    max_held_out: int
    threads: int = 1
    separator: int | None = None


@dataclass(frozen=True)
class SwarmRun:
    """One run: its name, mixture (domain -> share of tokens), seed and order, and where the text lies.

    Attributes:
        domains: `domains.json` that is drawn from, thinned to the target's repetition.
        measured: `domains.json` whose held-out text is measured.
        order: (kind, patterns, direction) as in `mixing.plan_stage.PhaseOptions`.
        values: `values.json` that orders by a signal sort by.
        state: file that a paused run is kept in; a run goes on from it where it is there.
        pause_at: train step after which the run pauses; None trains to the end.
        stacked: file of a stack that this run was trained in, and its place there; None trains it alone.
    """

    name: str
    weights: tuple[tuple[str, float], ...]
    seed: int
    domains: str
    measured: str
    order: tuple[str, tuple[str, ...], str] = ("uniform", (), "asc")
    values: str | None = None
    state: str | None = None
    pause_at: int | None = None
    stacked: tuple[str, int] | None = None


def train_run(run: SwarmRun, options: SwarmOptions, output: Output) -> Counts:
    """Train one proxy and write its row: `.run.json` with the mixture, the losses and the curve."""
    if run.stacked is not None:
        return _take_from_stack(run.stacked, output)
    plan_path = output.path(".plan.json")
    plan = plan_of(read_domains(run.domains), plan_options(run, options))
    plan_path.write_text(plan.to_json(), encoding="utf-8")
    with kept_memory():
        result = train_proxy(_proxy_run(run, options, plan.num_steps, str(plan_path)))
    if run.state is not None and run.pause_at is None:
        Path(run.state).unlink(missing_ok=True)  # weights and moments of a run that is whole
    if run.pause_at is None and result.sequences:
        output.path(".sequences.json").write_text(json.dumps(result.sequences, sort_keys=True), encoding="utf-8")
    output.path(".run.json").write_text(json.dumps(row_of(run, result), indent=1, sort_keys=True), encoding="utf-8")
    return {"tokens": result.num_tokens, "steps": plan.num_steps, "diverged": int(result.diverged_at is not None)}


def _proxy_run(run: SwarmRun, options: SwarmOptions, num_steps: int, plan: str) -> ProxyRun:
    sequences = options.batch_tokens // options.shape.context
    arguments = {
        "plan": plan,
        "domains": run.domains,
        "context": options.shape.context,
        "max_held_out": options.max_held_out,
        "measured": run.measured,
        "values": run.values,
    }
    return ProxyRun(
        name=run.name,
        shape=options.shape,
        stream=Factory("training.stream:open_stream", arguments),
        spans=(Span(0, 0, 0, sequences, options.shape.context),),
        num_steps=num_steps,
        learning_rate=options.learning_rate,
        seed=run.seed,
        precision=options.precision,
        optimizer=options.optimizer,
        evaluate_at=evaluation_steps(num_steps, options.evaluate),
        threads=options.threads,
        micro_batch=max(1, TOKENS_AT_ONCE // options.shape.context),
        log_every=max(1, num_steps // 50),
        separator=options.separator,
        stop_after=run.pause_at,
        state=run.state,
    )


def _take_from_stack(stacked: tuple[str, int], output: Output) -> Counts:
    """Write the row of a run that was trained in a stack."""
    path, place = stacked
    found = json.loads(Path(path).read_text(encoding="utf-8"))[place]
    row = found["row"]
    if found["sequences"]:
        output.path(".sequences.json").write_text(json.dumps(found["sequences"], sort_keys=True), encoding="utf-8")
    output.path(".run.json").write_text(json.dumps(row, indent=1, sort_keys=True), encoding="utf-8")
    return {"tokens": row["num_tokens"], "diverged": int(row["diverged_at"] is not None)}


def plan_options(run: SwarmRun, options: SwarmOptions) -> PlanOptions:
    """The plan of one run: one phase of its mixture."""
    phase = PhaseOptions(
        name="proxy",
        span=(options.tokens, "tokens"),
        ramp=(0, "tokens"),
        weights=("shares", 1.0, run.weights),
        order=run.order,
        context=options.shape.context,
    )
    # Caps and shortage are the target run's; a proxy repeats as much as its thinned domains make it.
    return PlanOptions((phase,), ((0, options.batch_tokens),), run.seed, (("*", 1e9),), "error")


def evaluation_steps(num_steps: int, points: int) -> tuple[int, ...]:
    """Train steps at which held-out loss is measured: evenly spread, the last among them."""
    return tuple(sorted({max(1, round(num_steps * k / points)) for k in range(1, points + 1)}))


def pause_step(options: SwarmOptions, share: float) -> int:
    """The first measurement at or after a share of a run, where runs can be compared."""
    num_steps = options.tokens // options.batch_tokens
    measured = evaluation_steps(num_steps, options.evaluate)
    return next(step for step in measured if step >= min(share * num_steps, num_steps))


def row_of(run: SwarmRun, result: ProxyResult) -> dict[str, object]:
    """A run as its file holds it; times are left out, so that equal runs are equal bytes."""
    row = dataclasses.asdict(result)
    for measured in ("tokens_per_s", "elapsed_s", "sequences"):
        row.pop(measured)
    return {**row, "weights": dict(run.weights), "seed": run.seed, "order": run.order}


def read_run(path: str | Path) -> dict[str, object]:
    """A run's row."""
    row: dict[str, object] = json.loads(Path(path).read_text(encoding="utf-8"))
    return row
