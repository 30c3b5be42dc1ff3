"""Row-aligned layers: Parquet files with one row for every row of a shard, in the shard's order.

A layer is written in row batches and read the same way, cut by rows and by bytes, so memory grows with a row batch, not
with the shard. Layers of one shard are read side by side with `zip_batches`, whatever their row groups; that they have
the same number of rows is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.row_batches import cut_batches

REASONS_KEY = b"gristmill.reasons"  # schema metadata: step -> names of the bits of drop@step
WORDS_KEY = b"gristmill.words"  # schema metadata of signals: how Han text was cut, where by a dictionary
_READ_ROWS = 16_384
_READ_BYTES = 16 << 20


class LayersDisagree(Exception):  # noqa: N818
    """Layers of one shard have different numbers of rows."""


def write_layer(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write row batches as one Parquet layer (zstd, a row group a batch) and return the number of rows.

    The writer's identity is left out of the file, so equal rows are equal bytes whatever made them.
    """
    num_rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        if schema.metadata:  # left out of the file together with the Arrow schema
            writer.add_key_value_metadata(schema.metadata)
    return num_rows


def read_layer(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Row batches of a layer, of at most 16,384 rows and 16 MiB (a larger row stands alone).

    Memory: a row group, which `write_layer` wrote of one row batch, and a batch.
    """
    with pq.ParquetFile(path) as layer:
        # Arrow reads over the borders of row groups, which would hold as many texts as a batch may have rows
        groups = (
            batch
            for group in range(layer.num_row_groups)
            for batch in layer.iter_batches(_READ_ROWS, row_groups=[group], columns=columns, use_threads=False)
        )
        yield from cut_batches(groups, _READ_ROWS, _READ_BYTES)


def layer_columns(path: str | Path) -> list[str]:
    """Column names of a layer."""
    names: list[str] = pq.read_schema(path).names
    return names


def drop_reasons(path: str | Path) -> dict[str, list[str]]:
    """Names of the bits of each `drop@step` column of a layer."""
    metadata = pq.read_schema(path).metadata or {}
    reasons: dict[str, list[str]] = json.loads(metadata.get(REASONS_KEY, b"{}"))
    return reasons


def with_reasons(schema: pa.Schema, reasons: Mapping[str, Sequence[str]]) -> pa.Schema:
    """The schema with the names of its drop bits in its metadata."""
    return schema.with_metadata({REASONS_KEY: json.dumps(reasons, ensure_ascii=False).encode()})


def zip_batches(streams: Sequence[Iterator[pa.RecordBatch]]) -> Iterator[tuple[pa.RecordBatch, ...]]:
    """Cut streams of row batches at common places, so that the n-th rows of all stand side by side.

    Raises:
        LayersDisagree: one stream ends before another.
    """
    current: list[pa.RecordBatch | None] = [_next_filled(stream) for stream in streams]
    while any(batch is not None for batch in current):
        if any(batch is None for batch in current):
            raise LayersDisagree(f"{sum(b is None for b in current)} of {len(current)} layers end before the others")
        length = min(batch.num_rows for batch in current if batch is not None)
        yield tuple(batch.slice(0, length) for batch in current if batch is not None)
        for index, batch in enumerate(current):
            assert batch is not None
            current[index] = batch.slice(length) if batch.num_rows > length else _next_filled(streams[index])


def _next_filled(stream: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in stream if batch.num_rows), None)


class RowsAhead:
    """Rows of a layer beside the texts of a pass: taken batch by batch, as many as the texts are."""

    def __init__(self, path: Path, columns: list[str] | None = None) -> None:
        self._path, self._batches = path, read_layer(path, columns)
        self._held: pa.RecordBatch | None = None

    def take(self, number: int) -> pa.RecordBatch:
        """The next `number` rows, one or more.

        Raises:
            LayersDisagree: if there are fewer.
        """
        pieces: list[pa.RecordBatch] = []
        while number:
            held = self._held if self._held is not None else _next_filled(self._batches)
            if held is None:
                raise LayersDisagree(f"{self._path}: {number} rows fewer than the texts; remove it and run again")
            pieces.append(held.slice(0, number))
            self._held = held.slice(number) if held.num_rows > number else None
            number -= pieces[-1].num_rows
        return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def side_by_side(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Columns of aligned row batches in one batch; of columns with the same name the last stands."""
    columns: dict[str, pa.Array] = {}
    for batch in batches:
        columns.update(zip(batch.schema.names, batch.columns))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def read_layers(paths: Sequence[str | Path], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of several layers side by side. With `columns`, only these; a name may stand in any of the layers."""
    streams = []
    for path in paths:
        wanted = None if columns is None else [name for name in layer_columns(path) if name in columns]
        if wanted is None or wanted:
            streams.append(read_layer(path, wanted))
    for batches in zip_batches(streams):
        yield side_by_side(batches)


def mask_columns(paths: Sequence[str | Path]) -> list[str]:
    """Names of the columns that decide whether a row is kept: `read_reason` and every `drop@…`."""
    return [name for path in paths for name in layer_columns(path) if name == "read_reason" or name.startswith("drop@")]


def kept_rows(rows: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are kept: `read_reason` is null and no bit of any `drop@…` column is set. bool (rows,)."""
    kept = np.ones(rows.num_rows, dtype=bool)
    for name, column in zip(rows.schema.names, rows.columns):
        if name == "read_reason":
            kept &= pc.is_null(column).to_numpy(zero_copy_only=False)
        elif name.startswith("drop@"):
            kept &= pc.fill_null(column, 0).to_numpy(zero_copy_only=False) == 0
    return kept


def only_where(text: pa.Array, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array:
    """The text array with null where a row is not kept."""
    return text if bool(kept.all()) else pc.if_else(pa.array(kept), text, pa.scalar(None, text.type))
