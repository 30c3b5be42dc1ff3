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

from curation.row_batches import cut_batches
from curation.source import parquet_pages
from curation.source.chunks import BrokenStream, UnreadableShard
from curation.source.parquet_pages import UnknownPage, list_pages
from curation.source.parquet_text import Limits, Texts, large_texts
from curation.source.reader import OPTIONAL_FIELDS, Reading, check_columns
from curation.source.records import CODES, Records, raw_bytes
from curation.source.spans import MAX_RECORDS

_STEPS, _STEP_ROWS = 64, 256  # a batch is read in so many steps, of no more rows than these


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


def parquet(
    shard: pq.ParquetFile, reading: Reading, batch_bytes: int, file: BinaryIO | None = None
) -> Iterator[Records]:
    """Blocks of about `batch_bytes`; a row group that is damaged gives its unread rows as `unreadable`.

    Args:
        shard: the opened file.
        reading: what is wanted of it.
        batch_bytes: about the bytes of a block.
        file: the file itself, to read very large pages from without Arrow; None leaves all to Arrow.

    Memory: the compressed column chunks of a row group are read in pieces of 1 MiB; a block of rows is held. Arrow
    also holds a decompressed page, four to five times.
    """
    names = list(shard.schema_arrow.names)
    check_columns(names, reading, "columns")
    others = [name for name in names if name in {name for name, _ in reading.wanted()}]
    for group in range(shard.num_row_groups):
        expected, read = shard.metadata.row_group(group).num_rows, 0
        try:
            for records in _group_records(shard, group, others, reading, batch_bytes, file):
                read += len(records)
                yield records
        except (pa.ArrowException, OSError):
            while read < expected:
                size = min(MAX_RECORDS, expected - read)
                read += size
                yield _unreadable(size)


def _group_records(
    shard: pq.ParquetFile, group: int, others: list[str], reading: Reading, batch_bytes: int, file: BinaryIO | None
) -> Iterator[Records]:
    """Records of a row group: by our own reader where it has very large pages; else, and behind its stop, by Arrow."""
    done = 0
    if file is not None and reading.text not in others:
        try:
            for records in _large_records(shard, file, group, others, reading, batch_bytes):
                done += len(records)
                yield records
        except (UnknownPage, BrokenStream):
            reading.counts.whole_pages += 1
    names = [name for name in shard.schema_arrow.names if name == reading.text or name in others]
    skip = done
    if done == shard.metadata.row_group(group).num_rows:
        return
    for batch in _batches(shard, group, names, batch_bytes):
        if skip < len(batch):
            yield _records(batch.slice(skip), reading)
        skip = max(0, skip - len(batch))


def _large_records(
    shard: pq.ParquetFile, file: BinaryIO, group: int, others: list[str], reading: Reading, batch_bytes: int
) -> Iterator[Records]:
    """Records of a row group in which a page of the text is very large; nothing where none is."""
    leaf = [n for n in range(len(shard.schema)) if shard.schema.column(n).path == reading.text]
    column = shard.metadata.row_group(group).column(leaf[0]) if leaf else None
    if column is None or column.total_uncompressed_size <= parquet_pages.LARGE_PAGE:
        return
    stored = shard.schema_arrow.field(reading.text).type
    if not _is_binary(stored.value_type if pa.types.is_dictionary(stored) else stored):
        return
    pages = list_pages(file, column)
    if all(page.size <= parquet_pages.LARGE_PAGE for page in pages):
        return
    limits = Limits(reading.reader.max_document, batch_bytes)
    rest = RowCutter(_batches(shard, group, others, batch_bytes) if others else iter(()))
    for texts in large_texts(file, pages, bool(shard.schema.column(leaf[0]).max_definition_level), limits):
        columns = rest.next_rows(len(texts)) if others else {}
        yield _with_reasons(texts, columns, reading)


class RowCutter:
    """Cuts row batches of any size into batches of asked sizes."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._held: list[pa.RecordBatch] = []

    def next_rows(self, size: int) -> dict[str, pa.Array]:
        """Columns of the next `size` rows."""
        while sum(map(len, self._held)) < size:
            self._held.append(next(self._batches))
        table = pa.Table.from_batches(self._held)
        self._held = table.slice(size).to_batches()
        some = table.slice(0, size).combine_chunks()
        return {name: some.column(name).chunk(0) for name in some.column_names}


def _batches(shard: pq.ParquetFile, group: int, columns: list[str], batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Row batches of a row group: as many rows as make `batch_bytes` in the mean, and at most twice the bytes.

    The mean is of encoded rows: equal texts are stored once, and long rows may stand together. So Arrow is asked for a
    few rows at a time; where none of that is so, the batches are those of the mean.
    """
    table = shard.metadata.row_group(group)
    mean_bytes = max(table.total_byte_size // max(table.num_rows, 1), 1)
    rows = int(min(max(batch_bytes // mean_bytes, 1), MAX_RECORDS))
    step = min(max(rows // _STEPS, 1), _STEP_ROWS)
    few = shard.iter_batches(batch_size=step, row_groups=[group], columns=columns, use_threads=False)
    return cut_batches(few, rows, 2 * batch_bytes)


def _unreadable(size: int) -> Records:
    reasons = np.full(size, CODES["unreadable"], np.uint8)
    return Records(pa.nulls(size, pa.large_binary()), reasons, np.zeros(size, np.int64), {}, np.zeros(size, np.int64))


def _records(batch: pa.RecordBatch, reading: Reading) -> Records:
    stored = batch.column(reading.text)
    columns = dict(zip(batch.schema.names, batch.columns))
    present = ~np.asarray(stored.is_null())
    texts = _binary(stored)
    if texts is None:
        nothing = Texts(pa.nulls(len(batch), pa.large_binary()), np.zeros(len(batch), np.int64), present, {})
        return _with_reasons(nothing, columns, reading, "non_string_text")
    sizes = np.asarray(pc.fill_null(pc.binary_length(texts), 0))
    too_large = sizes > reading.reader.max_document
    ids = {}
    if too_large.any():
        offsets, values = raw_bytes(texts)
        for i in np.flatnonzero(too_large).tolist():
            ids[i] = xxhash.xxh3_128_digest(values[offsets[i] : offsets[i + 1]])
        texts = pc.if_else(pa.array(~too_large), texts, pa.scalar(None, pa.large_binary()))
    return _with_reasons(Texts(texts, sizes, present, ids), columns, reading)


def _with_reasons(texts: Texts, stored: dict[str, pa.Array], reading: Reading, reason: str = "") -> Records:
    """Records of texts and of the other columns; `reason` is that of all texts that are there."""
    reasons = np.full(len(texts), CODES[reason], np.uint8)
    reasons[~texts.present] = CODES["missing_text"]
    reasons[list(texts.ids)] = CODES["too_large"]
    optional = {reading.reader.column(role) for role in OPTIONAL_FIELDS}
    columns = {
        (name, kind): _column(stored[name], kind)
        for name, kind in reading.wanted()
        if name in stored and (name in optional or kind == reading.kinds.get(name))
    }
    return Records(texts.texts, reasons, texts.sizes, texts.ids, np.zeros(len(texts), np.int64), columns)


def _is_binary(stored: pa.DataType) -> bool:
    kinds = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_string_view,
    )
    return any(kind(stored) for kind in kinds)


def _binary(stored: pa.Array) -> pa.Array | None:
    """A column of strings or bytes as large_binary; None when it holds something else."""
    if pa.types.is_dictionary(stored.type):
        stored = stored.cast(stored.type.value_type)
    return stored.cast(pa.large_binary()) if _is_binary(stored.type) else None


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
