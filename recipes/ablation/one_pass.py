"""MindLLM's own protocol beside the repetition-controlled one: one pass over every domain, all scaled by one factor.

A proxy reads a domain once, and domains keep their sizes: the proxy of a large one trains longer. So its losses say
what a source as it is brings, length included; those of equal tokens say what its text brings. Nothing is fitted to
them. Source: MindLLM, arXiv:2310.15777.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.amounts import Amount
from mixing.ablation.design import PlannedRun
from mixing.ablation.runs import table_of
from mixing.domain_stage import Domain
from recipes.ablation.swarm import SwarmSize, make_swarm, plan_swarm, run_file, swarm_options
from recipes.ablation.swarm_cost import run_cost
from recipes.pipeline import PlannedStage
from recipes.progress import compact, duration, several
from training.models.shape import flops_per_token
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run


@dataclass(frozen=True)
class OnePass:
    """A planned run of one pass: the domain, its stage, the run and what it trains."""

    domain: str
    swarm: PlannedStage
    one: PlannedRun
    options: SwarmOptions


def scale_of(listed: list[Domain], tokens: int) -> float:
    """The factor by which all domains are scaled: the mean run is as long as the others of the study, at most whole."""
    return min(1.0, len(listed) * tokens / sum(domain.num_tokens for domain in listed))


def plan_one_pass(run: Run, listed: list[Domain], tokens: int) -> list[OnePass]:
    """A run for each seed and domain that is long enough for a train step, shortest first."""
    study: Any = run.recipe.ablation
    factor = scale_of(listed, tokens)
    planned = []
    for domain in sorted(listed, key=lambda one: (one.num_tokens, one.name)) if study.runs.one_pass else []:
        length = Amount(int(domain.num_tokens * factor), "tokens")
        size = SwarmSize(study.proxy, length, study.evaluate.number, study.threads)
        options = swarm_options(run, run.tokens, size)
        if options.tokens == 0:
            run.narrator.say(f"  one pass over {domain.name} is less than a train step: left out")
            continue
        weights = {other.name: float(other.name == domain.name) for other in listed}
        for number in range(study.runs.one_pass):
            suffix = f".s{number}" if number else ""
            one = PlannedRun(f"pass.{domain.name}{suffix}", "one_pass", weights, run.recipe.seed + number)
            title = f"one pass over {domain.name}"
            swarm = plan_swarm(run, run.tokens, run.tokens.domains, [one], options, title)
            planned.append(OnePass(domain.name, swarm, one, options))
    return planned


def announce_one_pass(run: Run, planned: list[OnePass]) -> float:
    """Say what the runs of one pass cost, which are trained one after the other; returns hours that are left."""
    if not planned:
        return 0.0
    lengths = [one.options.tokens for one in planned]
    flops = sum(one.options.tokens * flops_per_token(one.options.shape) for one in planned)
    run.narrator.say(
        f"  {several(len(planned), 'run')} of one pass over a domain x {compact(min(lengths))} to "
        f"{compact(max(lengths))} tokens = {compact(sum(lengths))} tokens, {flops:.2g} FLOPs"
    )
    costs = [run_cost(run, one.options) for one in planned if one.swarm.missing()]
    if not costs:
        return 0.0
    seconds = sum(cost.seconds for cost in costs)
    there = f"{len(planned) - len(costs)} are there; " if len(costs) < len(planned) else ""
    run.narrator.say(f"  {there}{duration(seconds)}, {costs[-1].basis}")
    return seconds / 3600


def train_one_pass(run: Run, planned: list[OnePass]) -> tuple[tuple[str, str], ...]:
    """Train what is missing; (domain, file of its row) of each."""
    for one in planned:
        make_swarm(run, one.swarm)
    return tuple((one.domain, run_file(one.swarm, one.one)) for one in planned)


def written(runs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Runs of one pass as the analysis shows them, the mean of a domain's seeds.

    Returns:
        {domain: {tokens, losses {measured: nats}, curve {tokens, losses}}}; diverged runs are left out.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for domain, path in runs:
        row = json.loads(Path(path).read_text(encoding="utf-8"))
        if row["diverged_at"] is None and row["held_out"]:
            rows.setdefault(domain, []).append(row)
    shown = {}
    for domain, own in rows.items():
        named = [{**row, "name": f"{row['name']}#{place}"} for place, row in enumerate(own)]
        table = table_of(named)
        losses = {name: float(loss) for name, loss in zip(table.targets, table.losses.mean(0), strict=True)}
        shown[domain] = {"tokens": int(own[0]["num_tokens"]), "losses": losses, "curve": _mean_of(table.curves)}
    return shown


def _mean_of(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves of runs that were measured at the same tokens as one; a loss that one of them lacks is unknown."""
    first = curves[0]

    def mean(name: str, place: int) -> float | None:
        values = [curve["losses"][name][place] for curve in curves]
        return None if any(value is None for value in values) else sum(values) / len(values)

    losses = {name: [mean(name, k) for k in range(len(first["tokens"]))] for name in first["losses"]}
    return {"tokens": first["tokens"], "losses": losses}
