"""JSON records to column values: one strict scanner over the bytes, no Python object per record.

The scanner validates a whole record (RFC 8259, and the `NaN`, `Infinity`, `-Infinity` that Python and pandas write)
and notes where the wanted top-level values lie. Names given twice: the last one counts, as in Python's `json`.
Strings are copied out once, with escapes resolved; an escaped lone surrogate becomes U+FFFD and is counted.
Bytes above 0x7F are passed on as they are: UTF-8 is checked, and repaired, column by column (`rows.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curation.kernels import inline_kernel, kernel

# Kinds of a value.
ABSENT, STRING, NUMBER, TRUE, FALSE, NULL, OBJECT, ARRAY = range(8)
# How a record was read.
OBJECT_RECORD, BAD_JSON, OTHER_VALUE, BLANK = range(4)

# RFC 8259 §9 allows a limit on nesting. 200 keeps clear of the recursion limits of other people's parsers.
MAX_DEPTH = 200

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


@inline_kernel
def _skip_space(buffer, i, end):  # type: ignore[no-untyped-def]
    while i < end and (buffer[i] == 32 or buffer[i] == 9 or buffer[i] == 10 or buffer[i] == 13):
        i += 1
    return i


@inline_kernel
def _hex_value(byte):  # type: ignore[no-untyped-def]
    """Value of one hexadecimal digit, -1 when it is none."""
    value = -1
    if 48 <= byte <= 57:
        value = np.int64(byte) - 48
    elif 97 <= byte <= 102:
        value = np.int64(byte) - 87
    elif 65 <= byte <= 70:
        value = np.int64(byte) - 55
    return value


@kernel
def _code_unit(buffer, i, end):  # type: ignore[no-untyped-def]
    """The UTF-16 unit of the four hexadecimal digits at i, -1 when they are not there."""
    if i + 4 > end:
        return -1
    unit = 0
    for k in range(i, i + 4):
        digit = _hex_value(buffer[k])
        if digit < 0:
            return -1
        unit = unit * 16 + digit
    return unit


@kernel
def _end_of_string(buffer, i, end):  # type: ignore[no-untyped-def]
    """Position of the closing quote of the string whose content starts at i (-1: not a string), and its number of escapes."""
    escapes = 0
    while i < end:
        byte = buffer[i]
        if byte == 34:
            return i, escapes
        if byte < 32:
            return -1, escapes
        if byte == 92:
            escapes += 1
            i += 1
            if i >= end:
                return -1, escapes
            byte = buffer[i]
            if byte == 117:  # u
                if _code_unit(buffer, i + 1, end) < 0:
                    return -1, escapes
                i += 4
            elif not (
                byte == 34
                or byte == 92
                or byte == 47
                or byte == 98
                or byte == 102
                or byte == 110
                or byte == 114
                or byte == 116
            ):
                return -1, escapes
        i += 1
    return -1, escapes


@inline_kernel
def _skip_digits(buffer, i, end):  # type: ignore[no-untyped-def]
    while i < end and 48 <= buffer[i] <= 57:
        i += 1
    return i


@kernel
def _end_of_number(buffer, i, end):  # type: ignore[no-untyped-def]
    """End of the number that starts at i, -1 when there is none."""
    if i < end and buffer[i] == 45:
        i += 1
    if i >= end:
        return -1
    if buffer[i] == 48:
        i += 1
    else:
        first = i
        i = _skip_digits(buffer, i, end)
        if i == first:
            return -1
    if i < end and buffer[i] == 46:
        first = i + 1
        i = _skip_digits(buffer, first, end)
        if i == first:
            return -1
    if i < end and (buffer[i] == 101 or buffer[i] == 69):
        i += 1
        if i < end and (buffer[i] == 43 or buffer[i] == 45):
            i += 1
        first = i
        i = _skip_digits(buffer, i, end)
        if i == first:
            return -1
    return i


@inline_kernel
def _is_word(buffer, i, end, word):  # type: ignore[no-untyped-def]
    same = i + len(word) <= end
    if same:
        for k in range(len(word)):
            if buffer[i + k] != word[k]:
                same = False
                break
    return same


_TRUE, _FALSE, _NULL, _NAN, _INFINITY, _MINUS_INFINITY = (
    np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity")
)


@kernel
def _scalar(buffer, i, end):  # type: ignore[no-untyped-def]
    """Kind and end of the number or literal that starts at i; end -1 when there is none."""
    byte = buffer[i]
    if byte == 116 and _is_word(buffer, i, end, _TRUE):
        return TRUE, i + 4
    if byte == 102 and _is_word(buffer, i, end, _FALSE):
        return FALSE, i + 5
    if byte == 110 and _is_word(buffer, i, end, _NULL):
        return NULL, i + 4
    if byte == 78 and _is_word(buffer, i, end, _NAN):
        return NULL, i + 3
    if byte == 73 and _is_word(buffer, i, end, _INFINITY):
        return NULL, i + 8
    if byte == 45 and _is_word(buffer, i, end, _MINUS_INFINITY):
        return NULL, i + 9
    return NUMBER, _end_of_number(buffer, i, end)


@kernel
def _end_of_nested(buffer, i, end, closers):  # type: ignore[no-untyped-def]
    """End of the array or object that opens at i, -1 when it is broken or nested deeper than `closers` is long."""
    depth = 0
    while True:  # each turn reads one value, then what closes or parts behind it
        byte = buffer[i] if i < end else 0
        if byte == 91 or byte == 123:
            if depth == len(closers):
                return -1
            closers[depth] = byte + 2  # `]` and `}` stand two behind `[` and `{`
            depth += 1
            i = _skip_space(buffer, i + 1, end)
            if i < end and buffer[i] == closers[depth - 1]:
                depth -= 1
                i += 1
            else:
                if byte == 123:
                    i = _after_colon(buffer, i, end)
                    if i < 0:
                        return -1
                continue
        elif byte == 34:
            i, _ = _end_of_string(buffer, i + 1, end)
            if i < 0:
                return -1
            i += 1
        elif i < end:
            _, i = _scalar(buffer, i, end)
            if i < 0:
                return -1
        else:
            return -1
        while True:
            if depth == 0:
                return i
            i = _skip_space(buffer, i, end)
            if i >= end:
                return -1
            if buffer[i] != closers[depth - 1]:
                break
            depth -= 1
            i += 1
        if buffer[i] != 44:
            return -1
        i = _skip_space(buffer, i + 1, end)
        if closers[depth - 1] == 125:
            i = _after_colon(buffer, i, end)
            if i < 0:
                return -1


@kernel
def _after_colon(buffer, i, end):  # type: ignore[no-untyped-def]
    """Start of the value behind the `"name" :` at i, -1 when it is not there."""
    if i >= end or buffer[i] != 34:
        return -1
    i, _ = _end_of_string(buffer, i + 1, end)
    if i < 0:
        return -1
    i = _skip_space(buffer, i + 1, end)
    if i >= end or buffer[i] != 58:
        return -1
    return _skip_space(buffer, i + 1, end)


@kernel
def _value(buffer, i, end, closers):  # type: ignore[no-untyped-def]
    """Kind, content start, content end and end of the value at i; end -1 when it is broken. A string's content is inside its quotes."""
    if i >= end:
        return ABSENT, i, i, -1
    byte = buffer[i]
    if byte == 34:
        close, _ = _end_of_string(buffer, i + 1, end)
        return STRING, i + 1, close, (close + 1 if close >= 0 else -1)
    if byte == 123 or byte == 91:
        stop = _end_of_nested(buffer, i, end, closers)
        return (OBJECT if byte == 123 else ARRAY), i, stop, stop
    kind, stop = _scalar(buffer, i, end)
    return kind, i, stop, stop


@kernel
def _write_code_point(out, n, code):  # type: ignore[no-untyped-def]
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


@inline_kernel
def _plain_escape(byte):  # type: ignore[no-untyped-def]
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
def _copy_string(buffer, i, stop, out, n):  # type: ignore[no-untyped-def]
    """Copy a valid string's content to out at n with escapes resolved; the position behind it, and lone surrogates replaced."""
    lone = 0
    while i < stop:
        byte = buffer[i]
        if byte != 92:
            out[n] = byte
            n += 1
            i += 1
        elif buffer[i + 1] != 117:
            out[n] = _plain_escape(buffer[i + 1])
            n += 1
            i += 2
        else:
            code = _code_unit(buffer, i + 2, stop)
            i += 6
            if 0xD800 <= code < 0xDC00 and i + 6 <= stop and buffer[i] == 92 and buffer[i + 1] == 117:
                low = _code_unit(buffer, i + 2, stop)
                if 0xDC00 <= low < 0xE000:
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                    i += 6
            if 0xD800 <= code < 0xE000:
                code = 0xFFFD
                lone += 1
            n = _write_code_point(out, n, code)
    return n, lone


@kernel
def _index_of_name(buffer, i, stop, names, name_ends):  # type: ignore[no-untyped-def]
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
def _wanted(buffer, i, stop, escapes, names, name_ends, scratch):  # type: ignore[no-untyped-def]
    """Index of the wanted name that equals the name at i:stop, -1 when it is not wanted."""
    if escapes == 0:
        return _index_of_name(buffer, i, stop, names, name_ends)
    if stop - i > len(scratch):
        return -1  # a wanted name of n bytes is at most 6n bytes long when escaped
    length, _ = _copy_string(buffer, i, stop, scratch, 0)
    return _index_of_name(scratch, 0, length, names, name_ends)


@kernel
def _scan_record(buffer, i, end, names, name_ends, scratch, closers, kinds, starts, stops):  # type: ignore[no-untyped-def]
    """Read one record; note kind, start and stop of each wanted value. How it was read."""
    i = _skip_space(buffer, i, end)
    if i >= end:
        return BLANK
    if buffer[i] != 123:
        _, _, _, stop = _value(buffer, i, end, closers)
        if stop < 0 or _skip_space(buffer, stop, end) < end:
            return BAD_JSON
        return OTHER_VALUE
    i = _skip_space(buffer, i + 1, end)
    if i < end and buffer[i] == 125:
        return OBJECT_RECORD if _skip_space(buffer, i + 1, end) >= end else BAD_JSON
    while True:
        if i >= end or buffer[i] != 34:
            return BAD_JSON
        close, escapes = _end_of_string(buffer, i + 1, end)
        if close < 0:
            return BAD_JSON
        column = _wanted(buffer, i + 1, close, escapes, names, name_ends, scratch)
        i = _skip_space(buffer, close + 1, end)
        if i >= end or buffer[i] != 58:
            return BAD_JSON
        kind, start, stop, i = _value(buffer, _skip_space(buffer, i + 1, end), end, closers[1:])
        if i < 0:
            return BAD_JSON
        if column >= 0:
            kinds[column] = kind
            starts[column] = start
            stops[column] = stop
        i = _skip_space(buffer, i, end)
        if i < end and buffer[i] == 44:
            i = _skip_space(buffer, i + 1, end)
        elif i < end and buffer[i] == 125:
            return OBJECT_RECORD if _skip_space(buffer, i + 1, end) >= end else BAD_JSON
        else:
            return BAD_JSON


@kernel
def _scan_records(buffer, begins, ends, names, name_ends, scratch, status, kinds, starts, stops):  # type: ignore[no-untyped-def]
    closers = np.empty(MAX_DEPTH, np.uint8)
    for record in range(len(begins)):
        status[record] = _scan_record(
            buffer, begins[record], ends[record], names, name_ends, scratch, closers, kinds[record], starts[record], stops[record]
        )  # fmt: skip


@kernel
def _copy_values(buffer, starts, stops, is_string, out, offsets, lone):  # type: ignore[no-untyped-def]
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
def _split_members(buffer, begins, ends, starts, stops, values):  # type: ignore[no-untyped-def]
    for record in range(len(begins)):
        i = _skip_space(buffer, begins[record], ends[record])
        values[record] = _after_colon(buffer, i, ends[record])
        if values[record] >= 0:
            starts[record] = i + 1
            stops[record], _ = _end_of_string(buffer, i + 1, ends[record])


@kernel
def _scan_values(buffer, begins, ends, kinds, starts, stops):  # type: ignore[no-untyped-def]
    closers = np.empty(MAX_DEPTH, np.uint8)
    for record in range(len(begins)):
        i = _skip_space(buffer, begins[record], ends[record])
        kind, start, stop, after = _value(buffer, i, ends[record], closers)
        if after >= 0 and _skip_space(buffer, after, ends[record]) >= ends[record]:
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
        status uint8 (R,): OBJECT_RECORD, BAD_JSON, OTHER_VALUE (valid JSON, not an object) or BLANK (white space only);
        kinds uint8 (N, R), starts and stops int64 (N, R) of the wanted values; all ABSENT where the record is not an object.
    """
    encoded = [name.encode() for name in names]
    shape = (len(begins), len(names))
    status = np.empty(len(begins), np.uint8)
    kinds = np.zeros(shape, np.uint8)
    starts, stops = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    scratch = np.empty(6 * max((len(name) for name in encoded), default=0), np.uint8)
    _scan_records(
        buffer, begins, ends, np.frombuffer(b"".join(encoded) or b"\0", np.uint8), np.cumsum([len(name) for name in encoded], dtype=np.int64),
        scratch, status, kinds, starts, stops,
    )  # fmt: skip
    kinds[status != OBJECT_RECORD] = ABSENT
    return status, kinds.T, starts.T, stops.T


def scan_values(buffer: Bytes, begins: Positions, ends: Positions) -> tuple[Bytes, Positions, Positions]:
    """Kind uint8 (R,), start and stop int64 (R,) of values given as spans; ABSENT where a span is not one JSON value."""
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
        offsets int64 (R + 1,) and values uint8 as Arrow lays them out, and int64 (R,): lone surrogates replaced by U+FFFD.
    """
    out = np.empty(int((stops - starts).sum()), np.uint8)  # resolving an escape never makes it longer
    offsets, lone = np.zeros(len(starts) + 1, np.int64), np.zeros(len(starts), np.int64)
    _copy_values(buffer, starts, stops, is_string, out, offsets, lone)
    return offsets, out[: offsets[-1]], lone
