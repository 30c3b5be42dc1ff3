"""What a swarm costs, said before it is spent: runs, tokens, parameters, operations, hours, memory and disk."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixing.domain_stage import Domain, read_domains
from recipes.artifacts import key_of
from recipes.pipeline import PlannedStage, options_that_count
from recipes.progress import compact, compact_bytes, duration, several
from training.footprint import checkpoint_bytes, footprint
from training.models.shape import flops_per_token, num_parameters
from training.swarm import TOKENS_AT_ONCE, SwarmOptions, evaluation_steps

if TYPE_CHECKING:
    from recipes.run import Run

# Bytes of a row's file, as measured on swarms of 8 to 11 domains: its curve, plan and record; a measured loss and its
# bits a byte; a held-out sequence.
_ROW_BYTES, _LOSS_BYTES, _SEQUENCE_BYTES = 6_000, 96, 32

_measured: dict[str, object] = {}  # of this process, by what was timed: a confirmation has its proxies' shape


@dataclass(frozen=True)
class RunCost:
    """Seconds of one run in one process, and what they rest on."""

    seconds: float
    basis: str


@dataclass(frozen=True)
class SwarmCost:
    """What the runs of a swarm come to; what is there already is in `number` alone.

    Attributes:
        what: what a run is called.
        number: runs.
        left: those that are still to be trained, whole or in part.
        stopped: those that were stopped early.
        note: what is to be said of them beside, or nothing.
        parameters: of one model; `inner_parameters` without embeddings.
        shortest, longest: tokens of a run.
        tokens, flops: of all runs.
        workers: processes at once.
        seconds: until those that are left are trained.
        each_s: seconds of the longest run, in one process.
        basis: what the seconds rest on.
        process_bytes: most memory of a process.
        scratch_bytes: on disk while they train: runs on their way.
        kept_bytes: on disk for good, of those that are left.
    """

    what: str
    number: int
    left: int
    parameters: int
    inner_parameters: int
    shortest: int
    longest: int
    tokens: int
    flops: float
    workers: int
    seconds: float
    each_s: float
    basis: str
    process_bytes: int
    scratch_bytes: int
    kept_bytes: int
    stopped: int = 0
    note: str = ""


@dataclass(frozen=True)
class Left:
    """Runs that are still to be trained.

    Attributes:
        number: of them.
        waves: the work, as shares of a whole run; a wave begins when the one before it has ended.
        stopped: runs that were stopped early, and are not among them.
        paused: most runs that lie on disk on their way; None: one a worker.
        begun: (stage of first parts, the share of a run that they are): tells how long a run takes.
        note: what is to be said of them.
    """

    number: int
    waves: Sequence[Sequence[float]]
    stopped: int = 0
    paused: int | None = None
    begun: tuple[PlannedStage, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Runs:
    """Equal runs whose cost is asked for.

    Attributes:
        number: of them, those that are there too.
        what: what a run is called.
        stage: trains them, where it is planned: runs that are there cost nothing, and tell how long the others take.
        left: what is left to train; None: what `stage` misses of them, at once.
        measured: domains that are measured; None: those of the run.
    """

    number: int
    what: str = "proxies"
    stage: PlannedStage | None = None
    left: Left | None = None
    measured: Sequence[Domain] | None = None


def swarm_cost(run: Run, options: SwarmOptions, runs: Runs) -> SwarmCost:
    """What a swarm of equal runs comes to. Where runs are left and none was trained here, a train step is timed."""
    stage, left = runs.stage, runs.left
    if left is None:
        number = runs.number if stage is None else runs.number - len(stage.tasks) + len(stage.missing())
        left = Left(number, [[1.0] * number])
    listed = measured_domains(run) if runs.measured is None else runs.measured
    each = run_cost(run, options, listed, stage, left.begun) if left.number else RunCost(0.0, "")
    return cost_of(run, [options] * runs.number, runs.what, left, listed, each)


def cost_of(
    run: Run, planned: Sequence[SwarmOptions], what: str, left: Left, listed: Sequence[Domain], each: RunCost
) -> SwarmCost:
    """What runs of one shape come to.

    Args:
        run: the run.
        planned: what each run is trained with, those that are there too; the first is the longest.
        what: what a run is called.
        left: runs that are left, as shares of the longest.
        listed: domains that are measured.
        each: the cost of the longest.
    """
    longest = planned[0]
    workers = max(1, min(run.pool.workers, max((len(wave) for wave in left.waves), default=1)))
    points = len(evaluation_steps(max(1, longest.tokens // longest.batch_tokens), longest.evaluate))
    row = _ROW_BYTES + points * len(listed) * _LOSS_BYTES + _windows(listed, longest) * _SEQUENCE_BYTES
    return SwarmCost(
        what=what,
        number=len(planned),
        left=left.number,
        parameters=num_parameters(longest.shape),
        inner_parameters=num_parameters(longest.shape, embedding=False),
        shortest=min(one.tokens for one in planned),
        longest=longest.tokens,
        tokens=sum(one.tokens for one in planned),
        flops=float(sum(one.tokens * flops_per_token(one.shape) for one in planned)),
        workers=workers,
        seconds=sum(makespan([share * each.seconds for share in wave], workers) for wave in left.waves),
        each_s=each.seconds,
        basis=each.basis,
        process_bytes=proxy_bytes(longest, run.recipe.execution.training.stacked),
        scratch_bytes=checkpoint_bytes(longest.shape) * min(left.number, left.paused or workers),
        kept_bytes=row * left.number,
        stopped=left.stopped,
        note=left.note,
    )


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until all tasks are done, each begun in order by the worker that is free first."""
    ends = [0.0] * max(1, workers)
    for one in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def proxy_bytes(options: SwarmOptions, stacked: int | None) -> int:
    """Most memory of a process that trains a proxy, or a stack of several (those and one more)."""
    shape = options.shape
    one = footprint(shape, shape.context, options.precision)
    sequences = min(max(1, TOKENS_AT_ONCE // shape.context), options.batch_tokens // shape.context)
    models = 1 if stacked is None or stacked < 2 else stacked + 1
    return one.process + models * (one.total(sequences) - one.process)


def cost_lines(cost: SwarmCost) -> Iterator[str]:
    """A swarm's cost as it is said: what is trained, then how long what is left takes."""
    length = compact(cost.longest)
    if cost.shortest != cost.longest:
        length = f"{compact(cost.shortest)} to {length}"
    yield (
        f"{cost.number} {cost.what} of {compact(cost.parameters)} parameters "
        f"({compact(cost.inner_parameters)} without embeddings) x {length} tokens "
        f"= {compact(cost.tokens)} tokens, {cost.flops:.2g} FLOPs"
    )
    there = [f"{cost.stopped} were stopped early"] if cost.stopped else []
    if (made := cost.number - cost.left - cost.stopped) and cost.left + cost.stopped:
        there = [f"{made} are there", *there]
    if not cost.left:
        yield ", ".join(there) or ("all are there" if cost.number > 1 else "it is there")
        return
    before = f"{', '.join(there)}; " if there else ""
    most = "" if cost.shortest == cost.longest else " at most"
    workers = several(cost.workers, "worker")
    each = "" if cost.left == 1 else f" for {cost.left} with {workers}: {duration(cost.each_s)} each{most}"
    yield f"{before}{duration(cost.seconds)}{each}, {cost.basis}"
    if cost.note:
        yield cost.note


def room_line(costs: Sequence[SwarmCost], free_bytes: int | None) -> str:
    """The memory and disk that swarms take, one after the other."""
    most = max(costs, key=lambda cost: cost.process_bytes * cost.workers)
    free = "" if free_bytes is None else f" of {compact_bytes(free_bytes)} that are free"
    return (
        f"memory: {compact_bytes(most.process_bytes)} a worker, "
        f"{compact_bytes(most.process_bytes * most.workers)}{free}; disk: "
        f"{compact_bytes(max(cost.scratch_bytes for cost in costs))} while they train, "
        f"{compact_bytes(sum(cost.kept_bytes for cost in costs))} for good"
    )


def announce_swarm(
    run: Run, number: int, options: SwarmOptions, what: str = "proxies", swarm: PlannedStage | None = None
) -> float:
    """Say what a swarm of equal runs costs, and return the hours that it still takes; see `Runs`."""
    cost = swarm_cost(run, options, Runs(number, what, stage=swarm))
    for line in cost_lines(cost):
        run.narrator.say(f"  {line}")
    return cost.seconds / 3600


def run_cost(
    run: Run,
    options: SwarmOptions,
    listed: Sequence[Domain],
    swarm: PlannedStage | None = None,
    begun: tuple[PlannedStage, float] | None = None,
) -> RunCost:
    """Seconds of one run: as earlier ones of the same swarm took here, else by train steps that are timed now."""
    stacked = (run.recipe.execution.training.stacked or 0) > 1  # then rows are only taken from it
    for stage, share in [] if stacked else [begun or (None, 1.0), (swarm, 1.0)]:
        earlier = None if stage is None else _earlier(stage, share)
        if earlier is not None:
            return earlier
    from training.speed import ProxySpeed, proxy_speed

    timed = (options.shape, options.batch_tokens, options.precision, options.threads, options.separator)
    key = key_of(options_that_count(timed))
    if key not in _measured:
        # In a worker: a proxy's memory and threads are no matter of this process.
        _measured[key] = run.pool.submit(proxy_speed, options).result()
    speed = _measured[key]
    assert isinstance(speed, ProxySpeed)
    points = len(evaluation_steps(max(1, options.tokens // options.batch_tokens), options.evaluate))
    training_s = options.tokens / speed.training
    measuring_s = _windows(listed, options) * options.shape.context * points / speed.measuring
    basis = f"timed just now at {compact(speed.training)} tokens/s"
    if not speed.exact:
        basis += f" (from the operations a second of a shape of {compact(speed.parameters)} parameters)"
    share = measuring_s / (training_s + measuring_s)
    return RunCost(training_s + measuring_s, basis + (f", {share:.0%} of it for held-out loss" if share > 0.02 else ""))


def _earlier(swarm: PlannedStage, share: float = 1.0) -> RunCost | None:
    """What a whole run took in the last making of this stage, whose runs are a share of one, by the machine."""
    told = swarm.folder.last_making()
    if not told.get("tasks") or "workers" not in told:
        return None
    seconds = told["seconds"] * told["workers"] / len(told["tasks"]) / share
    which = f"the last {len(told['tasks'])} of them" if share == 1.0 else f"{len(told['tasks'])} first parts of them"
    return RunCost(seconds, f"as {which} took on {told['host']}")


def measured_domains(run: Run) -> list[Domain]:
    """The domains whose held-out text every run measures."""
    return list(read_domains(run.tokens.domains_path))


def _windows(listed: Sequence[Domain], options: SwarmOptions) -> int:
    """Held-out sequences that one measurement of a run reads."""
    return sum(min(domain.num_held_out(options.shape.context), options.max_held_out) for domain in listed)
