"""What a swarm costs, said before it is spent: runs, tokens, parameters, operations and hours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixing.domain_stage import read_domains
from recipes.artifacts import key_of
from recipes.pipeline import PlannedStage, options_that_count
from recipes.progress import compact, duration, several
from training.models.shape import flops_per_token, num_parameters
from training.swarm import SwarmOptions, evaluation_steps

if TYPE_CHECKING:
    from recipes.run import Run

_measured: dict[str, object] = {}  # of this process, by what was timed: a confirmation has its proxies' shape


@dataclass(frozen=True)
class RunCost:
    """Seconds of one run in one process, and what they rest on."""

    seconds: float
    basis: str


def announce_swarm(
    run: Run, number: int, options: SwarmOptions, what: str = "proxies", swarm: PlannedStage | None = None
) -> float:
    """Say what a swarm costs, and return the hours that it still takes.

    Args:
        run: the run.
        number: of its runs.
        options: what they share.
        what: what a run is called.
        swarm: its stage, where it is planned: runs that are there cost nothing, and tell how long the others take.
    """
    tokens = number * options.tokens
    run.narrator.say(
        f"  {number} {what} of {compact(num_parameters(options.shape))} parameters "
        f"({compact(num_parameters(options.shape, embedding=False))} without embeddings) "
        f"x {compact(options.tokens)} tokens "
        f"= {compact(tokens)} tokens, {tokens * flops_per_token(options.shape):.2g} FLOPs"
    )
    left = number if swarm is None else number - len(swarm.tasks) + len(swarm.missing())
    if left == 0:
        return 0.0
    cost = run_cost(run, options, swarm)
    workers = min(run.pool.workers, left)
    hours = cost.seconds * -(-left // workers) / 3600
    there = f"{number - left} are there; " if left < number else ""
    each = "" if left == 1 else f" for {left} with {several(workers, 'worker')}: {duration(cost.seconds)} each"
    run.narrator.say(f"  {there}{duration(hours * 3600)}{each}, {cost.basis}")
    return hours


def run_cost(run: Run, options: SwarmOptions, swarm: PlannedStage | None = None) -> RunCost:
    """Seconds of one run: as earlier ones of the same swarm took here, else by train steps that are timed now."""
    earlier = None if swarm is None else _earlier(swarm)
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
    measuring_s = held_out_tokens(run, options) * points / speed.measuring
    basis = f"timed just now at {compact(speed.training)} tokens/s"
    if not speed.exact:
        basis += f" (from the operations a second of a shape of {compact(speed.parameters)} parameters)"
    share = measuring_s / (training_s + measuring_s)
    return RunCost(training_s + measuring_s, basis + (f", {share:.0%} of it for held-out loss" if share > 0.02 else ""))


def _earlier(swarm: PlannedStage) -> RunCost | None:
    """What the last making of this stage took, by the machine that made it."""
    told = swarm.folder.last_making()
    if not told.get("tasks") or "workers" not in told:
        return None
    seconds = told["seconds"] * told["workers"] / len(told["tasks"])
    return RunCost(seconds, f"as the last {len(told['tasks'])} of them took on {told['host']}")


def held_out_tokens(run: Run, options: SwarmOptions) -> int:
    """Tokens that one measurement of a run reads."""
    context = options.shape.context
    listed = read_domains(run.tokens.domains_path)
    return sum(min(domain.num_held_out(context), options.max_held_out) for domain in listed) * context
