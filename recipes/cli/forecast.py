"""`gristmill forecast`: what a run will come to, before it is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact, compact_bytes, duration

if TYPE_CHECKING:
    from recipes.ablation.swarm_cost import SwarmCost
    from recipes.pretraining.training_cost import TrainingForecast
    from recipes.run import Run

Found = TypeVar("Found")

_COUNTED_BY = {
    "tokenizer": "the recipe's tokenizer",
    "sample": "a tokenizer of its kind trained on the sample",
    "typical": "4 bytes a token",
}


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Estimate documents, tokens, hours and bytes from a sample, before spending them.

    \b
    gristmill forecast recipes/quickstart.yaml --sample 0.1
    """
    from recipes.ablation.foretold import study_forecast
    from recipes.finetuning.cost import tuning_forecast
    from recipes.ledger.forecasting import forecast
    from recipes.pretraining.training_cost import training_forecast, training_is_there

    sample = flags.sample or 0.01
    with flags.open_run_unsampled() as run:
        found = forecast(run, sample, flags.overrides)
        domains = {name: number for source in found.sources for name, number in source.domains.items()}
        study = found_or_why(lambda: study_forecast(run, domains))
        training = training_forecast(run, there=training_is_there(run))
        tuning = found_or_why(lambda: tuning_forecast(run))
    if flags.as_json:
        parts = {"training": training, "finetuning": tuning[0]}
        told = {name: None if part is None else asdict(part) for name, part in parts.items()}
        swarms = None if study[0] is None else [asdict(one) for one in study[0]]
        print_json({**asdict(found), "ablation": swarms, **told})
        return
    click.echo(
        f"{'source':<20} {'rows':>9} {'kept':>9}   {'95 % interval':<20} {'bytes':>7} {'tokens':>7}   95 % interval"
    )
    for source in found.sources:
        interval = f"{source.kept_low:,} to {source.kept_high:,}"
        tokens = f"{compact(source.tokens_low)} to {compact(source.tokens_high)}, by {_COUNTED_BY[source.tokens_by]}"
        click.echo(
            f"{source.source:<20} {source.rows:>9,} {source.kept:>9,}   {interval:<20} "
            f"{compact(source.bytes):>7} {compact(source.tokens):>7}   {tokens}"
        )
        for reason, count in list(source.drops.items())[:3]:
            click.echo(f"    dropped {count:>9,}  {reason}")
    click.echo(f"{'stage':<48} {'core time':>10}   {'interval':<20} {'disk':>8}   {'interval':<20} {'files':>6}")
    for step in found.steps:
        interval = f"{_time(step.cpu_hours_low)} to {_time(step.cpu_hours_high)}"
        disk = (
            compact_bytes(step.disk_bytes),
            f"{compact_bytes(step.disk_bytes_low)} to {compact_bytes(step.disk_bytes_high)}",
        )
        click.echo(
            f"{step.stage:<48} {_time(step.cpu_hours):>10}   {interval:<20} {disk[0]:>8}   {disk[1]:<20} "
            f"{step.files:>6,}"
        )
    click.echo(
        f"curation: {_time(found.cpu_hours)} of cores ({_time(found.cpu_hours_low)} to {_time(found.cpu_hours_high)}), "
        f"{compact_bytes(found.disk_bytes)} ({compact_bytes(found.disk_bytes_low)} to "
        f"{compact_bytes(found.disk_bytes_high)}) in {found.files:,} files; from a sample of {found.sample:g}"
    )
    for line in later_lines(study, training, tuning):
        click.echo(line)


def found_or_why(find: Callable[[], Found]) -> tuple[Found | None, str]:
    """What is found, or in a line why it is not known yet: the rest of a forecast is worth showing all the same."""
    from recipes.errors import RunError
    from recipes.schema.located import RecipeErrors

    try:
        return find(), ""
    except (RunError, RecipeErrors) as error:
        return None, f"{error}".splitlines()[0]


def later_costs(run: Run, last: str) -> Iterator[str]:
    """What the ablation and the fine-tuning come to, of the parts up to `last`, once the text is there."""
    from recipes.ablation.foretold import study_forecast
    from recipes.finetuning.cost import tuning_forecast
    from recipes.show import text_is_made
    from recipes.whole import parts_up_to

    wanted = parts_up_to(run, last)
    study = found_or_why(lambda: study_forecast(run)) if "ablate" in wanted and text_is_made(run) else (None, "")
    tuned = "finetune" in wanted and text_is_made(run)
    yield from later_lines(study, None, found_or_why(lambda: tuning_forecast(run)) if tuned else (None, ""))


def later_lines(
    study: tuple[Sequence[SwarmCost] | None, str],
    training: TrainingForecast | None,
    tuning: tuple[TrainingForecast | None, str],
) -> Iterator[str]:
    """What ablation, training and fine-tuning come to, or why that of the first and the last is not known yet."""
    from recipes.ablation.study_cost import study_lines

    for place, line in enumerate(study_lines(study[0] or [])):
        yield f"  {line}" if place else f"ablation: {line}"
    if study[1]:
        yield f"ablation: not known yet: {study[1]}"
    yield from [] if training is None else _training_lines(training, "training")
    yield from [] if tuning[0] is None else _training_lines(tuning[0], "fine-tuning")
    if tuning[1]:
        yield f"fine-tuning: not known yet: {tuning[1]}"


def _training_lines(found: TrainingForecast, what: str) -> Iterator[str]:
    """What training comes to, a line each: length, time, memory."""
    yield (
        f"{what}: {compact(found.parameters)} parameters, {compact(found.tokens)} tokens in {found.steps:,} train "
        f"steps, {found.flops:.2g} FLOPs"
    )
    if found.there:
        yield "  it is there"
        return
    processes = "1 process" if found.processes == 1 else f"{found.processes} processes"
    processes += f" on each of {found.nodes} machines like this" if found.nodes > 1 else ""
    took = "time unknown" if found.seconds is None else duration(found.seconds)
    yield f"  {took} with {processes}, {found.basis}"
    free = "" if found.free_bytes is None else f" of {compact_bytes(found.free_bytes)} that are free"
    yield (
        f"  {compact_bytes(found.process_bytes)} of memory a process{free}, with {found.micro_batch} of its "
        f"{found.share} sequences at once; a checkpoint takes {compact_bytes(found.checkpoint_bytes)}"
    )
    if not found.fits:
        yield "  this does not fit: fewer processes (execution.training.devices), a smaller micro_batch, or recompute"


def _time(hours: float) -> str:
    return duration(hours * 3600)
