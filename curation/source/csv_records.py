"""CSV records (RFC 4180, header line) to column values, over bytes.

As Python's `csv` reads them: a quote counts only at the start of a field, `""` between quotes is a quote, and what
stands behind the closing quote is appended. A record with another number of fields than the header, or with an open
quote, is bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.kernels import kernel
from curation.source.reader import Reading, check_columns
from curation.source.records import (
    CODES,
    Records,
    binary_array,
    held_records,
    numbers,
    repair,
    unheld_record,
    without_too_large,
)
from curation.source.spans import Block, Bytes, CsvRecords, Positions, Unheld, cut


@kernel
def _split_record(buffer: Any, i: int, end: int, delimiter: int, columns: Any, starts: Any, stops: Any) -> Any:
    """Note start and stop (quotes included) of the wanted fields; number of fields, -1 when a quote stays open."""
    field = 0
    while True:
        start = i
        quoted = i < end and buffer[i] == 34
        if quoted:
            i += 1
            while i < end and not (buffer[i] == 34 and not (i + 1 < end and buffer[i + 1] == 34)):
                i += 2 if buffer[i] == 34 else 1
            if i >= end:
                return -1
            i += 1
        while i < end and buffer[i] != delimiter:
            i += 1
        for k in range(len(columns)):
            if columns[k] == field:
                starts[k] = start
                stops[k] = i
        field += 1
        if i >= end:
            return field
        i += 1


@kernel
def _split_records(
    buffer: Any, begins: Any, ends: Any, delimiter: int, columns: Any, num_fields: Any, starts: Any, stops: Any
) -> Any:
    for record in range(len(begins)):
        num_fields[record] = _split_record(
            buffer, begins[record], ends[record], delimiter, columns, starts[record], stops[record]
        )  # fmt: skip


@kernel
def _copy_fields(buffer: Any, starts: Any, stops: Any, out: Any, offsets: Any) -> Any:
    n = 0
    for record in range(len(starts)):
        i, stop = starts[record], stops[record]
        between = i < stop and buffer[i] == 34
        if between:
            i += 1
        while i < stop:
            byte = buffer[i]
            if between and byte == 34:
                if i + 1 < stop and buffer[i + 1] == 34:
                    i += 1
                else:
                    between = False
                    i += 1
                    continue
            out[n] = byte
            n += 1
            i += 1
        offsets[record + 1] = n


def split_records(
    buffer: Bytes, begins: Positions, ends: Positions, delimiter: int, columns: Positions
) -> tuple[Positions, Positions, Positions]:
    """Find the wanted fields of records given as spans of a buffer.

    Args:
        buffer: bytes of many records.
        begins: start of each record, int64 (R,).
        ends: end of each record without its line end, int64 (R,).
        delimiter: the byte between fields.
        columns: the wanted fields' places in a record, from 0, int64 (N,).

    Returns:
        number of fields int64 (R,), -1 where a quote stays open; starts and stops int64 (N, R).
    """
    shape = (len(begins), len(columns))
    num_fields = np.zeros(len(begins), np.int64)
    starts, stops = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    _split_records(buffer, begins, ends, delimiter, columns, num_fields, starts, stops)
    return num_fields, np.ascontiguousarray(starts.T), np.ascontiguousarray(stops.T)


def copy_fields(buffer: Bytes, starts: Positions, stops: Positions) -> tuple[Positions, Bytes]:
    """Copy fields out without their quotes: offsets int64 (R + 1,) and values uint8, as Arrow lays them out."""
    out = np.empty(int((stops - starts).sum()), np.uint8)
    offsets = np.zeros(len(starts) + 1, np.int64)
    _copy_fields(buffer, starts, stops, out, offsets)
    return offsets, out[: offsets[-1]]


def csv(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """Records of RFC 4180 behind a header."""
    return _delimited(chunks, reading, ord(","))


def tsv(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """As csv, with tabs between fields."""
    return _delimited(chunks, reading, ord("\t"))


def _delimited(chunks: Iterator[bytes], reading: Reading, delimiter: int) -> Iterator[Records]:
    header: list[str] | None = None
    for block in cut(chunks, CsvRecords(delimiter), reading.reader.max_document):
        if isinstance(block, Unheld):
            yield unheld_record(block)
            continue
        filled = block.ends > block.begins
        block = Block(block.buffer, block.begins[filled], block.ends[filled])
        if header is None and len(block.begins):
            header = csv_header(block, delimiter)
            check_columns(header, reading, "header")
            block = Block(block.buffer, block.begins[1:], block.ends[1:])
        if header is not None and len(block.begins):
            yield _csv_block(block, header, delimiter, reading)


def csv_header(block: Block, delimiter: int) -> list[str]:
    """The names in a block's first record."""
    span = (block.buffer, block.begins[:1], block.ends[:1], delimiter)
    num_fields = max(int(split_records(*span, np.zeros(1, np.int64))[0][0]), 1)
    _, starts, stops = split_records(*span, np.arange(num_fields))
    offsets, values = copy_fields(block.buffer, starts[:, 0].copy(), stops[:, 0].copy())
    return [values[start:stop].tobytes().decode("utf-8", "replace") for start, stop in pairwise(offsets)]


def _csv_block(block: Block, header: list[str], delimiter: int, reading: Reading) -> Records:
    ends, too_large = without_too_large(block, reading.reader.max_document)
    wanted = [(name, kind) for name, kind in reading.wanted() if name in header]
    names = [reading.text, *(name for name, _ in wanted)]
    places = np.array([header.index(name) for name in names], np.int64)
    num_fields, starts, stops = split_records(block.buffer, block.begins, ends, delimiter, places)
    reasons = np.where(num_fields == len(header), 0, CODES["bad_csv"]).astype(np.uint8)
    reasons[too_large] = CODES["too_large"]
    good = reasons == 0
    stops = np.where(good, stops, starts)
    texts = binary_array(*copy_fields(block.buffer, starts[0], stops[0]), good)
    columns = {
        (name, kind): _csv_column(block.buffer, starts[i], stops[i], kind)
        for i, (name, kind) in enumerate(wanted, start=1)
    }
    return held_records(block, texts, reasons, np.zeros(len(reasons), np.int64), columns)


def _csv_column(buffer: Bytes, starts: Positions, stops: Positions, kind: str) -> pa.Array:
    """Values of one kind; empty fields are null."""
    offsets, values = copy_fields(buffer, starts, stops)
    array = binary_array(offsets, values, np.diff(offsets) > 0)
    if kind == "number":
        return numbers(repair(array)[0])
    if kind == "bool":
        folded = pc.utf8_lower(repair(array)[0])
        return pc.if_else(
            pc.is_in(folded, pa.array(["true", "false"], pa.large_string())), pc.equal(folded, "true"), None
        )
    return array
