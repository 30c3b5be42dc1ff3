"""Decisions of a shard: rules and buckets over its signals, as one layer of drop and undecided bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from curation.layers import (
    kept_rows,
    mask_columns,
    read_layers,
    side_by_side,
    with_reasons,
    write_layer,
)
from curation.passes import ShardInputs, with_first
from curation.stage import Counts, Output


@dataclass(frozen=True)
class RuleStep:
    """One step's rules: (reason, SQL), and which layer column each name in the SQL means."""

    step: str
    rules: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BucketStep:
    """Buckets by perplexity: which column is cut, where, and the column that gets the level.

    `cutoffs` are the values themselves, or `artifact` names the file of this run's percentiles, read under `group`.
    """

    step: str
    perplexity: str
    column: str
    cutoffs: tuple[float, ...] | None = None
    artifact: str | None = None
    group: str = ""


@dataclass(frozen=True)
class DecisionOptions:
    """What one decisions stage decides, in order of work."""

    steps: tuple[RuleStep | BucketStep, ...]


def make_decisions(inputs: ShardInputs, options: DecisionOptions, output: Output) -> Counts:
    """Write a decisions layer from the layers before it: drop and undecided bits of each rule step, and buckets."""
    deciders = [_decider(inputs, step) for step in options.steps]
    wanted = {name for step in options.steps for name in _columns_of(step)} | {"row", "size_bytes", "num_characters"}
    columns = sorted(wanted | set(mask_columns(inputs.layers)))
    counts: Counter[str] = Counter()
    reasons = {
        step.step: sorted(reason for reason, _ in step.rules) for step in options.steps if isinstance(step, RuleStep)
    }

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in read_layers(inputs.layers, columns):
            made: dict[str, pa.Array] = {"row": batch.column("row")}
            kept = kept_rows(batch)
            for decider in deciders:
                made.update(decider(side_by_side([batch, _batch(made)])))
            kept = _count_drops(made, kept, reasons, counts)
            _count_kept(batch, kept, counts)
            yield _batch(made)

    stream = rows()
    first = next(stream, None)
    schema = first.schema if first is not None else _decided_schema(options)
    write_layer(output.path(".parquet"), with_first(first, stream), with_reasons(schema, reasons))
    return {"rows": 0, "kept": 0, **counts}


def _decided_schema(options: DecisionOptions) -> pa.Schema:
    """Columns of the decisions of a shard without rows, which the ledger asks for all the same."""
    fields: list[tuple[str, pa.DataType]] = [("row", pa.int64())]
    for step in options.steps:
        if isinstance(step, BucketStep):
            fields.append((step.column, pa.string()))
        else:
            fields += [(f"drop@{step.step}", pa.uint64()), (f"undecided@{step.step}", pa.uint64())]
    return pa.schema(fields)


def _batch(columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _columns_of(step: RuleStep | BucketStep) -> list[str]:
    return [step.perplexity] if isinstance(step, BucketStep) else [column for _, column in step.columns]


def _decider(inputs: ShardInputs, step: RuleStep | BucketStep) -> Any:
    if isinstance(step, BucketStep):
        return _bucket_decider(inputs, step)
    from curation.rules import Rule, decide

    rules = [Rule(reason, sql) for reason, sql in step.rules]

    def decided(rows: pa.RecordBatch) -> dict[str, pa.Array]:
        frame = pl.DataFrame({name: pl.from_arrow(rows.column(column)) for name, column in step.columns})
        if not step.columns:
            frame = pl.DataFrame({"row": pl.from_arrow(rows.column("row"))})
        drop, undecided = decide(frame, rules)
        return {
            f"drop@{step.step}": pa.array(drop, pa.uint64()),
            f"undecided@{step.step}": pa.array(undecided, pa.uint64()),
        }

    return decided


def _bucket_decider(inputs: ShardInputs, step: BucketStep) -> Any:
    from curation.perplexity.buckets import assign, read_cutoffs

    cutoffs = step.cutoffs if step.artifact is None else read_cutoffs(inputs.artifact(step.artifact), step.group)
    return lambda rows: {step.column: assign(rows.column(step.perplexity), cutoffs or None)}


def _count_drops(
    made: Mapping[str, pa.Array], kept: np.ndarray, reasons: Mapping[str, list[str]], counts: Counter[str]
) -> np.ndarray:
    """Count each step's drops among rows that were still kept, by first reason; return what stays kept."""
    for step, names in reasons.items():
        drop = made[f"drop@{step}"].to_numpy(zero_copy_only=False)
        undecided = made[f"undecided@{step}"].to_numpy(zero_copy_only=False)
        counts[f"reached.{step}"] += int(kept.sum())
        counts[f"undecided.{step}"] += int(((undecided != 0) & kept).sum())
        left = np.where(kept, drop, 0)
        for bit, name in enumerate(names):
            hit = (left >> np.uint64(bit)) & np.uint64(1) != 0
            if count := int(hit.sum()):
                counts[f"drop.{step}.{name}"] += count
            left = np.where(hit, 0, left)
        kept = kept & (drop == 0)
    return kept


def _count_kept(batch: pa.RecordBatch, kept: np.ndarray, counts: Counter[str]) -> None:
    counts["rows"] += batch.num_rows
    counts["kept"] += int(kept.sum())
    for name, column in (("kept_bytes", "size_bytes"), ("kept_characters", "num_characters")):
        if column in batch.schema.names:
            counts[name] += int(pc.fill_null(batch.column(column), 0).to_numpy(zero_copy_only=False)[kept].sum())
