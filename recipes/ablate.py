"""The ablation as a part of a run: design, proxies, analysis, chosen weights.

`mixing.ablation` says which runs and what follows from their losses; `training.swarm` trains one; here they meet. A
finished run is one file, found by key, so that a half-finished swarm resumes and a larger one reuses what is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.stage import Counts, Output
from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.design import DesignOptions, PlannedRun, design
from mixing.ablation.runs import read_csv, table_of, write_csv
from mixing.domain_stage import Domain, read_domains
from mixing.patterns import resolve_weights, values_of
from mixing.tokenizer import load_tokenizer
from mixing.weights import natural, unimax
from recipes.artifacts import key_of
from recipes.curate import ALL
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from recipes.progress import compact
from recipes.shapes import batch_tokens_of, learning_rate_of, optimizer_of, shape_of, tokens_of
from recipes.tokens import order_of, plan_domains, weights_of
from training.models.shape import flops_per_token, num_parameters
from training.swarm import SwarmOptions, SwarmRun, read_run, train_run

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.tokens import Tokens

VERSIONS = {"proxies": 1, "weights": 1}
MAX_HELD_OUT = 32
BOOTSTRAPS = 200


@dataclass(frozen=True)
class Ablation:
    """A finished ablation: the chosen weights and everything they rest on."""

    weights: dict[str, float]
    analysis: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class AnalysisInputs:
    """Run files by name, in the design's order, with the kind of each."""

    runs: tuple[tuple[str, str, str], ...]  # (name, kind, path)


def ablate(run: Run) -> Ablation:
    """Train what is missing of the swarm, fit the surrogates and choose weights."""
    tokens = run.tokens
    run.narrator.heading("Ablation")
    listed = domains_to_mix(tokens)
    options = swarm_options(run, tokens)
    thinned = _thinned_domains(run, tokens, listed, options)
    planned = plan_design(run, listed)
    _announce(run, planned, options)
    proxies = _plan_proxies(run, tokens, thinned, planned, options)
    run.make([proxies])
    stage = _plan_weights(run, proxies, planned, listed)
    run.make([stage])
    analysis = json.loads(Path(stage.file(ALL, ".analysis.json")).read_text(encoding="utf-8"))
    for note in analysis["notes"]:
        run.narrator.say(f"  {note}")
    return Ablation(dict(analysis["chosen"]), analysis, stage.folder.path)


def domains_to_mix(tokens: Tokens) -> list[Domain]:
    """Domains that a mixture may draw from: those with text to train on."""
    return [domain for domain in read_domains(tokens.domains_path) if domain.num_tokens]


def swarm_options(run: Run, tokens: Tokens) -> SwarmOptions:
    """What all proxies share."""
    wanted: Any = run.recipe.ablation
    shape = shape_of(wanted.proxy, load_tokenizer(tokens.tokenizer).vocabulary)
    values = wanted.proxy.training
    batch = batch_tokens_of(values, shape.context)
    length = tokens_of(wanted.tokens, shape.context, batch) // batch * batch
    return SwarmOptions(
        shape=shape,
        tokens=length,
        batch_tokens=batch,
        learning_rate=learning_rate_of(values, shape.context, length),
        optimizer=optimizer_of(values),
        precision=values.precision,
        evaluate=wanted.evaluate.number,
        max_held_out=MAX_HELD_OUT,
        threads=wanted.threads,
        separator=load_tokenizer(tokens.tokenizer).eos if run.recipe.sequences.document_masks else None,
    )


def target_tokens(run: Run) -> int:
    """Tokens of the schedule that the ablation is for; without one, of a proxy run."""
    recipe: Any = run.recipe
    if not recipe.schedule or recipe.model is None:
        context = recipe.ablation.proxy.context
        return tokens_of(recipe.ablation.tokens, context, batch_tokens_of(recipe.ablation.proxy.training, context))
    context = recipe.model.context
    batch = batch_tokens_of(recipe.training, context)
    return sum(tokens_of(phase.tokens, context, batch) for phase in recipe.schedule)


def _thinned_domains(run: Run, tokens: Tokens, listed: list[Domain], options: SwarmOptions) -> PlannedStage:
    """Domains thinned by document so that proxies repeat them as often as the target run will.

    A domain keeps at least eight sequences: below that a proxy would learn it by heart.
    """
    share = min(1.0, options.tokens / max(1, target_tokens(run)))
    least = 8 * options.shape.context
    thinned = tuple((domain.name, round(min(1.0, max(share, least / domain.num_tokens)), 6)) for domain in listed)
    if share == 1.0:
        return tokens.domains
    stage = plan_domains(run, run.curation, tokens.shards, list(tokens.shard_keys), thinned)
    run.make([stage])
    return stage


def plan_design(run: Run, listed: list[Domain]) -> list[PlannedRun]:
    """The runs of the swarm."""
    wanted: Any = run.recipe.ablation
    runs = wanted.runs
    options = DesignOptions(
        one_domain=runs.one_domain,
        dirichlet=runs.dirichlet,
        leave_one_out=runs.leave_one_out,
        space_filling=runs.space_filling,
        d_optimal=runs.d_optimal,
        sequential=runs.sequential,
        repeats=runs.repeats,
        bounds=tuple(sorted((pattern, low, high) for pattern, (low, high) in wanted.bounds.items())),
        baselines=tuple(_baselines(run, listed)),
        orders=tuple(order_of(order) for order in wanted.orders),
        seed=run.recipe.seed,
        caps=tuple(_most_weights(run, listed)),
    )
    return design([domain.name for domain in listed], _shares(listed), options)


def _most_weights(run: Run, listed: list[Domain]) -> Iterator[tuple[str, float]]:
    """The weight above which the target run would pass a domain more often than it may."""
    budget = target_tokens(run)
    for name, cap in _caps(run, [domain.name for domain in listed]).items():
        supply = next(domain.num_tokens for domain in listed if domain.name == name)
        if cap * supply < budget:
            yield name, cap * supply / budget


def _shares(listed: list[Domain]) -> dict[str, float]:
    """Natural weights."""
    total = sum(domain.num_tokens for domain in listed)
    return {domain.name: domain.num_tokens / total for domain in listed}


def _baselines(run: Run, listed: list[Domain]) -> Iterator[tuple[str, dict[str, float]]]:
    """Weights that are trained beside the design, by name; natural is the design's own."""
    wanted: Any = run.recipe.ablation
    supply = {domain.name: domain.num_tokens for domain in listed}
    for weights in wanted.baselines:
        kind, power, shares = weights_of(run, weights, None)
        if kind == "natural" and power == 1.0:
            continue
        if kind == "natural":
            yield f"natural^{power:g}", _normalised(natural(supply, power))
        elif kind == "unimax":
            yield "unimax", _normalised(unimax(supply, target_tokens(run), _caps(run, list(supply))))
        else:
            name = Path(str(weights.path)).stem if weights.path else "shares"
            yield name, resolve_weights(dict(shares), list(supply), {n: float(t) for n, t in supply.items()})


def _caps(run: Run, names: list[str]) -> dict[str, float]:
    return dict.fromkeys(names, float("inf")) | values_of(run.recipe.domains.max_epochs, names)


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def announce(run: Run) -> None:
    """Say what the ablation would train, without training."""
    tokens = run.tokens
    listed = domains_to_mix(tokens)
    options, planned = swarm_options(run, tokens), plan_design(run, listed)
    for one in planned:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in sorted(one.weights.items()) if share)
        run.narrator.say(f"  {one.name:<20} seed {one.seed}  {shares}")
    _announce(run, planned, options)


def analyse_table(run: Run, path: Path) -> dict[str, Any]:
    """Fit somebody's table of runs (`runs.csv`) and choose weights; nothing is trained.

    Domains of the table are taken as they are; supply and caps count where the recipe's domains have the same names.
    """
    table = read_csv(path)
    supply = dict.fromkeys(table.domains, 1)
    natural_weights = dict.fromkeys(table.domains, 1.0 / len(table.domains))
    if run.recipe.tokenizer is not None and run.recipe.steps:
        listed = [d for d in read_domains(run.tokens.domains_path) if d.name in supply]
        if len(listed) == len(supply):
            supply, natural_weights = {d.name: d.num_tokens for d in listed}, _shares(listed)
    wanted: Any = run.recipe.ablation
    options = AnalysisOptions(
        natural=natural_weights,
        objective={} if wanted is None else _objective(wanted, run),
        bounds=(),
        supply=supply,
        max_epochs=dict.fromkeys(supply, float("inf")),
        budget_tokens=sum(supply.values()),
        surrogates=() if wanted is None else wanted.surrogates,
        bootstraps=BOOTSTRAPS,
        seed=run.recipe.seed,
    )
    return dict(analyse(table, options))


def _announce(run: Run, planned: list[PlannedRun], options: SwarmOptions) -> None:
    """Runs, tokens, parameters and operations, before they are spent."""
    tokens = len(planned) * options.tokens
    flops = tokens * flops_per_token(options.shape)
    run.narrator.say(
        f"  {len(planned)} proxies of {compact(num_parameters(options.shape))} parameters "
        f"({compact(num_parameters(options.shape, embedding=False))} without embeddings) "
        f"x {compact(options.tokens)} tokens "
        f"= {compact(tokens)} tokens, {flops:.2g} FLOPs"
    )


def _plan_proxies(
    run: Run, tokens: Tokens, thinned: PlannedStage, planned: list[PlannedRun], options: SwarmOptions
) -> PlannedStage:
    domains, measured = Path(thinned.file(ALL, ".domains.json")), tokens.domains_path
    tasks = []
    for one in planned:
        inputs = SwarmRun(
            one.name, tuple(sorted(one.weights.items())), one.seed, str(domains), str(measured), one.order
        )
        tasks.append(PlannedTask(_run_task(one), inputs))
    return plan_stage(
        run.store,
        "proxies",
        [VERSIONS["proxies"], options, thinned.folder.key, tokens.domains.folder.key]
        + (["positions"] if options.separator is not None else []),  # start anew in each document
        title="proxies",
        verb="ablate",
        work=train_run,
        options=options,
        tasks=tuple(tasks),
    )


def _run_task(one: PlannedRun) -> str:
    """Name of a run's file: what it is called, and a hash of what is trained."""
    return f"{one.name.replace('/', '.')}-{key_of(one.weights, one.seed, one.order)[:10]}"


def _plan_weights(run: Run, proxies: PlannedStage, planned: list[PlannedRun], listed: list[Domain]) -> PlannedStage:
    wanted: Any = run.recipe.ablation
    names = [domain.name for domain in listed]
    options = AnalysisOptions(
        natural=_shares(listed),
        objective=_objective(wanted, run),
        bounds=tuple(sorted((pattern, low, high) for pattern, (low, high) in wanted.bounds.items())),
        supply={domain.name: domain.num_tokens for domain in listed},
        max_epochs=_caps(run, names),
        budget_tokens=target_tokens(run),
        surrogates=wanted.surrogates,
        bootstraps=BOOTSTRAPS,
        seed=run.recipe.seed,
    )
    inputs = AnalysisInputs(tuple((one.name, one.kind, proxies.file(_run_task(one), ".run.json")) for one in planned))
    return plan_stage(
        run.store,
        "weights",
        [VERSIONS["weights"], _plain(options), proxies.folder.key, sorted(proxies.task_names)],
        title="weights",
        verb="ablate",
        work=make_weights,
        options=options,
        tasks=(PlannedTask(ALL, inputs),),
    )


def _plain(options: AnalysisOptions) -> AnalysisOptions:
    """The options as a key takes them: a cap without limit is no JSON number."""
    caps = {name: cap if cap != float("inf") else None for name, cap in (options.max_epochs or {}).items()}
    return replace(options, max_epochs=caps)  # type: ignore[arg-type]


def _objective(wanted: Any, run: Run) -> Any:
    """The objective as plain values: shares of patterns, `worst`, or the patterns of a front."""
    if wanted.objective is None:
        return {}
    if wanted.objective.kind == "worst":
        return "worst"
    return dict(wanted.objective.shares) if wanted.objective.kind == "shares" else tuple(wanted.objective.pareto)


def make_weights(inputs: AnalysisInputs, options: AnalysisOptions, output: Output) -> Counts:
    """Read the runs, fit, choose; write the analysis and the table of runs."""
    rows = [read_run(path) for _, _, path in inputs.runs]
    table = table_of(rows, {name: kind for name, kind, _ in inputs.runs})
    write_csv(table, output.path(".runs.csv"))
    analysis = analyse(table, options)
    output.path(".analysis.json").write_text(json.dumps(analysis, indent=1, sort_keys=True), encoding="utf-8")
    return {"runs": len(rows), "surrogate": str(analysis.get("surrogate"))}


__all__ = ["Ablation", "ablate", "make_weights", "plan_design", "swarm_options"]
