"""The grammar of JSON over bytes: where a value that starts here ends, or that it is broken.

Strict by RFC 8259, but for `NaN`, `Infinity`, `-Infinity`, which Python and pandas write: they count as null. Bytes
above 0x7F pass as they are; UTF-8 is checked, and repaired, column by column (`records.repair`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.kernels import kernel

# Kinds of a value.
ABSENT, STRING, NUMBER, TRUE, FALSE, NULL, OBJECT, ARRAY = range(8)
# RFC 8259 §9 allows a limit on nesting. 200 keeps clear of the recursion limits of other people's parsers.
MAX_DEPTH = 200


@kernel
def skip_space(buffer: Any, i: int, end: int) -> Any:
    """First byte from i on that is no white space."""
    while i < end and (buffer[i] == 32 or buffer[i] == 9 or buffer[i] == 10 or buffer[i] == 13):
        i += 1
    return i


@kernel
def _hex_value(byte: Any) -> Any:
    """Value of one hexadecimal digit, -1 when it is none."""
    value: Any = -1
    if 48 <= byte <= 57:
        value = np.int64(byte) - 48
    elif 97 <= byte <= 102:
        value = np.int64(byte) - 87
    elif 65 <= byte <= 70:
        value = np.int64(byte) - 55
    return value


@kernel
def code_unit(buffer: Any, i: int, end: int) -> Any:
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
def end_of_run(buffer: Any, i: int, end: int) -> Any:
    """First byte from i on that is a quote, a backslash or a control character; `end` when there is none.

    Counting over a fixed 64 bytes has no early exit, so it becomes vector instructions (3x the plain loop); unsigned
    positions spare numba's test for negative ones.
    """
    at, stop = np.uint64(i), np.uint64(end)
    while at + np.uint64(64) <= stop:
        special = 0
        for k in range(64):
            byte = buffer[at + np.uint64(k)]
            special += (byte == 34) | (byte == 92) | (byte < 32)
        if special > 0:
            break
        at += np.uint64(64)
    while at < stop:
        byte = buffer[at]
        if byte == 34 or byte == 92 or byte < 32:
            break
        at += np.uint64(1)
    return np.int64(at)


@kernel
def _is_escape(byte: Any) -> Any:
    """Whether a byte behind a backslash is a quote, a backslash, a slash or one of b, f, n, r, t."""
    return (
        byte == 34 or byte == 92 or byte == 47 or byte == 98 or byte == 102 or byte == 110 or byte == 114 or byte == 116
    )


@kernel
def end_of_string(buffer: Any, i: int, end: int) -> Any:
    """The closing quote of the string whose content starts at i (-1: not a string), and its number of escapes."""
    escapes = 0
    while True:
        i = end_of_run(buffer, i, end)
        if i >= end or buffer[i] < 32:
            return -1, escapes
        if buffer[i] == 34:
            return i, escapes
        escapes += 1
        i += 1
        if i < end and buffer[i] == 117:  # u
            if code_unit(buffer, i + 1, end) < 0:
                return -1, escapes
            i += 5
        elif i < end and _is_escape(buffer[i]):
            i += 1
        else:
            return -1, escapes


@kernel
def _skip_digits(buffer: Any, i: int, end: int) -> Any:
    while i < end and 48 <= buffer[i] <= 57:
        i += 1
    return i


@kernel
def _end_of_number(buffer: Any, i: int, end: int) -> Any:
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


@kernel
def _is_word(buffer: Any, i: int, end: int, word: Any) -> Any:
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
def _scalar(buffer: Any, i: int, end: int) -> Any:  # noqa: PLR0911
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
def _end_of_nested(buffer: Any, i: int, end: int, closers: Any) -> Any:  # noqa: C901, PLR0911 (one automaton)
    """End of the array or object that opens at i, -1 when it is broken or nested deeper than `closers` is long."""
    depth = 0
    while True:  # each turn reads one value, then what closes or parts behind it
        byte = buffer[i] if i < end else 0
        if byte == 91 or byte == 123:
            if depth == len(closers):
                return -1
            closers[depth] = byte + 2  # `]` and `}` stand two behind `[` and `{`
            depth += 1
            i = skip_space(buffer, i + 1, end)
            if i < end and buffer[i] == closers[depth - 1]:
                depth -= 1
                i += 1
            else:
                if byte == 123:
                    i = after_colon(buffer, i, end)
                    if i < 0:
                        return -1
                continue
        elif byte == 34:
            i, _ = end_of_string(buffer, i + 1, end)
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
            i = skip_space(buffer, i, end)
            if i >= end:
                return -1
            if buffer[i] != closers[depth - 1]:
                break
            depth -= 1
            i += 1
        if buffer[i] != 44:
            return -1
        i = skip_space(buffer, i + 1, end)
        if closers[depth - 1] == 125:
            i = after_colon(buffer, i, end)
            if i < 0:
                return -1


@kernel
def after_colon(buffer: Any, i: int, end: int) -> Any:
    """Start of the value behind the `"name" :` at i, -1 when it is not there."""
    if i >= end or buffer[i] != 34:
        return -1
    i, _ = end_of_string(buffer, i + 1, end)
    if i < 0:
        return -1
    i = skip_space(buffer, i + 1, end)
    if i >= end or buffer[i] != 58:
        return -1
    return skip_space(buffer, i + 1, end)


@kernel
def value(buffer: Any, i: int, end: int, closers: Any) -> Any:
    """Kind, content start, content end and end of the value at i; end -1 when it is broken.

    A string's content is what stands between its quotes.
    """
    if i >= end:
        return ABSENT, i, i, -1
    byte = buffer[i]
    if byte == 34:
        close, _ = end_of_string(buffer, i + 1, end)
        return STRING, i + 1, close, (close + 1 if close >= 0 else -1)
    if byte == 123 or byte == 91:
        stop = _end_of_nested(buffer, i, end, closers)
        return (OBJECT if byte == 123 else ARRAY), i, stop, stop
    kind, stop = _scalar(buffer, i, end)
    return kind, i, stop, stop
