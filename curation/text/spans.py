"""Lines and spans of UTF-8 text: kernels that other kernels call."""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.text.properties import SPACE
from curation.text.segment import HASH_BASE, decode


@kernel
def next_break(buf, i, end):
    """The next line break at or after `i` as `str.splitlines` sees it: where the line ends, where the next starts.

    Both are `end` when there is none.
    """
    while i < end:
        b = buf[i]
        if b < 0x20:
            if b == 10 or b == 11 or b == 12 or 28 <= b <= 30:
                return i, i + 1
            if b == 13:
                return i, i + 2 if i + 1 < end and buf[i + 1] == 10 else i + 1
        elif b == 0xC2:
            if buf[i + 1] == 0x85:
                return i, i + 2
        elif b == 0xE2 and buf[i + 1] == 0x80 and 0xA8 <= buf[i + 2] <= 0xA9:
            return i, i + 3
        i += 1
    return end, end


@kernel
def next_newline(buf, i, end):
    """The place of the next `\\n` at or after `i`, or `end`."""
    while i < end and buf[i] != 10:
        i += 1
    return i


@kernel
def trim_start(buf, start, end, table):
    """Start of `str.lstrip()`."""
    while start < end:
        code_point, after = decode(buf, start)
        if table[code_point] & SPACE == 0:
            break
        start = after
    return start


@kernel
def trim_end(buf, start, end, table):
    """End of `str.rstrip()`."""
    while start < end:
        i = end - 1
        while buf[i] & 0xC0 == 0x80:
            i -= 1
        code_point, _ = decode(buf, i)
        if table[code_point] & SPACE == 0:
            break
        end = i
    return end


@kernel
def count_characters(buf, start, end):
    """Code points of `buf[start:end]`."""
    count = 0
    for i in range(start, end):
        count += (buf[i] & 0xC0) != 0x80
    return count


@kernel
def span_hash(buf, start, end):
    """uint64 polynomial of the bytes, base HASH_BASE, as `next_segment` computes it."""
    value = np.uint64(0)
    for i in range(start, end):
        value = value * np.uint64(HASH_BASE) + np.uint64(buf[i]) + np.uint64(1)
    return value


@kernel
def ends_with_ellipsis(buf, start, end):
    """Whether the span ends with `...` or `…`."""
    if end - start < 3:
        return False
    a, b, c = buf[end - 3], buf[end - 2], buf[end - 1]
    return (a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6)
