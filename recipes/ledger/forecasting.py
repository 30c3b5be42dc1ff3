"""Forecast: what a whole run will come to, from curating a sample of it.

Shares of documents come with Wilson intervals, amounts of text and tokens with those of a ratio over documents. Steps
that compare documents are forecast from a sample too: a sample of a share s has both of two near-copies with
probability s*s, so it shows fewer than the whole; `Counted.unique_share` allows for that. Times are CPU times of this
machine.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from curation.ledger import Ledger, scan_shard
from mixing.selections import UNKNOWN
from recipes.artifacts import LAST_MAKING
from recipes.curating.curate import curate
from recipes.schema.recipe import load_recipe, sampled
from recipes.tokenizing.token_rate import TokenRate, token_rates
from recipes.tokenizing.tokens import splits_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import polars as pl

    from curation.passes import ShardInputs
    from recipes.curating.curate import Plan
    from recipes.pipeline import PlannedStage
    from recipes.run import Run

_Z = 1.96  # 95 %
_START_S = 3.0  # a stage's imports and models, at most
_CHUNK_HEAD = 80  # bytes of page headers and statistics of a column in a Parquet file, as measured on ours


@dataclass(frozen=True)
class SourceForecast:
    """What a source will keep, each with a 95 % interval: documents, bytes of text, tokens; and drops by reason.

    `tokens_by` says what tokens were counted with (`TokenRate.basis`). Near-copies grow faster than the sample: `kept`
    and its interval allow for those that the sample has one of; `drops` are of the sample alone, scaled. `domains` are
    tokens of each domain that the source becomes.
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
    domains: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU hours and bytes on disk, each with its interval, and files."""

    cpu_hours: float
    cpu_hours_low: float
    cpu_hours_high: float
    disk_bytes: int
    disk_bytes_low: int
    disk_bytes_high: int
    files: int


@dataclass(frozen=True, kw_only=True)
class StepForecast(Cost):
    """What one stage of the whole run will cost."""

    stage: str


@dataclass(frozen=True, kw_only=True)
class Forecast(Cost):
    """A run's forecast: what all its stages cost together, and what it keeps of each source."""

    sample: float
    sources: list[SourceForecast]
    steps: list[StepForecast]


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
        split = splits_of(small, plan)
    steps = _steps(plan.stages, sample)
    sources = [_source(ledger, s.name, sample, totals[s.name], rates[s.name]) for s in ledger.sources]
    return Forecast(
        sample=sample,
        sources=[replace(one, domains=_domains(ledger, one, split.get(one.source))) for one in sources],
        steps=steps,
        **{one.name: sum(getattr(step, one.name) for step in steps) for one in fields(Cost)},
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
    "start-up (imports, models) was 3 s of it" to "all of it grows".
    """
    seconds = _cpu_seconds(stage)
    fixed = min(seconds, reading_s) if not _reads(stage) else seconds
    low, middle, high = (
        (fixed + max(0.0, seconds - fixed - start) / sample) / 3600 for start in (_START_S, _START_S / 2, 0.0)
    )
    names = [f"{task}." for task in stage.task_names]
    files = [
        file
        for file in stage.folder.path.rglob("*")
        if file.is_file() and not file.name.startswith(".") and (not names or _is_of(stage, file, names))
    ]
    disk = [disk_bytes(file, sample) for file in files]
    disk_low, disk_middle, disk_high = (round(sum(part)) for part in zip(*disk)) if disk else (0, 0, 0)
    return StepForecast(
        stage=stage.title,
        cpu_hours=middle,
        cpu_hours_low=low,
        cpu_hours_high=high,
        disk_bytes=disk_middle,
        disk_bytes_low=disk_low,
        disk_bytes_high=disk_high,
        files=len(files),
    )


def _is_of(stage: PlannedStage, file: Path, names: list[str]) -> bool:
    """Whether a file of a stage's folder is of this run's tasks; others may lie there, of other inputs."""
    path = file.relative_to(stage.folder.path).as_posix()
    return any(path.startswith(name) for name in names) or path == LAST_MAKING or path.startswith("manifest-")


def _cpu_seconds(stage: PlannedStage) -> float:
    """What the last making of a stage took of its workers, for all its tasks; kernels compiled meanwhile left out."""
    told = stage.folder.last_making()
    seconds = told.get("cpu_seconds", told.get("seconds", 0.0) * told.get("workers", 1))
    return float(seconds) * len(stage.tasks) / max(1, len(told.get("tasks", stage.tasks)))


def disk_bytes(file: Path, sample: float) -> tuple[float, float, float]:
    """Bytes that a file of a sample grows to: (least, expected, most).

    What describes a file does not grow: records of tasks, a Parquet file's footer, some `_CHUNK_HEAD` bytes before each
    column of it. Longer columns compress better, so between nothing of the rest and all of it grows with the rows.
    """
    size = file.stat().st_size
    if file.suffix == ".json":
        return size, size, size
    columns, number = size, 0
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        described = pq.read_metadata(file)
        groups = [described.row_group(group) for group in range(described.num_row_groups)]
        chunks = [group.column(column).total_compressed_size for group in groups for column in range(group.num_columns)]
        columns, number = sum(chunks), len(chunks)
    heads = min(columns, _CHUNK_HEAD * number)
    expected = size - columns + heads + (columns - heads) / sample
    return (size + expected) / 2, expected, size - columns + columns / sample


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
    frames = [_rows_of(shard) for shard in ledger.source(name).shards]
    return scaled(name, counted(frames), sample, total, rate)


def _domains(ledger: Ledger, found: SourceForecast, column: str | None) -> dict[str, int]:
    """Tokens of the domains that a source becomes, by the shares of its text in the sample."""
    import polars as pl

    if column is None:
        return {found.source: found.tokens} if found.kept else {}
    frames = [
        scan_shard(shard)
        .filter("kept")
        .select(pl.col(column).cast(pl.String).fill_null(UNKNOWN).alias("part"), pl.col("size_bytes").cast(pl.Int64))
        .collect()
        for shard in ledger.source(found.source).shards
    ]
    sizes = pl.concat(frames).group_by("part").sum().sort("part") if frames else pl.DataFrame()
    total = sizes["size_bytes"].sum() if sizes.height else 0
    parts = zip(sizes["part"], sizes["size_bytes"], strict=True) if total else ()
    return {f"{found.source}/{part}": round(found.tokens * size / total) for part, size in parts if size}


def _rows_of(shard: ShardInputs) -> pl.DataFrame:
    """What is counted of a shard's rows; `cluster_size` is that of the first step that found it near another."""
    import polars as pl

    rows = scan_shard(shard)
    near = [column for column in rows.collect_schema().names() if column.startswith("cluster_size@")]
    size = pl.max_horizontal(near) if near else pl.lit(None, pl.Int64)
    return rows.select(
        "kept", "reason", "size_bytes", "content_id", size.alias("cluster_size"), pl.lit(bool(near)).alias("compared")
    ).collect()


def scaled(name: str, found: Counted, sample: float, total: int | None, rate: TokenRate) -> SourceForecast:
    """A source's forecast from what a sample of it holds; contents are sampled independently with probability `sample`.

    Copies to the letter have one content, and are in the sample together.
    """
    rows = round(found.rows / sample) if total is None else total
    low, high = _kept_share(found, sample)
    expected, least = (found.unique_share(sample, bound=bound) for bound in (False, True))
    size, half = found.size / sample, _Z * math.sqrt((1 - sample) * found.squares) / sample
    kept_low, kept_high = math.floor(low * rows * least), min(rows, math.ceil(high * rows))
    size_low, size_high = max(0.0, size - half) * least, max(size + half, kept_high * found.mean_size)
    kept, ends = round(found.kept / max(1, found.rows) * rows * expected), rate.per_document
    return SourceForecast(
        source=name,
        rows=rows,
        kept=kept,
        kept_low=kept_low,
        kept_high=kept_high,
        bytes=round(size * expected),
        bytes_low=math.floor(size_low),
        bytes_high=math.ceil(size_high),
        tokens=rate.tokens(round(size * expected), kept),
        tokens_low=math.floor(size_low * rate.low) + ends * kept_low,
        tokens_high=math.ceil(size_high * rate.high) + ends * kept_high,
        tokens_by=rate.basis,
        drops={reason: round(count / sample) for reason, count in found.reasons.most_common()},
    )


def _kept_share(found: Counted, sample: float) -> tuple[float, float]:
    """95 % interval of the share of rows that are kept; a whole sample has none."""
    if sample == 1:
        return (share := found.kept / max(1, found.rows)), share
    trials = found.rows / found.spread / (1 - sample)
    return wilson(found.kept * trials / max(1, found.rows), trials)


@dataclass(frozen=True)
class Counted:
    """What a sample of a source holds.

    Attributes:
        rows, kept: numbers of rows.
        size: bytes of kept texts; `squares` is the sum over contents of their squares.
        mean_size: bytes of a kept text, of any where none is kept.
        spread: how much more the share that is kept varies than of rows that are sampled alone (copies are not).
        compared: whether a step looked for near-copies.
        alone, pairs: kept rows that resemble no other of the sample, and those that stay of two.
        lost_pairs: rows dropped for one other that they resemble.
        reasons: rows by why they were dropped.
    """

    rows: int = 0
    kept: int = 0
    size: int = 0
    squares: float = 0.0
    mean_size: float = 0.0
    spread: float = 1.0
    compared: bool = False
    alone: int = 0
    pairs: int = 0
    lost_pairs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def unique_share(self, sample: float, *, bound: bool) -> float:
        """Of what would be kept if near-copies were as frequent in the whole as in the sample, the share that stays.

        Of two near-copies a sample has both with probability s*s, so one pair stands for 1/s*s. That is exact where
        there are pairs alone (Goodman 1949); of larger families it takes too many away, and then the number of
        different ones is at least that of Chao and Lin 2012 (sampling without replacement), unless those of another
        source always win. The better of these two lower bounds is taken.

        Args:
            sample: the share that was sampled.
            bound: for the least share instead: with as many pairs as 2.5 % of samples would show so few of.
        """
        if not self.compared or not self.kept or sample == 1:
            return 1.0
        lost = poisson_upper(self.lost_pairs) if bound else float(self.lost_pairs)
        rest = self.kept - self.alone - self.pairs
        by_pairs = (self.alone + self.pairs + lost) / sample - lost / sample**2 + rest
        unseen = self.alone**2 / (2 * lost + sample / (1 - sample) * self.alone) if self.alone else 0.0
        by_families = self.kept + unseen if self.lost_pairs <= 2 * self.pairs + 1 else 0.0
        return min(1.0, max(0.0, by_pairs, by_families) * sample / self.kept)


def counted(frames: Sequence[pl.DataFrame]) -> Counted:
    """Count the sampled rows of a source's shards. Memory: some 60 bytes a row of the sample.

    Args:
        frames: columns kept, reason, size_bytes, content_id, cluster_size (null where nobody looked) and compared.
    """
    import polars as pl

    if not frames or not sum(frame.height for frame in frames):
        return Counted()
    rows = pl.concat(frames, how="vertical_relaxed").with_columns(
        pl.col("cluster_size").fill_null(1), pl.col("size_bytes").cast(pl.Float64), pl.col("reason").cast(pl.String)
    )
    kept = pl.col("kept")
    contents = rows.group_by("content_id").agg(
        pl.len().alias("copies"), kept.sum(), (pl.col("size_bytes") * kept).sum().alias("size")
    )
    share, chosen = float(rows["kept"].sum()) / rows.height, rows.filter("kept")
    noise = float(((contents["kept"] - share * contents["copies"]) ** 2).sum())
    lost = rows.filter(pl.col("reason").str.ends_with(".duplicate").fill_null(value=False))
    lost = lost.join(chosen.select("content_id"), on="content_id", how="anti")  # else it is a copy to the letter
    sizes = (chosen if chosen.height else rows)["size_bytes"].mean()
    counts = rows["reason"].drop_nulls().value_counts(sort=True)
    return Counted(
        rows=rows.height,
        kept=chosen.height,
        size=int(chosen["size_bytes"].sum()),
        squares=float((contents["size"] ** 2).sum()),
        mean_size=float(sizes) if isinstance(sizes, float) else 0.0,
        spread=max(1.0, noise / (rows.height * share * (1 - share))) if 0 < share < 1 else 1.0,
        compared=bool(rows["compared"].any()),
        alone=chosen.filter(pl.col("cluster_size") <= 1).height,
        pairs=chosen.filter(pl.col("cluster_size") == 2).height,
        lost_pairs=lost.filter(pl.col("cluster_size") == 2).height,
        reasons=Counter(dict(zip(counts["reason"].to_list(), counts["count"].to_list(), strict=True))),
    )


def poisson_upper(number: int) -> float:
    """The rate above which so few events or fewer have a chance of 2.5 %.

    Source: Wilson and Hilferty 1931 (chi-squared by its cube root); 3.7 where nothing was seen.
    """
    events = number + 1
    return float(events * (1 - 1 / (9 * events) + _Z / (3 * math.sqrt(events))) ** 3)


def wilson(hits: float, trials: float) -> tuple[float, float]:
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
