"""Forecast: what a whole run will come to, from curating a sample of it.

Shares of documents come with Wilson intervals; amounts of text with the spread over documents is left out, so a source
of few very long documents is less certain than it says. Times are of this machine.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.ledger import Ledger
from recipes.curate import curate
from recipes.recipe import load_recipe

if TYPE_CHECKING:
    from recipes.run import Run

_Z = 1.96  # 95 %
# Where no tokenizer is at hand: about what byte-level BPE of 32,000 makes of the shared texts.
_BYTES_PER_TOKEN = 4.0


@dataclass(frozen=True)
class SourceForecast:
    """What a source will keep: documents with a 95 % interval, bytes of text, tokens, disk of its layers, hours."""

    source: str
    rows: int
    kept: int
    kept_low: int
    kept_high: int
    bytes: int
    tokens: int
    drops: dict[str, int]


@dataclass(frozen=True)
class Forecast:
    """A run's forecast."""

    sample: float
    sources: list[SourceForecast]
    cpu_hours: float
    disk_bytes: int
    files: int


def forecast(run: Run, sample: float, overrides: tuple[str, ...]) -> Forecast:
    """Curate a sample in the run's work directory and scale what it gave."""
    from recipes.run import Run as AnyRun

    assert run.recipe.path is not None
    # A share of what the run itself would read: a source that is sampled anyway is sampled further.
    shares = [f"sources.{name}.sample={sample * source.sample!r}" for name, source in run.recipe.sources.items()]
    sampled = load_recipe(run.recipe.path, (*overrides, *shares))
    started = time.monotonic()
    with AnyRun.open(sampled, silent=run.narrator.console.quiet) as small:
        small.remembers = small.checks = False
        plan = curate(small, remember=False)
        counts = [small.counts[stage.folder.name] for stage in plan.stages]
        folders = {stage.folder.path for stage in plan.stages}
    elapsed_s = time.monotonic() - started
    ledger = plan.ledger()
    disk = sum(file.stat().st_size for folder in folders for file in folder.rglob("*.parquet"))
    return Forecast(
        sample=sample,
        sources=[_source(ledger, source.name, sample) for source in ledger.sources],
        cpu_hours=elapsed_s / sample / 3600 * run.recipe.execution.num_workers() if counts else 0.0,
        disk_bytes=int(disk / sample),
        files=sum(len(stage.tasks) for stage in plan.stages),
    )


def _source(ledger: Ledger, name: str, sample: float) -> SourceForecast:
    import polars as pl

    frame = ledger.scan([name]).select("kept", "reason", "size_bytes").collect()
    rows, kept = frame.height, int(frame["kept"].sum())
    low, high = wilson(kept, rows)
    size = int(frame.filter(pl.col("kept"))["size_bytes"].sum() or 0)
    counted = frame["reason"].drop_nulls().value_counts(sort=True)
    drops = dict(zip(counted["reason"].to_list(), (round(n / sample) for n in counted["count"].to_list())))
    return SourceForecast(
        source=name,
        rows=round(rows / sample),
        kept=round(kept / sample),
        kept_low=math.floor(low * rows / sample),
        kept_high=math.ceil(high * rows / sample),
        bytes=round(size / sample),
        tokens=round(size / sample / _BYTES_PER_TOKEN),
        drops=drops,
    )


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share.

    Source: Wilson 1927, Journal of the American Statistical Association 22.
    """
    if not trials:
        return 0.0, 1.0
    share, z2 = hits / trials, _Z * _Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def as_rows(found: Forecast) -> list[dict[str, Any]]:
    """The sources as mappings."""
    return [vars(source) for source in found.sources]
