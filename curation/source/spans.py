"""Chunks of bytes to whole records: where each record begins and ends, with a bound on what is held.

A finder notes the separators of a chunk and carries its state over to the next one. A record longer than the limit is
streamed past: its bytes are counted and hashed, and never held together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from curation.kernels import kernel
from curation.source.chunks import BrokenStream

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

MAX_RECORDS = 1 << 16  # in one block: bounds the tables of positions when records are tiny


@dataclass(frozen=True)
class Block:
    """Whole records: spans of a buffer, without their separators."""

    buffer: Bytes
    begins: Positions
    ends: Positions


@dataclass(frozen=True)
class Unheld:
    """A record that is not held: too large, or the broken end of a stream."""

    reason: str
    size_bytes: int
    content_id: bytes  # of its bytes as they stand in the shard


class Finder(Protocol):
    """Finds where records end, chunk after chunk."""

    def separators(self, chunk: Bytes) -> Positions:
        """Positions of the separators in the next chunk, ascending."""

    def at_end(self) -> str:
        """What the bytes behind the last separator are at the end of the stream: `record`, `nothing` or `truncated`."""


class Lines:
    """Records are lines."""

    def separators(self, chunk: Bytes) -> Positions:
        """Positions of the newlines."""
        return np.flatnonzero(chunk == 10)

    def at_end(self) -> str:
        """The last line needs no newline."""
        return "record"


@kernel
def _csv_separators(chunk: Any, delimiter: int, state: Any, out: Any) -> Any:
    # state: 0 at the start of a field, 1 in a bare field, 2 between quotes, 3 behind a quote between quotes
    now, n = state[0], 0
    for i in range(len(chunk)):
        byte = chunk[i]
        if now == 2:
            if byte == 34:
                now = 3
        elif byte == 10 or byte == 13:
            out[n] = i
            n += 1
            now = 0
        elif byte == delimiter:
            now = 0
        elif byte == 34 and (now == 0 or now == 3):
            now = 2
        else:
            now = 1
    state[0] = now
    return n


class CsvRecords:
    """Records are lines, parted by line ends outside quotes; CRLF leaves an empty record behind, which is none."""

    def __init__(self, delimiter: int) -> None:
        self._delimiter = delimiter
        self._state = np.zeros(1, np.int64)

    def separators(self, chunk: Bytes) -> Positions:
        """Positions of the line ends outside quotes."""
        out = np.empty(int(np.count_nonzero((chunk == 10) | (chunk == 13))), np.int64)
        return out[: _csv_separators(chunk, self._delimiter, self._state, out)]

    def at_end(self) -> str:
        """The last record needs no newline; an open quote is found out when its fields are read."""
        return "record"


@kernel
def _json_separators(chunk: Any, state: Any, out: Any) -> Any:
    # state: depth (the enclosing bracket is 1, 0 behind it), between quotes, behind a backslash, bytes behind the end
    depth, quoted, escaped, behind = state[0], state[1], state[2], state[3]
    n = 0
    for i in range(len(chunk)):
        byte = chunk[i]
        if depth == 0:
            if byte != 32 and byte != 9 and byte != 10 and byte != 13:
                behind += 1
        elif quoted:
            if escaped:
                escaped = 0
            elif byte == 92:
                escaped = 1
            elif byte == 34:
                quoted = 0
        elif byte == 34:
            quoted = 1
        elif byte == 91 or byte == 123:
            depth += 1
        elif byte == 93 or byte == 125:
            depth -= 1
            if depth == 0:
                out[n] = i
                n += 1
        elif byte == 44 and depth == 1:
            out[n] = i
            n += 1
    state[0], state[1], state[2], state[3] = depth, quoted, escaped, behind
    return n


class JsonElements:
    """Records are the elements of one array or object whose opening bracket was read already."""

    def __init__(self) -> None:
        self._state = np.array([1, 0, 0, 0], np.int64)

    def separators(self, chunk: Bytes) -> Positions:
        """Positions of the commas between elements, and of the closing bracket."""
        out = np.empty(int(np.count_nonzero((chunk == 44) | (chunk == 93) | (chunk == 125))), np.int64)
        return out[: _json_separators(chunk, self._state, out)]

    def at_end(self) -> str:
        """Behind the closing bracket there is nothing; without it the file breaks off inside an element."""
        return "nothing" if self._state[0] == 0 else "truncated"

    @property
    def bytes_behind(self) -> int:
        """Bytes that are not white space behind the closing bracket."""
        return int(self._state[3])


class _Pending:
    """The beginning of a record whose end was not read yet: held up to the limit, beyond it counted and hashed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0
        self._held: list[bytes] = []
        self._hash: xxhash.xxh3_128 | None = None

    @property
    def too_large(self) -> bool:
        return self._hash is not None

    def add(self, piece: bytes | memoryview) -> None:
        self.size += len(piece)
        if self._hash is None:
            self._held.append(bytes(piece))
            if self.size <= self._limit:
                return
            self._hash, held, self._held = xxhash.xxh3_128(), self._held, []
            for part in held:
                self._hash.update(part)
        else:
            self._hash.update(piece)

    def take(self) -> bytes:
        """The held bytes; nothing is pending afterwards."""
        held, self._held, self.size = b"".join(self._held), [], 0
        return held

    def unheld(self, reason: str) -> Unheld:
        """The record as far as it was read; nothing is pending afterwards."""
        digest = self._hash.digest() if self._hash is not None else xxhash.xxh3_128_digest(b"".join(self._held))
        record = Unheld(reason, self.size, digest)
        self.size, self._held, self._hash = 0, [], None
        return record


def cut(chunks: Iterator[bytes], finder: Finder, limit: int) -> Iterator[Block | Unheld]:
    """Cut chunks into whole records, in order.

    A broken stream ends with one `Unheld` for the record that it broke in, also when that record has no byte.

    Args:
        chunks: the shard's bytes; may end with `BrokenStream`.
        finder: finds the ends of records.
        limit: bytes of the longest record that is held.
    Memory: a chunk, and twice the limit at the worst.
    """
    pending = _Pending(limit)
    try:
        for chunk in chunks:
            yield from _whole_records(chunk, finder, pending)
    except BrokenStream as error:
        yield pending.unheld(error.reason)
        return
    end = finder.at_end()
    if end == "truncated":
        yield pending.unheld("truncated")
    elif end == "record" and pending.too_large:
        yield pending.unheld("too_large")
    elif end == "record" and pending.size:
        rest = np.frombuffer(pending.take(), np.uint8)
        yield Block(rest, np.zeros(1, np.int64), np.full(1, len(rest), np.int64))


def _whole_records(chunk: bytes, finder: Finder, pending: _Pending) -> Iterator[Block | Unheld]:
    ends = finder.separators(np.frombuffer(chunk, np.uint8))
    if not len(ends):
        pending.add(chunk)
        return
    first = 0
    if pending.too_large:
        pending.add(memoryview(chunk)[: ends[0]])
        yield pending.unheld("too_large")
        first, ends = int(ends[0]) + 1, ends[1:]
    elif pending.size:
        start = pending.take()
        chunk, ends = start + chunk, ends + len(start)
    begins = np.concatenate([np.array([first], np.int64), ends[:-1] + 1])[: len(ends)]
    buffer = np.frombuffer(chunk, np.uint8)
    for record in range(0, len(ends), MAX_RECORDS):
        some = slice(record, record + MAX_RECORDS)
        yield Block(buffer, begins[some], ends[some])
    rest = int(ends[-1]) + 1 if len(ends) else first
    if rest < len(chunk):
        pending.add(memoryview(chunk)[rest:])
