"""The ladder of sizes as a part of a run: every size trained to its own end, laws fitted, the target foretold.

A run's learning rate ends where the run ends; losses in the middle of a schedule are never fitted. All sizes draw from
the weights of the schedule's first phase, and each is measured on the same held-out text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.amounts import Amount
from curation.stage import Counts, Output
from mixing.ablation.design import PlannedRun
from mixing.scaling.study import Target, analyse
from mixing.scaling.table import ScalingTable, make_table, read_table, write_table
from mixing.tokenizer import load_tokenizer
from recipes.ablation.mixtures import domains_to_mix, mixture_of, natural_weights
from recipes.ablation.swarm import SwarmSize, make_swarm, plan_swarm, run_file, swarm_options
from recipes.ablation.swarm_cost import announce_swarm
from recipes.curating.curate import ALL
from recipes.errors import RunError
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from recipes.pretraining.shapes import phase_tokens, shape_of
from recipes.progress import duration
from training.models.shape import flops_per_token, num_parameters
from training.swarm import SwarmOptions, read_run

if TYPE_CHECKING:
    from recipes.run import Run

VERSIONS = {"scaling": 2}
BOOTSTRAPS = 200
EVALUATE = 4


@dataclass(frozen=True)
class ScalingOptions:
    """How a ladder is read: parameters, tokens and operations of the target (None without a model), and the seed."""

    target: tuple[float, float, float] | None
    seed: int


@dataclass(frozen=True)
class ScalingInputs:
    """Run files of the ladder: (name, operations of its training, path)."""

    runs: tuple[tuple[str, float, str], ...]


def scale(run: Run) -> dict[str, Any]:
    """Train what is missing of the ladder, smallest first, and fit the laws."""
    if run.recipe.scaling is None:
        raise RunError(
            f"{run.recipe.path}: there is no `scaling:` section; add {{sizes: [..]}} or give --runs TABLE.csv"
        )
    run.narrator.heading("Scaling")
    chosen = run.weights
    planned = []
    for swarm, one, flops in ladder(run, chosen):
        make_swarm(run, swarm)
        planned.append((one.name, flops, run_file(swarm, one)))
    options = ScalingOptions(target_of(run), run.recipe.seed)
    made_of = [(Path(path).parent.name, Path(path).name) for _, _, path in planned]
    stage = plan_stage(
        run.store,
        "scaling",
        [VERSIONS["scaling"], options, made_of],
        title="scaling laws",
        verb="scale",
        work=make_scaling,
        options=options,
        tasks=(PlannedTask(ALL, ScalingInputs(tuple(planned))),),
    )
    run.make([stage])
    found: dict[str, Any] = stage.read_json(ALL, ".scaling.json")
    for note in found["notes"]:
        run.narrator.say(f"  {note}")
    return found


@dataclass(frozen=True)
class Rung:
    """A size of the ladder at a number of tokens for each parameter: the run's name and what it trains."""

    name: str
    size: int
    options: SwarmOptions

    @property
    def flops(self) -> float:
        """Operations of its training."""
        return self.options.tokens * float(flops_per_token(self.options.shape))


def rungs(run: Run) -> list[Rung]:
    """Each size at each number of tokens, by operations."""
    wanted: Any = run.recipe.scaling
    vocabulary = load_tokenizer(run.tokens.tokenizer).vocabulary
    steps = []
    for model in wanted.sizes:
        size = num_parameters(shape_of(model, vocabulary))
        for per_parameter in wanted.tokens_per_parameter:
            length = Amount(round(size * per_parameter), "tokens")
            options = swarm_options(run, run.tokens, SwarmSize(model, length, EVALUATE))
            if options.tokens == 0:
                raise RunError(
                    f"{run.recipe.path}: scaling: {size:,} parameters x {per_parameter:g} tokens are less than one "
                    f"train step ({options.batch_tokens:,} tokens); lower the batch or raise tokens_per_parameter"
                )
            steps.append(Rung(f"scale.{size}x{per_parameter:g}", size, options))
    return sorted(steps, key=lambda rung: rung.flops)


def announce_ladder(run: Run, planned: Sequence[tuple[Rung, PlannedStage | None]]) -> None:
    """Say what each rung costs, the whole ladder, and where it reads its text too often."""
    hours = sum(announce_swarm(run, 1, rung.options, f"run ({rung.name})", swarm) for rung, swarm in planned)
    run.narrator.say(
        f"  the ladder: {len(planned)} runs, {sum(rung.flops for rung, _ in planned):.2g} FLOPs, "
        f"{duration(hours * 3600)} to go, one run after another"
    )
    supply = sum(domain.num_tokens for domain in domains_to_mix(run.tokens))
    passes = max(rung.options.tokens for rung, _ in planned) / max(1, supply)
    if passes > 4:
        run.narrator.say(f"  the longest run passes the text {passes:.1f} times: laws of new text do not hold there")


def ladder(run: Run, chosen: dict[str, float] | None) -> list[tuple[PlannedStage, PlannedRun, float]]:
    """Stage, run and operations of each rung."""
    tokens = run.tokens
    phase = run.recipe.schedule[0].weights if run.recipe.schedule else None
    steps = []
    for rung in rungs(run):
        mixture = _mixture(run, phase, rung.options.tokens, chosen)
        one = PlannedRun(rung.name, "scaling", mixture, run.recipe.seed)
        swarm = plan_swarm(run, tokens, tokens.domains, [one], rung.options, f"{rung.size:,} parameters", "scale")
        steps.append((rung, swarm, one))
    announce_ladder(run, [(rung, swarm) for rung, swarm, _ in steps])
    return [(swarm, one, rung.flops) for rung, swarm, one in steps]


def _mixture(run: Run, phase: Any, budget: int, chosen: dict[str, float] | None) -> dict[str, float]:
    """Weights of the schedule's first phase; natural ones without a schedule."""
    listed = domains_to_mix(run.tokens)
    if phase is None:
        return natural_weights(run, listed)
    return mixture_of(run, phase, listed, budget, chosen)


def target_of(run: Run) -> tuple[float, float, float] | None:
    """Parameters, tokens and operations of the recipe's own model; None where it has none."""
    recipe: Any = run.recipe
    if recipe.model is None or not recipe.schedule:
        return None
    shape = shape_of(recipe.model, load_tokenizer(run.tokens.tokenizer).vocabulary)
    tokens = sum(phase_tokens(recipe))
    return float(num_parameters(shape)), float(tokens), float(tokens * flops_per_token(shape))


def table_of_runs(runs: tuple[tuple[str, float, str], ...]) -> ScalingTable:
    """The ladder's runs as a table; the loss is the geometric mean over the domains that every run measured.

    A diverged run has none, and takes nothing from the others.
    """
    rows = [read_run(path) for _, _, path in runs]
    finals = [_final(row) for row in rows]
    measured = [{name for name, loss in final.items() if loss is not None} for final in finals if final]
    domains = sorted(set.intersection(*measured)) if measured else []
    losses = [
        np.exp(np.mean([np.log(final[name]) for name in domains])) if final and domains else np.nan for final in finals
    ]
    columns = {
        "parameters": np.array([float(str(row["num_parameters"])) for row in rows]),
        "tokens": np.array([float(str(row["num_tokens"])) for row in rows]),
        "flops": np.array([flops for _, flops, _ in runs]),
    }
    return make_table([name for name, _, _ in runs], columns, np.array(losses))


def _final(row: Mapping[str, Any]) -> dict[str, float]:
    """Held-out losses at the end of a run; none of a diverged one."""
    if row["diverged_at"] is not None or not row["held_out"]:
        return {}
    return dict(row["held_out"][-1]["losses"])


def make_scaling(inputs: ScalingInputs, options: ScalingOptions, output: Output) -> Counts:
    """Fit the laws to a ladder; write what they say and the table of runs."""
    table = table_of_runs(inputs.runs)
    target = None if options.target is None else Target(*options.target)
    found = analyse(table, target, BOOTSTRAPS, options.seed)
    write_table(table, output.path(".scaling.csv"))
    text = json.dumps(found, indent=1, sort_keys=True, allow_nan=False)
    output.path(".scaling.json").write_text(text, encoding="utf-8")
    return {"runs": table.num_runs, "best": str(found["best"])}


def analyse_file(path: Path, seed: int) -> dict[str, Any]:
    """Fit somebody's table of sizes; nothing is trained."""
    return analyse(read_table(path), None, BOOTSTRAPS, seed)
