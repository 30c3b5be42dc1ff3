"""`gristmill forecast`: what a run will come to, before it is spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact, compact_bytes, duration

if TYPE_CHECKING:
    from recipes.pretraining.training_cost import TrainingForecast

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
    from recipes.ledger.forecasting import forecast
    from recipes.pretraining.training_cost import training_forecast

    sample = flags.sample or 0.01
    with flags.open_run_unsampled() as run:
        found = forecast(run, sample, flags.overrides)
        training = training_forecast(run)
    if flags.as_json:
        print_json({**asdict(found), "training": None if training is None else asdict(training)})
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
    for line in [] if training is None else _training_lines(training):
        click.echo(line)


def _training_lines(found: TrainingForecast) -> Iterator[str]:
    """What training comes to, a line each: length, time, memory."""
    yield (
        f"training: {compact(found.parameters)} parameters, {compact(found.tokens)} tokens in {found.steps:,} train "
        f"steps, {found.flops:.2g} FLOPs"
    )
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
