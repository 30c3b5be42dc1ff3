"""Records to rows: repaired text, content hashes, what `where` and `sample` leave, a batch of the schema ROWS."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.source.reader import OPTIONAL_FIELDS, ReadCounts, Reader
from curation.source.records import KINDS, READ_REASONS, Records, raw_bytes, repair
from curation.source.where import condition, is_true, sampled

ROWS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("content_id", pa.binary(16), nullable=False),
        pa.field("origin_id", pa.large_string()),
        pa.field("url", pa.large_string()),
        pa.field("date", pa.large_string()),
        pa.field("licence", pa.large_string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("num_characters", pa.int64()),
        pa.field("read_reason", pa.string()),
        pa.field("repaired", pa.int32(), nullable=False),
    ]
)
"""Columns of a row batch; what the source brings follows as `NAME@source`.

`size_bytes` counts the text's UTF-8 bytes, or the record's as it stands in the shard where there is no text;
`num_characters` Unicode code points; `repaired` the invalid sequences that became U+FFFD in the text.
"""


def as_rows(
    records: Records, first_row: int, reader: Reader, types: dict[str, str], counts: ReadCounts
) -> pa.RecordBatch:
    """Make the rows of one block of records.

    Args:
        records: of one shard, in its order.
        first_row: place of the first of them in the shard.
        reader: how the shard is read.
        types: the asked columns' types.
        counts: is added to.

    Returns:
        A batch of the schema ROWS with the brought columns; rows left unread by `where` or `sample` are not in it.
    """
    text, replaced = repair(records.texts)
    rows = np.arange(first_row, first_row + len(records), dtype=np.int64)
    content_ids = _content_ids(text, records, rows)
    readable = records.reasons == 0
    text_bytes = np.asarray(pc.fill_null(pc.binary_length(text), 0))
    batch = [
        pa.array(rows),
        text,
        pa.Array.from_buffers(pa.binary(16), len(records), [None, pa.py_buffer(content_ids)]),
        *(_optional(records, reader.column(role)) for role in OPTIONAL_FIELDS),
        pa.array(np.where(readable, text_bytes, records.sizes)),
        pc.utf8_length(text).cast(pa.int64()),
        _read_reasons(records),
        pa.array((replaced + records.lone_surrogates).astype(np.int32)),
    ]  # fmt: skip
    fields = list(ROWS)
    for name in reader.brought:
        column = _asked_column(records, name, types[name])
        batch.append(column)
        fields.append(pa.field(f"{name}@source", column.type))
    made = pa.RecordBatch.from_arrays(batch, schema=pa.schema(fields))
    return _read_rows(made, content_ids, records, reader, types, counts)


def _read_reasons(records: Records) -> pa.Array:
    codes = pa.array(records.reasons.astype(np.int8), mask=records.reasons == 0)
    return pa.DictionaryArray.from_arrays(codes, READ_REASONS).cast(pa.string())


def _content_ids(text: pa.Array, records: Records, rows: npt.NDArray[np.int64]) -> bytes:
    """16 bytes a row: xxh3_128 of the text, else of the raw record, else of reason and place."""
    offsets, values = raw_bytes(text)
    digest = xxhash.xxh3_128_digest
    ids = [digest(values[start:stop]) for start, stop in pairwise(offsets.tolist())]
    for i in np.flatnonzero(records.reasons).tolist():
        known = records.ids.get(i)
        ids[i] = known if known is not None else digest(f"{READ_REASONS[records.reasons[i]]}:{rows[i]}".encode())
    return b"".join(ids)


def _optional(records: Records, column: str) -> pa.Array:
    values = records.columns.get((column, "text"))
    if values is None:
        return pa.nulls(len(records), pa.large_string())
    return repair(values)[0] if pa.types.is_large_binary(values.type) else values


def _asked_column(records: Records, name: str, kind: str) -> pa.Array:
    """A column of `brought` or `where`; null throughout where a record could not be taken apart."""
    values = records.columns.get((name, kind))
    if values is None:
        return pa.nulls(len(records), KINDS[kind])
    return repair(values)[0] if pa.types.is_large_binary(values.type) else values


def _read_rows(
    batch: pa.RecordBatch,
    content_ids: bytes,
    records: Records,
    reader: Reader,
    types: dict[str, str],
    counts: ReadCounts,
) -> pa.RecordBatch:
    """The rows that `where` and `sample` leave; a record that could not be taken apart stays, whatever `where` says."""
    true = np.ones(len(records), bool)
    if reader.where is not None:
        names = condition(reader.where)[1]
        columns = {name: _asked_column(records, name, types[name]) for name in names}
        true = is_true(reader.where, columns, len(records)) | ~records.has_fields()
    read = true & sampled(content_ids, reader.sample)
    counts.records += len(records)
    counts.unread_where += int((~true).sum())
    counts.unread_sample += int((true & ~read).sum())
    counts.rows += int(read.sum())
    for code, number in enumerate(np.bincount(records.reasons[read]).tolist()):
        if code and number:
            counts.reasons[READ_REASONS[code]] = counts.reasons.get(READ_REASONS[code], 0) + number
    return batch if read.all() else batch.filter(pa.array(read))
