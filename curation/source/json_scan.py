"""JSON records to column values: one scanner over the bytes, no Python object per record.

The scanner validates a whole record and notes where the wanted top-level values lie. Of names given twice the last one
counts, as in Python's `json`. Strings are copied out once, with escapes resolved; an escaped lone surrogate becomes
U+FFFD and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.kernels import kernel
from curation.source.json_grammar import (
    ABSENT,
    MAX_DEPTH,
    after_colon,
    code_unit,
    end_of_run,
    end_of_string,
    skip_space,
    value,
)
from curation.source.spans import Bytes, Positions

# How a record was read.
OBJECT_RECORD, BAD_JSON, OTHER_VALUE, BLANK = range(4)


@kernel
def _write_code_point(out: Any, n: int, code: Any) -> Any:
    """Write a code point as UTF-8 at n; the position behind it."""
    if code < 0x80:
        out[n] = code
        return n + 1
    if code < 0x800:
        out[n] = 0xC0 | (code >> 6)
        out[n + 1] = 0x80 | (code & 0x3F)
        return n + 2
    if code < 0x10000:
        out[n] = 0xE0 | (code >> 12)
        out[n + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[n + 2] = 0x80 | (code & 0x3F)
        return n + 3
    out[n] = 0xF0 | (code >> 18)
    out[n + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[n + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[n + 3] = 0x80 | (code & 0x3F)
    return n + 4


@kernel
def _plain_escape(byte: Any) -> Any:
    """The byte that an escape of two characters stands for."""
    if byte == 110:
        byte = np.uint8(10)
    elif byte == 116:
        byte = np.uint8(9)
    elif byte == 114:
        byte = np.uint8(13)
    elif byte == 98:
        byte = np.uint8(8)
    elif byte == 102:
        byte = np.uint8(12)
    return byte


@kernel
def _copy_string(buffer: Any, i: int, stop: int, out: Any, n: int) -> Any:
    """Copy a valid string's content to out at n, escapes resolved; the position behind it, and lone surrogates."""
    lone = 0
    while i < stop:
        run = end_of_run(buffer, i, stop) - i
        for k in range(run):
            out[np.uint64(n) + np.uint64(k)] = buffer[np.uint64(i) + np.uint64(k)]
        n += run
        i += run
        if i >= stop:
            break
        if buffer[i + 1] != 117:
            out[n] = _plain_escape(buffer[i + 1])
            n += 1
            i += 2
        else:
            code = code_unit(buffer, i + 2, stop)
            i += 6
            if 0xD800 <= code < 0xDC00 and i + 6 <= stop and buffer[i] == 92 and buffer[i + 1] == 117:
                low = code_unit(buffer, i + 2, stop)
                if 0xDC00 <= low < 0xE000:
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                    i += 6
            if 0xD800 <= code < 0xE000:
                code = 0xFFFD
                lone += 1
            n = _write_code_point(out, n, code)
    return n, lone


@kernel
def _index_of_name(buffer: Any, i: int, stop: int, names: Any, name_ends: Any) -> Any:
    begin = 0
    for k in range(len(name_ends)):
        if name_ends[k] - begin == stop - i:
            same = True
            for j in range(stop - i):
                if buffer[i + j] != names[begin + j]:
                    same = False
                    break
            if same:
                return k
        begin = name_ends[k]
    return -1


@kernel
def _wanted(buffer: Any, i: int, stop: int, escapes: int, names: Any, name_ends: Any, scratch: Any) -> Any:
    """Index of the wanted name that equals the name at i:stop, -1 when it is not wanted."""
    if escapes == 0:
        return _index_of_name(buffer, i, stop, names, name_ends)
    if stop - i > len(scratch):
        return -1  # a wanted name of n bytes is at most 6n bytes long when escaped
    length, _ = _copy_string(buffer, i, stop, scratch, 0)
    return _index_of_name(scratch, 0, length, names, name_ends)


@kernel
def _scan_record(  # noqa: PLR0911 (one automaton)
    buffer: Any, i: int, end: int, names: Any, name_ends: Any, scratch: Any, closers: Any, found: Any
) -> Any:
    """Read one record; note kind, start and stop of each wanted value. How it was read."""
    i = skip_space(buffer, i, end)
    if i >= end:
        return BLANK
    if buffer[i] != 123:
        _, _, _, stop = value(buffer, i, end, closers)
        if stop < 0 or skip_space(buffer, stop, end) < end:
            return BAD_JSON
        return OTHER_VALUE
    i = skip_space(buffer, i + 1, end)
    if i < end and buffer[i] == 125:
        return OBJECT_RECORD if skip_space(buffer, i + 1, end) >= end else BAD_JSON
    while True:
        if i >= end or buffer[i] != 34:
            return BAD_JSON
        close, escapes = end_of_string(buffer, i + 1, end)
        if close < 0:
            return BAD_JSON
        column = _wanted(buffer, i + 1, close, escapes, names, name_ends, scratch)
        i = skip_space(buffer, close + 1, end)
        if i >= end or buffer[i] != 58:
            return BAD_JSON
        kind, start, stop, i = value(buffer, skip_space(buffer, i + 1, end), end, closers)
        if i < 0:
            return BAD_JSON
        if column >= 0:
            found[column, 0] = kind
            found[column, 1] = start
            found[column, 2] = stop
        i = skip_space(buffer, i, end)
        if i < end and buffer[i] == 44:
            i = skip_space(buffer, i + 1, end)
        elif i < end and buffer[i] == 125:
            return OBJECT_RECORD if skip_space(buffer, i + 1, end) >= end else BAD_JSON
        else:
            return BAD_JSON


@kernel
def _scan_records(
    buffer: Any, begins: Any, ends: Any, names: Any, name_ends: Any, scratch: Any, status: Any, found: Any
) -> Any:
    closers = np.empty(MAX_DEPTH, np.uint8)
    for k in range(len(begins)):
        status[k] = _scan_record(buffer, begins[k], ends[k], names, name_ends, scratch, closers, found[k])


@kernel
def _copy_values(buffer: Any, starts: Any, stops: Any, is_string: Any, out: Any, offsets: Any, lone: Any) -> Any:
    n = 0
    for record in range(len(starts)):
        if is_string[record]:
            n, lone[record] = _copy_string(buffer, starts[record], stops[record], out, n)
        else:
            for i in range(starts[record], stops[record]):
                out[n] = buffer[i]
                n += 1
        offsets[record + 1] = n


@kernel
def _split_members(buffer: Any, begins: Any, ends: Any, starts: Any, stops: Any, values: Any) -> Any:
    for record in range(len(begins)):
        i = skip_space(buffer, begins[record], ends[record])
        values[record] = after_colon(buffer, i, ends[record])
        if values[record] >= 0:
            starts[record] = i + 1
            stops[record], _ = end_of_string(buffer, i + 1, ends[record])


@kernel
def _scan_values(buffer: Any, begins: Any, ends: Any, kinds: Any, starts: Any, stops: Any) -> Any:
    closers = np.empty(MAX_DEPTH, np.uint8)
    for record in range(len(begins)):
        i = skip_space(buffer, begins[record], ends[record])
        kind, start, stop, after = value(buffer, i, ends[record], closers)
        if after >= 0 and skip_space(buffer, after, ends[record]) >= ends[record]:
            kinds[record] = kind
            starts[record] = start
            stops[record] = stop


def scan_records(
    buffer: Bytes, begins: Positions, ends: Positions, names: Sequence[str]
) -> tuple[Bytes, Bytes, Positions, Positions]:
    """Find the wanted values of records given as spans of a buffer.

    Args:
        buffer: bytes of many records.
        begins: start of each record, int64 (R,).
        ends: end of each record, int64 (R,).
        names: wanted top-level names, N of them, all different.

    Returns:
        status uint8 (R,): OBJECT_RECORD, BAD_JSON, OTHER_VALUE (valid JSON, no object) or BLANK (white space only);
        kinds uint8 (N, R), starts and stops int64 (N, R) of the wanted values, ABSENT where the record is no object.
    """
    encoded = [name.encode() for name in names]
    status = np.empty(len(begins), np.uint8)
    found = np.zeros((len(begins), len(names), 3), np.int64)
    scratch = np.empty(6 * max((len(name) for name in encoded), default=0), np.uint8)
    name_bytes = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)
    name_ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    _scan_records(buffer, begins, ends, name_bytes, name_ends, scratch, status, found)
    found[status != OBJECT_RECORD, :, 0] = ABSENT
    kinds, starts, stops = np.ascontiguousarray(found.T)  # contiguous: numba compiles once more for other layouts
    return status, kinds.astype(np.uint8), starts, stops


def scan_values(buffer: Bytes, begins: Positions, ends: Positions) -> tuple[Bytes, Positions, Positions]:
    """Kind uint8 (R,), start and stop int64 (R,) of values given as spans; ABSENT where a span is no JSON value."""
    kinds = np.zeros(len(begins), np.uint8)
    starts, stops = np.zeros(len(begins), np.int64), np.zeros(len(begins), np.int64)
    _scan_values(buffer, begins, ends, kinds, starts, stops)
    return kinds, starts, stops


def split_members(buffer: Bytes, begins: Positions, ends: Positions) -> tuple[Positions, Positions, Positions]:
    """Start and stop of the name, and start of the value (-1: no name), of `"name": value` spans, each int64 (R,)."""
    starts, stops, values = (np.zeros(len(begins), np.int64) for _ in range(3))
    _split_members(buffer, begins, ends, starts, stops, values)
    return starts, stops, values


def copy_values(
    buffer: Bytes, starts: Positions, stops: Positions, is_string: npt.NDArray[np.bool_]
) -> tuple[Positions, Bytes, Positions]:
    """Copy values out of a buffer: strings with escapes resolved, all others as they are written.

    Returns:
        offsets int64 (R + 1,) and values uint8 as Arrow lays them out; lone surrogates replaced, int64 (R,).
    """
    out = np.empty(int((stops - starts).sum()), np.uint8)  # resolving an escape never makes it longer
    offsets, lone = np.zeros(len(starts) + 1, np.int64), np.zeros(len(starts), np.int64)
    _copy_values(buffer, starts, stops, is_string, out, offsets, lone)
    return offsets, out[: offsets[-1]], lone
