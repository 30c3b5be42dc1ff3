"""Forecast: what a whole run will come to, from curating a sample of it.

Shares of documents come with Wilson intervals, amounts of text and tokens with those of a ratio over documents. Steps
that compare documents are forecast from a sample too: of n copies, a sample of a share s holds about s*n, so a sample
shows fewer duplicates than the whole; the forecast says where that is. Times are of this machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curation.ledger import Ledger, scan_shard
from recipes.curating.curate import curate
from recipes.schema.recipe import load_recipe, sampled
from recipes.tokenizing.token_rate import TokenRate, token_rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from recipes.curating.curate import Plan
    from recipes.pipeline import PlannedStage
    from recipes.run import Run

_Z = 1.96  # 95 %
_START_S = 3.0  # a stage's kernels and models, at most


@dataclass(frozen=True)
class SourceForecast:
    """What a source will keep, each with a 95 % interval: documents, bytes of text, tokens; and drops by reason.

    `tokens_by` says what tokens were counted with (`TokenRate.basis`). `duplicates` are in `drops` and grow faster than
    the sample: where a step compares documents, `kept_low` leaves room for four times as many.
    """

    source: str
    rows: int
    kept: int
    kept_low: int
    kept_high: int
    bytes: int
    bytes_low: int
    bytes_high: int
    tokens: int
    tokens_low: int
    tokens_high: int
    tokens_by: str
    drops: dict[str, int]


@dataclass(frozen=True)
class StepForecast:
    """What one stage will cost: CPU hours, bytes on disk and files of the whole run."""

    stage: str
    cpu_hours: float
    cpu_hours_low: float
    cpu_hours_high: float
    disk_bytes: int
    files: int


@dataclass(frozen=True)
class Forecast:
    """A run's forecast."""

    sample: float
    sources: list[SourceForecast]
    steps: list[StepForecast]
    cpu_hours: float
    disk_bytes: int
    files: int


def forecast(run: Run, sample: float, overrides: tuple[str, ...]) -> Forecast:
    """Curate a sample in the run's work directory and scale what it gave."""
    from recipes.run import Run as AnyRun

    assert run.recipe.path is not None
    smaller = load_recipe(run.recipe.path, (*overrides, *sampled(run.recipe, sample)))
    with AnyRun.open(smaller, silent=run.narrator.console.quiet) as small:
        small.remembers = small.checks = False
        plan = curate(small, remember=False)
        ledger = plan.ledger()
        rates = token_rates(small, ledger)
        totals = {
            name: _total(plan, name, run.recipe.sources[name].sample, small.counts) for name in sorted(plan.sources)
        }
    steps = _steps(plan.stages, sample)
    return Forecast(
        sample=sample,
        sources=[_source(ledger, s.name, sample, totals[s.name], rates[s.name]) for s in ledger.sources],
        steps=steps,
        cpu_hours=sum(step.cpu_hours for step in steps),
        disk_bytes=sum(step.disk_bytes for step in steps),
        files=sum(step.files for step in steps),
    )


def _total(plan: Plan, name: str, share: float, counts: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Rows the whole run will read of a source: exact where it reads all, since a sample counts what it leaves out."""
    stage = next(stage for stage in plan.stages if stage.title == f"{name}: read")
    told = counts[stage.folder.name]
    seen = int(told["rows"]) + int(told["unread.sample"])
    return seen if share == 1 else round(seen * share)


def _step(stage: PlannedStage, sample: float, reading_s: float = 0.0) -> StepForecast:
    """Scale what a stage took.

    A sample is read whole and then thinned, so the time of reading does not grow; the rest does. The interval goes from
    "start-up (kernels, models) was 3 s of it" to "all of it grows".
    """
    told = stage.folder.path / "run.json"
    seconds = json.loads(told.read_text(encoding="utf-8"))["seconds"] if told.exists() else 0.0
    files = [
        file
        for file in stage.folder.path.rglob("*")
        if file.is_file() and file.suffix != ".json" and not file.name.startswith(".")
    ]
    fixed = min(seconds, reading_s) if not _reads(stage) else seconds
    low, middle, high = (
        (fixed + max(0.0, seconds - fixed - start) / sample) / 3600 for start in (_START_S, _START_S / 2, 0.0)
    )
    return StepForecast(
        stage.title, middle, low, high, round(sum(file.stat().st_size for file in files) / sample), len(files)
    )


def _reads(stage: PlannedStage) -> bool:
    return stage.title.endswith(": read")


def _steps(stages: list[PlannedStage], sample: float) -> list[StepForecast]:
    """All stages; what reads a source's own text again reads as long as its rows layer took."""
    reading: dict[str, float] = {}
    found = []
    for stage in stages:
        source = stage.title.partition(":")[0]
        step = _step(stage, sample, reading.get(source, 0.0))
        if _reads(stage):
            reading[source] = step.cpu_hours_high * 3600
        found.append(step)
    return found


def _source(ledger: Ledger, name: str, sample: float, total: int | None, rate: TokenRate) -> SourceForecast:
    """Scale what was kept of a source; `total` is the number of its rows where reading has counted them."""
    counted = Counted()
    for shard in ledger.source(name).shards:
        counted.add(scan_shard(shard).select("kept", "reason", "size_bytes").collect())
    return scaled(name, counted, sample, total, rate)


def scaled(name: str, counted: Counted, sample: float, total: int | None, rate: TokenRate) -> SourceForecast:
    """A source's forecast from what a sample of it holds; rows are sampled independently with probability `sample`."""
    rows = round(counted.rows / sample) if total is None else total
    low, high = wilson(counted.kept, counted.rows)
    # of near-copies a sample shows about s*s: there may be 1/s times as many as it says
    hidden = max(0.0, counted.duplicates / sample**2 - counted.duplicates / sample)
    kept_low = max(0, math.floor(low * rows - hidden))
    size, half = counted.size / sample, _Z * math.sqrt((1 - sample) * counted.squares) / sample
    size_low = max(0.0, size - half) * (kept_low / (low * rows) if low * rows else 1.0)
    return SourceForecast(
        source=name,
        rows=rows,
        kept=round(counted.kept / max(1, counted.rows) * rows),
        kept_low=kept_low,
        kept_high=min(rows, math.ceil(high * rows)),
        bytes=round(size),
        bytes_low=math.floor(size_low),
        bytes_high=math.ceil(size + half),
        tokens=rate.tokens(round(size)),
        tokens_low=math.floor(size_low * rate.low),
        tokens_high=math.ceil((size + half) * rate.high),
        tokens_by=rate.basis,
        drops={reason: round(count / sample) for reason, count in counted.reasons.most_common()},
    )


@dataclass
class Counted:
    """What a sample of a source holds; `size` and `squares` are of kept texts' bytes."""

    rows: int = 0
    kept: int = 0
    size: int = 0
    squares: float = 0.0
    duplicates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, frame: pl.DataFrame) -> None:
        """Count the rows of one shard."""
        sizes = frame.filter("kept")["size_bytes"].cast(float)
        self.rows += frame.height
        self.kept += len(sizes)
        self.size += int(sizes.sum())
        self.squares += float((sizes**2).sum())
        counts = frame["reason"].drop_nulls().value_counts(sort=True)
        self.reasons.update(dict(zip(counts["reason"].to_list(), counts["count"].to_list(), strict=True)))
        self.duplicates += sum(n for r, n in zip(counts["reason"], counts["count"]) if r.endswith(".duplicate"))


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
