"""Parquet shards to blocks of records, row group by row group."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation.source.chunks import UnreadableShard
from curation.source.reader import OPTIONAL_FIELDS, Reading, check_columns
from curation.source.records import CODES, Records, raw_bytes
from curation.source.spans import MAX_RECORDS


def open_parquet(path: str, file: BinaryIO) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        UnreadableShard: if it is none, or its footer is damaged.
    """
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableShard(path, error) from error


def kinds_of_columns(schema: pa.Schema) -> dict[str, str]:
    """The kind in which each column is brought: integers, numbers and truth values as they are, all else as text."""
    return {column.name: _kind(column.type) for column in schema}


def _kind(stored: pa.DataType) -> str:
    if pa.types.is_dictionary(stored):
        return _kind(stored.value_type)
    if pa.types.is_boolean(stored):
        return "bool"
    if pa.types.is_integer(stored) and not pa.types.is_uint64(stored):
        return "int64"
    if pa.types.is_floating(stored) or pa.types.is_decimal(stored) or pa.types.is_uint64(stored):
        return "number"
    return "text"


def parquet(shard: pq.ParquetFile, reading: Reading, batch_bytes: int) -> Iterator[Records]:
    """Blocks of about `batch_bytes`; a row group that is damaged gives its unread rows as `unreadable`.

    Memory: the compressed column chunks of a row group are read in pieces of 1 MiB; a block of rows is held.
    """
    names = list(shard.schema_arrow.names)
    check_columns(names, reading, "columns")
    wanted = {reading.text, *(name for name, _ in reading.wanted() if name in names)}
    columns = [name for name in names if name in wanted]
    for group in range(shard.num_row_groups):
        expected, read = shard.metadata.row_group(group).num_rows, 0
        try:
            for batch in _batches(shard, group, columns, batch_bytes):
                read += len(batch)
                yield _records(batch, reading)
        except (pa.ArrowException, OSError):
            while read < expected:
                size = min(MAX_RECORDS, expected - read)
                read += size
                yield _unreadable(size)


def _batches(shard: pq.ParquetFile, group: int, columns: list[str], batch_bytes: int) -> Iterator[pa.RecordBatch]:
    table = shard.metadata.row_group(group)
    mean_bytes = max(table.total_byte_size // max(table.num_rows, 1), 1)
    rows = int(min(max(batch_bytes // mean_bytes, 1), MAX_RECORDS))
    batches: Iterator[pa.RecordBatch] = shard.iter_batches(
        batch_size=rows, row_groups=[group], columns=columns, use_threads=False
    )
    return batches


def _unreadable(size: int) -> Records:
    reasons = np.full(size, CODES["unreadable"], np.uint8)
    return Records(pa.nulls(size, pa.large_binary()), reasons, np.zeros(size, np.int64), {}, np.zeros(size, np.int64))


def _records(batch: pa.RecordBatch, reading: Reading) -> Records:
    stored = batch.column(reading.text)
    reasons = np.zeros(len(batch), np.uint8)
    reasons[np.asarray(stored.is_null())] = CODES["missing_text"]
    texts = _binary(stored)
    if texts is None:
        reasons[reasons == 0] = CODES["non_string_text"]
        texts = pa.nulls(len(batch), pa.large_binary())
    sizes = np.asarray(pc.fill_null(pc.binary_length(texts), 0))
    too_large = sizes > reading.reader.max_document
    ids = {}
    if too_large.any():
        offsets, values = raw_bytes(texts)
        for i in np.flatnonzero(too_large).tolist():
            ids[i] = xxhash.xxh3_128_digest(values[offsets[i] : offsets[i + 1]])
        reasons[too_large] = CODES["too_large"]
        texts = pc.if_else(pa.array(~too_large), texts, pa.scalar(None, pa.large_binary()))
    optional = {reading.reader.column(role) for role in OPTIONAL_FIELDS}
    columns = {
        (name, kind): _column(batch.column(name), kind)
        for name, kind in reading.wanted()
        if name in batch.schema.names and (name in optional or kind == reading.kinds.get(name))
    }
    return Records(texts, reasons, sizes, ids, np.zeros(len(batch), np.int64), columns)


def _binary(stored: pa.Array) -> pa.Array | None:
    """A column of strings or bytes as large_binary; None when it holds something else."""
    if pa.types.is_dictionary(stored.type):
        stored = stored.cast(stored.type.value_type)
    kinds = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_string_view,
    )
    return stored.cast(pa.large_binary()) if any(kind(stored.type) for kind in kinds) else None


def _column(stored: pa.Array, kind: str) -> pa.Array:
    if kind == "number":
        values = stored.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    if kind == "bool":
        return stored.cast(pa.bool_())
    if kind == "int64":
        return stored.cast(pa.int64())
    binary = _binary(stored)
    if binary is not None:
        return binary
    try:
        return stored.cast(pa.large_string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        written = [
            None if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in stored.to_pylist()
        ]
        return pa.array(written, pa.large_string())
