"""A swarm of proxies as a stage: what its runs share, the domains they draw from, and one file for each finished run.

An ablation's proxies, its confirmation one size up and a scaling ladder are all made here. A finished run is found by
the key of what its swarm shares and by the hash of what it trains, whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.ablation.design import PlannedRun
from mixing.domain_stage import Domain
from mixing.tokenizer import load_tokenizer
from recipes.ablation.stacking import in_stacks
from recipes.artifacts import key_of
from recipes.curating.curate import ALL
from recipes.errors import NotYet
from recipes.pipeline import PlannedStage, PlannedTask, TasksSetAside, plan_stage
from recipes.pretraining.shapes import batch_tokens_of, learning_rate_of, optimizer_of, shape_of, tokens_of
from recipes.tokenizing.sorting import plan_values
from recipes.tokenizing.tokens import plan_domains
from training.swarm import SwarmOptions, SwarmRun, read_run, train_run

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.tokenizing.tokens import Tokens

VERSIONS = {"proxies": 1}
# Windows of held-out text measured for each domain: half a target's. Measuring is a good part of what a short proxy run
# costs, and the windows are the same for all proxies, so their error goes out of the differences that are compared.
PROXY_HELD_OUT = 32


class Untrained(NotYet):
    """The weights that an ablation chooses are asked for by a verb that only looks, and proxies are missing."""

    def __init__(self, run: Run, progress: str = "whose runs are not all trained") -> None:
        asked = run.recipe.open_phases()
        whose = f"phase {', '.join(asked)}: its weights come from" if asked else "it asks for the weights of"
        super().__init__(
            f"{run.recipe.path}: {whose} the ablation, {progress}; `gristmill ablate {run.recipe.called}` trains them"
        )


@dataclass(frozen=True)
class SwarmSize:
    """What a swarm trains for how long: a recipe's model, tokens of a run, how often it is measured, its threads."""

    model: Any
    tokens: Any
    evaluate: int
    threads: int = 1


def swarm_options(run: Run, tokens: Tokens, size: SwarmSize) -> SwarmOptions:
    """What all proxies of a swarm share."""
    tokenizer = load_tokenizer(tokens.tokenizer)
    return sized_options(run, size, tokenizer.vocabulary, tokenizer.eos)


def sized_options(run: Run, size: SwarmSize, vocabulary: int, separator: int | None) -> SwarmOptions:
    """What all proxies share, by the tokenizer's number of tokens and its id of a document's end."""
    shape = shape_of(size.model, vocabulary)
    values = size.model.training
    batch = batch_tokens_of(values, shape.context)
    length = tokens_of(size.tokens, shape.context, batch) // batch * batch
    return SwarmOptions(
        shape=shape,
        tokens=length,
        batch_tokens=batch,
        learning_rate=learning_rate_of(values, shape.context, length),
        optimizer=optimizer_of(values),
        precision=values.precision,
        evaluate=size.evaluate,
        max_held_out=PROXY_HELD_OUT,
        threads=size.threads,
        separator=separator if run.recipe.sequences.document_masks else None,
    )


def plan_thinned(run: Run, tokens: Tokens, listed: list[Domain], options: SwarmOptions, target: int) -> PlannedStage:
    """Domains thinned by document so that proxies repeat them as often as a run of `target` tokens will.

    A domain keeps at least eight sequences: below that a proxy would learn it by heart.
    """
    share = min(1.0, options.tokens / max(1, target))
    if share == 1.0:
        return tokens.domains
    least = 8 * options.shape.context
    thinned = tuple((domain.name, round(min(1.0, max(share, least / domain.num_tokens)), 6)) for domain in listed)
    return plan_domains(run, run.curation, tokens.shards, list(tokens.shard_keys), thinned)


def thinned_domains(run: Run, tokens: Tokens, listed: list[Domain], options: SwarmOptions, target: int) -> PlannedStage:
    """The stage of `plan_thinned` once it is made."""
    stage = plan_thinned(run, tokens, listed, options, target)
    if stage is not tokens.domains:
        run.make([stage])
    return stage


def plan_swarm(
    run: Run,
    tokens: Tokens,
    drawn: PlannedStage,
    planned: Sequence[PlannedRun],
    options: SwarmOptions,
    title: str = "proxies",
    verb: str = "ablate",
) -> PlannedStage:
    """The stage that trains a swarm, in the order of its runs.

    Args:
        run: the run.
        tokens: its tokens.
        drawn: the domains that runs draw from, thinned or not.
        planned: the runs.
        options: what they share.
        title: what a person reads.
        verb: the part of the run that it belongs to.
    """
    domains, measured = drawn.file(ALL, ".domains.json"), str(tokens.domains_path)
    values = plan_values(run, drawn, signals_of_runs(planned, options), "ablate")
    sorted_by = None if values is None else values.file(ALL, ".values.json")
    tasks = tuple(
        PlannedTask(
            run_task(one),
            SwarmRun(
                one.name, tuple(sorted(one.weights.items())), one.seed, domains, measured, one.order,
                sorted_by if one.order[0] == "by" else None,
            ),
        )
        for one in planned
    )  # fmt: skip
    stage = plan_stage(
        run.store,
        "proxies",
        [VERSIONS["proxies"], options, drawn.folder.key, tokens.domains.folder.key]
        + (["positions"] if options.separator is not None else []),  # start anew in each document
        title=title,
        verb=verb,
        work=train_run,
        options=options,
        tasks=tasks,
        sets_aside=True,
    )
    kept = [replace(task.inputs, state=str(state_file(stage, task.name))) for task in tasks]
    return replace(stage, tasks=tuple(PlannedTask(task.name, one) for task, one in zip(tasks, kept, strict=True)))


def state_file(swarm: PlannedStage, task: str) -> Path:
    """Where a run is kept at each measurement until it is whole; scratch, which nothing else needs."""
    return swarm.folder.file(task, ".paused.pt")


def signals_of_runs(planned: Sequence[PlannedRun], options: SwarmOptions) -> list[tuple[str, int]]:
    """(signal, context) of every run that is ordered by a signal."""
    return sorted({(one.order[1][0], options.shape.context) for one in planned if one.order[0] == "by"})


def make_swarm(run: Run, swarm: PlannedStage) -> None:
    """Train what is missing of a swarm. A run that fails is tried once more when the others are done.

    Raises:
        TasksSetAside: with each run that failed twice and why; the others are kept.
        Untrained: where runs are missing and this verb may not train.
    """
    if not run.trains and swarm.missing():
        raise Untrained(run)
    make_runs(run, in_stacks(run, swarm))


def make_runs(run: Run, swarm: PlannedStage) -> None:
    """Train what is missing, each run alone; raises as `make_swarm` does."""
    if not run.trains and swarm.missing():
        raise Untrained(run)
    try:
        run.make([swarm])
    except TasksSetAside as failed:
        run.narrator.say(f"  {len(failed.tasks)} runs failed and are tried once more: {failed.tasks[0][1]}")
        run.make([swarm])


@contextmanager
def untrained(run: Run) -> Iterator[None]:
    """Let nothing train meanwhile: a run that is missing raises `Untrained`."""
    before, run.trains = run.trains, False
    try:
        yield
    finally:
        run.trains = before


def run_task(one: PlannedRun) -> str:
    """Name of a run's file: what it is called, and a hash of what is trained."""
    return f"{one.name.replace('/', '.')}-{key_of(one.weights, one.seed, one.order)[:10]}"


def run_file(swarm: PlannedStage, one: PlannedRun) -> str:
    """Path of a run's row."""
    return swarm.file(run_task(one), ".run.json")


def finished(swarm: PlannedStage, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Those runs of a swarm that are whole."""
    missing = set(swarm.missing())
    return [one for one in planned if run_task(one) not in missing]


def rows_of(swarm: PlannedStage, planned: Sequence[PlannedRun]) -> list[dict[str, Any]]:
    """Rows of finished runs, named as the plan names them."""
    return [{**read_run(run_file(swarm, one)), "name": one.name} for one in planned]
