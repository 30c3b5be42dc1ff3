"""Snappy's block format, decompressed a chunk at a time: pyarrow's codec wants whole blocks in memory.

Format: google/snappy, format_description.txt. Copies reach back 64 KiB at most in what snappy's own compressors write
(they compress blocks of 64 KiB); one that reaches further is `BrokenStream` here, though the format allows it.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from curation.kernels import kernel
from curation.source.chunks import BrokenStream

_HISTORY = 1 << 16
_READ_BYTES = 1 << 20
_OK, _FAR, _DAMAGED = 0, 1, 2


@kernel
def _length(packed: Any, at: int, tag: int) -> int:
    """Bytes of the literal behind a tag."""
    length, more = tag >> 2, (tag >> 2) - 59
    if more > 0:
        length = 0
        for k in range(more):
            length |= np.int64(packed[at + 1 + k]) << (8 * k)
    return length + 1


@kernel
def _unpack(packed: Any, out: Any, state: Any) -> tuple[int, int]:
    """Unpack elements until the input ends inside one or `out` is full: bytes used, and _OK, _FAR or _DAMAGED.

    `state`: place in `out`, where history begins in it, bytes left of the open element, and how far back it copies
    (0: a literal).
    """
    place, first, left, back = state[0], state[1], state[2], state[3]
    at, size, room = 0, packed.shape[0], out.shape[0]
    verdict = _OK
    while place < room:
        if left == 0:
            if at >= size:
                break
            tag = np.int64(packed[at])
            kind = tag & 3
            extra = max(0, (tag >> 2) - 59) if kind == 0 else (1, 1, 2, 4)[kind]
            if at + 1 + extra > size:
                break
            back = 0
            if kind == 0:
                left = _length(packed, at, tag)
            else:
                left = (tag >> 2) + 1 if kind > 1 else ((tag >> 2) & 7) + 4
                for k in range(extra):
                    back |= np.int64(packed[at + 1 + k]) << (8 * k)
                if kind == 1:
                    back |= (tag >> 5) << 8
                if back == 0 or back > place - first:
                    verdict = _DAMAGED if back == 0 else _FAR
                    break
            at += 1 + extra
        count = min(left, room - place)
        if back == 0:
            count = min(count, size - at)
            out[place : place + count] = packed[at : at + count]
            at += count
            if count == 0:
                break
        else:
            for k in range(place, place + count):  # byte by byte: a copy may overlap itself
                out[k] = out[k - back]
        place += count
        left -= count
    state[0], state[2], state[3] = place, left, back
    return at, verdict


def _size_told(packed: bytes) -> tuple[int, int]:
    """The size that stands before a block, and the bytes it takes."""
    size = 0
    for k, byte in enumerate(packed[:5]):
        size |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return size, k + 1
    raise BrokenStream("unreadable", "a snappy block does not begin with its size")


def snappy_chunks(file: Any, size: int, chunk_bytes: int) -> Iterator[bytes]:
    """Decompress one snappy block of `size` bytes in chunks of about `chunk_bytes`.

    Memory: `chunk_bytes` twice, and 1 MiB of input.

    Raises:
        BrokenStream: when it is damaged, cut short, or copies from further back than 64 KiB.
    """
    packed = file.read(_READ_BYTES)
    told, skipped = _size_told(packed)
    if told != size:
        raise BrokenStream("unreadable", f"a snappy block of {told} bytes where {size} are expected")
    packed = packed[skipped:]
    out = np.empty(_HISTORY + max(chunk_bytes, 1), np.uint8)
    state = np.array([_HISTORY, _HISTORY, 0, 0], np.int64)
    done = 0
    while done < size:
        used, verdict = _unpack(np.frombuffer(packed, np.uint8), out, state)
        if verdict != _OK:
            raise BrokenStream("unreadable", "a snappy block is damaged or copies from further back than 64 KiB")
        packed = packed[used:]
        if state[0] < len(out) and done + state[0] - _HISTORY < size:  # more input is needed
            more = file.read(_READ_BYTES)
            if not more:
                raise BrokenStream("truncated", "a snappy block ends early")
            packed += more
            continue
        place = int(state[0])
        yield out[_HISTORY:place].tobytes()
        done += place - _HISTORY
        out[:_HISTORY] = out[place - _HISTORY : place].copy()
        state[1] = max(0, int(state[1]) - (place - _HISTORY))
        state[0] = _HISTORY
