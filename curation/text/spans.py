"""Lines and spans of UTF-8 text: kernels that other kernels call."""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from typing import Any

import numpy as np

from curation.kernels import kernel
from curation.text.load import eight_bytes, store_eight
from curation.text.properties import SPACE
from curation.text.segment import HASH_BASE, Array, decode

_ONES, _HIGHS = 0x0101010101010101, 0x8080808080808080  # eight bytes at a time


@kernel
def zero_bytes(word: Any) -> Any:
    """Not zero where one of the eight bytes of a uint64 is zero (its lowest set bit belongs to the first such byte)."""
    return (word - np.uint64(_ONES)) & ~word & np.uint64(_HIGHS)


@kernel
def next_break(buf: Array, i: int, end: int) -> tuple[int, int]:
    """The next line break at or after `i` as `str.splitlines` sees it: where the line ends, where the next starts.

    Both are `end` when there is none.
    """
    ones = np.uint64(_ONES)
    while i < end:
        while i + 8 <= end:  # over eight bytes at once that are neither controls nor the lead bytes C2 and E2
            word = eight_bytes(buf, i)
            controls = (word - ones * np.uint64(0x20)) & ~word & np.uint64(_HIGHS)
            if controls | zero_bytes(word ^ ones * np.uint64(0xC2)) | zero_bytes(word ^ ones * np.uint64(0xE2)):
                break
            i += 8
        stop = min(i + 8, end)
        while i < stop:
            b = buf[np.uint64(i)]
            if b < 0x20:
                if b == 10 or b == 11 or b == 12 or 28 <= b <= 30:
                    return i, i + 1
                if b == 13:
                    return i, i + 2 if i + 1 < end and buf[np.uint64(i + 1)] == 10 else i + 1
            elif b == 0xC2:
                if buf[np.uint64(i + 1)] == 0x85:
                    return i, i + 2
            elif b == 0xE2 and buf[np.uint64(i + 1)] == 0x80 and 0xA8 <= buf[np.uint64(i + 2)] <= 0xA9:
                return i, i + 3
            i += 1
    return end, end


@kernel
def next_newline(buf: Array, i: int, end: int) -> int:
    r"""The place of the next line feed at or after `i`, or `end`."""
    feeds = np.uint64(_ONES) * np.uint64(10)
    while i + 8 <= end and zero_bytes(eight_bytes(buf, i) ^ feeds) == np.uint64(0):
        i += 8
    while i < end and buf[np.uint64(i)] != 10:
        i += 1
    return i


@kernel
def next_of_two(buf: Array, i: int, end: int, first: int, second: int) -> int:
    """The place of the next byte at or after `i` that is `first` or `second`, or `end`."""
    one, two = np.uint64(_ONES) * np.uint64(first), np.uint64(_ONES) * np.uint64(second)
    while i + 8 <= end:
        word = eight_bytes(buf, i)
        if zero_bytes(word ^ one) | zero_bytes(word ^ two):
            break
        i += 8
    while i < end and buf[np.uint64(i)] != first and buf[np.uint64(i)] != second:
        i += 1
    return i


@kernel
def trim_start(buf: Array, start: int, end: int, table: Array) -> int:
    """Start of `str.lstrip()`."""
    while start < end and not 32 < buf[np.uint64(start)] < 0x80:
        code_point, after = decode(buf, start)
        if table[np.uint64(code_point)] & SPACE == 0:
            break
        start = after
    return start


@kernel
def trim_end(buf: Array, start: int, end: int, table: Array) -> int:
    """End of `str.rstrip()`."""
    while start < end and not 32 < buf[np.uint64(end - 1)] < 0x80:
        i = end - 1
        while buf[np.uint64(i)] & 0xC0 == 0x80:
            i -= 1
        code_point, _ = decode(buf, i)
        if table[np.uint64(code_point)] & SPACE == 0:
            break
        end = i
    return end


@kernel
def _sum_of_bytes(word: Any) -> int:
    """Sum of the eight bytes of a uint64."""
    pairs = (word & np.uint64(0x00FF00FF00FF00FF)) + ((word >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    return np.int64((pairs * np.uint64(0x0001000100010001)) >> np.uint64(48))


@kernel
def count_characters(buf: Array, start: int, end: int) -> int:
    """Code points of `buf[start:end]`: bytes that do not continue one."""
    continued, i, ones = 0, start, np.uint64(_ONES)
    while i + 8 <= end:
        stop, sums = min(end - 7, i + 8 * 255), np.uint64(0)
        while i < stop:
            word = eight_bytes(buf, i)
            sums += (word >> np.uint64(7)) & ~(word >> np.uint64(6)) & ones
            i += 8
        continued += _sum_of_bytes(sums)
    while i < end:
        continued += (buf[i] & 0xC0) == 0x80
        i += 1
    return end - start - continued


@kernel
def count_byte(buf: Array, start: int, end: int, value: int) -> int:
    """How often a byte below 128 occurs in `buf[start:end]`."""
    count, i, ones = 0, start, np.uint64(_ONES)
    wanted = ones * np.uint64(value)
    while i + 8 <= end:
        stop, sums = min(end - 7, i + 8 * 255), np.uint64(0)
        while i < stop:
            word = (
                eight_bytes(buf, i) ^ wanted
            )  # a byte is now zero where it was `value`; then its high bit stays clear
            word = ((word & ~np.uint64(_HIGHS)) + ~np.uint64(_HIGHS)) | word
            sums += (~word >> np.uint64(7)) & ones
            i += 8
        count += _sum_of_bytes(sums)
    while i < end:
        count += buf[i] == value
        i += 1
    return count


@kernel
def span_hash(buf: Array, start: int, end: int) -> Any:
    """uint64 polynomial of the bytes, base HASH_BASE, as `next_segment` computes it."""
    value = np.uint64(0)
    for i in range(start, end):
        value = value * np.uint64(HASH_BASE) + np.uint64(buf[i]) + np.uint64(1)
    return value


@kernel
def span_digest(buf: Array, start: int, end: int) -> Any:
    """uint64 hash of the bytes, eight at a time: for equality within one document, never stored."""
    value, i = np.uint64(end - start) * np.uint64(HASH_BASE), start
    while i + 8 <= end:
        value = (value ^ eight_bytes(buf, i)) * np.uint64(HASH_BASE)
        value ^= value >> np.uint64(32)
        i += 8
    rest = np.uint64(0)
    while i < end:
        rest = rest << np.uint64(8) | np.uint64(buf[np.uint64(i)])
        i += 1
    value = (value ^ rest) * np.uint64(HASH_BASE)
    return value ^ (value >> np.uint64(32))


@kernel
def copy_span(buf: Array, start: int, end: int, to: Array, place: int) -> None:
    """Copy `buf[start:end]` to `to[place:]`; in the short spans of lines this is faster than slices."""
    while start + 8 <= end:
        store_eight(to, place, eight_bytes(buf, start))
        start, place = start + 8, place + 8
    for k in range(end - start):
        to[place + k] = buf[start + k]


@kernel
def ends_with_ellipsis(buf: Array, start: int, end: int) -> Any:
    """Whether the span ends with `...` or `…`."""
    if end - start < 3:
        return False
    a, b, c = buf[end - 3], buf[end - 2], buf[end - 1]
    return (a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6)
