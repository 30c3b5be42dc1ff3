"""MindLLM's own protocol beside the repetition-controlled one: one pass over every domain, all scaled by one factor.

A proxy reads a domain once, and domains keep their sizes: the proxy of a large one trains longer. So its losses say
what a source as it is brings, length included; those of equal tokens say what its text brings. Nothing is fitted to
them. Source: MindLLM, arXiv:2310.15777.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.amounts import Amount
from mixing.ablation.design import PlannedRun
from mixing.ablation.runs import table_of
from mixing.domain_stage import Domain
from recipes.ablation.swarm import SwarmSize, make_swarm, plan_swarm, run_file, swarm_options
from recipes.ablation.swarm_cost import announce_swarm
from recipes.pipeline import PlannedStage
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
    """Say what the runs of one pass cost; returns hours."""
    return sum(announce_swarm(run, 1, one.options, f"run ({one.one.name})", one.swarm) for one in planned)


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
        shown[domain] = {"tokens": int(own[0]["num_tokens"]), "losses": losses, "curve": table.curves[0]}
    return shown
