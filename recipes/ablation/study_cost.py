"""What a whole study costs before it is spent: proxies, runs of one pass, confirmation; and how that is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixing.domain_stage import Domain
from recipes.ablation.swarm_cost import (
    Left,
    RunCost,
    Runs,
    SwarmCost,
    cost_lines,
    cost_of,
    room_line,
    run_cost,
    swarm_cost,
)
from recipes.progress import duration
from training.footprint import free_bytes
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run


@dataclass(frozen=True)
class Study:
    """What an ablation trains, as far as it is known.

    Attributes:
        proxies: its proxies, and what they share.
        passes: what each run of one pass is trained with, the longest first, and the indices of those that are left.
        confirmation: its runs, and what they share; None without one.
    """

    proxies: tuple[SwarmOptions, Runs]
    passes: tuple[Sequence[SwarmOptions], Sequence[int]]
    confirmation: tuple[SwarmOptions, Runs] | None


def study_costs(run: Run, study: Study, listed: Sequence[Domain]) -> list[SwarmCost]:
    """What each part of a study comes to; `listed` are the domains that every run measures."""
    costs = [swarm_cost(run, *study.proxies)]
    if study.passes[0]:
        costs.append(_passes_cost(run, *study.passes, listed))
    if study.confirmation is not None:
        costs.append(swarm_cost(run, *study.confirmation))
    return costs


def _passes_cost(run: Run, planned: Sequence[SwarmOptions], left: Sequence[int], listed: Sequence[Domain]) -> SwarmCost:
    """Runs of one pass: of one shape, each of its own length."""
    each = [run_cost(run, planned[place], listed) for place in left]
    longest = run_cost(run, planned[0], listed) if left else RunCost(0.0, "")
    waves = [[one.seconds / longest.seconds for one in each]] if each else []
    return cost_of(run, planned, "runs of one pass over a domain", Left(len(left), waves), listed, longest)


def study_lines(costs: Sequence[SwarmCost]) -> Iterator[str]:
    """A study's cost as it is said, part by part, then the whole and the room it takes."""
    for cost in costs:
        yield from cost_lines(cost)
    if sum(cost.left > 0 for cost in costs) > 1:
        yield f"{duration(sum(cost.seconds for cost in costs))} in all"
    if any(cost.left for cost in costs):
        yield room_line([cost for cost in costs if cost.left], free_bytes())


def announce_study(run: Run, costs: Sequence[SwarmCost]) -> float:
    """Say what a study costs; returns hours that are left."""
    for line in study_lines(costs):
        run.narrator.say(f"  {line}")
    return sum(cost.seconds for cost in costs) / 3600
