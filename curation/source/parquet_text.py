"""The text column of a Parquet row group with very large pages, in blocks, without holding a page.

Values longer than the limit are hashed and passed over where they stand, in plain pages, delta-length ones and
dictionaries alike; so a text of 1 GB takes no more memory than any other. Kept values are copied once, into the block.

Layout: the Parquet format's Encodings.md (plain, RLE and bit-packed hybrid, delta length, dictionary).
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.source.chunks import BrokenStream
from curation.source.parquet_pages import DATA, DELTA_LENGTH, DICTIONARY, PLAIN, Page, PageBytes, UnknownPage
from curation.source.records import Mask, binary_array
from curation.source.spans import MAX_RECORDS, Bytes, Positions

_BLOCK, _DAMAGED = 128, -1


@dataclass(frozen=True)
class Texts:
    """R texts, row-aligned: large_binary, null where missing or over the limit.

    `sizes` are those in the shard, `present` false where the shard has a null; `ids` the hashes of texts over the
    limit by row.
    """

    texts: pa.Array
    sizes: Positions
    present: Mask
    ids: dict[int, bytes]

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class _Values:
    """V values one behind the other; one over the limit has no bytes here, its size in `sizes`, its hash in `ids`."""

    content: Bytes
    offsets: Positions
    sizes: Positions
    ids: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class Limits:
    """Bytes of the longest text that is held, and about the bytes of a block."""

    max_document: int
    batch_bytes: int


# ---------------------------------------------------------------- values of a page


@kernel
def _plain_spans(held: Bytes, most: int, limit: int, begins: Positions, ends: Positions) -> tuple[int, int, int]:
    """Spans of the plain values that are whole in `held`, up to one over the limit.

    Returns their number, the bytes they take, and the size of the value behind them, or -1 where it is not known yet.
    """
    count, at, end = 0, 0, held.shape[0]
    while count < most and at + 4 <= end:
        size = np.int64(held[at]) | np.int64(held[at + 1]) << 8 | np.int64(held[at + 2]) << 16
        size |= np.int64(held[at + 3]) << 24
        if size > limit or at + 4 + size > end:
            return count, at, size
        begins[count], ends[count] = at + 4, at + 4 + size
        at += 4 + size
        count += 1
    return count, at, -1


@kernel
def _joined(held: Bytes, begins: Positions, ends: Positions, offsets: Positions, content: Bytes) -> None:
    """Spans one behind the other."""
    at = 0
    for k in range(begins.shape[0]):
        size = ends[k] - begins[k]
        content[at : at + size] = held[begins[k] : ends[k]]
        at += size
        offsets[k + 1] = at


def _plain(stream: PageBytes, count: int, limits: Limits) -> Iterator[_Values]:
    """Plain values: each behind its length in four bytes."""
    begins, ends = np.empty(MAX_RECORDS, np.int64), np.empty(MAX_RECORDS, np.int64)
    needed = 4
    while count:
        held = stream.peek(max(needed, 4))
        if len(held) < max(needed, 4):
            raise BrokenStream("truncated", "values of a page go on behind its end")
        number, used, size = _plain_spans(held, min(count, MAX_RECORDS), limits.max_document, begins, ends)
        if number:
            offsets, content = np.zeros(number + 1, np.int64), np.empty(used - 4 * number, np.uint8)
            _joined(held, begins[:number], ends[:number], offsets, content)
            yield _Values(content, offsets, np.diff(offsets))
        del held
        stream.drop(used)
        count -= number
        needed = 4 if size < 0 else 4 + size
        if size > limits.max_document:
            stream.drop(4)
            yield _unheld(size, stream.digest(size))
            count, needed = count - 1, 4


def _unheld(size: int, digest: bytes) -> _Values:
    """One value over the limit."""
    return _Values(np.empty(0, np.uint8), np.zeros(2, np.int64), np.array([size]), {0: digest})


@kernel
def _number(packed: Bytes, at: int) -> tuple[int, int]:
    """A varint, and the place behind it; -1 where the bytes end."""
    value, shift = 0, 0
    while at < packed.shape[0] and shift < 64:
        byte = np.int64(packed[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, _DAMAGED


@kernel
def _bits(packed: Bytes, bit: int, width: int) -> int:
    """`width` bits (at most 56) from a place on, the lowest first."""
    value, at = np.uint64(0), bit >> 3
    for k in range((width + (bit & 7) + 7) >> 3):
        value |= np.uint64(packed[at + k]) << np.uint64(8 * k)
    return np.int64((value >> np.uint64(bit & 7)) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@kernel
def _delta_numbers(packed: Bytes, out: Positions) -> int:
    """Decode DELTA_BINARY_PACKED numbers into `out`; the bytes they take, or -1 where they are damaged."""
    block, at = _number(packed, 0)
    parts, at = _number(packed, at) if at > 0 else (0, _DAMAGED)
    total, at = _number(packed, at) if at > 0 else (0, _DAMAGED)
    first, at = _number(packed, at) if at > 0 else (0, _DAMAGED)
    if at < 0 or parts == 0 or block % (parts * 8) or block <= 0 or total != out.shape[0]:
        return _DAMAGED
    value, done, each = (first >> 1) ^ -(first & 1), 0, block // parts
    if total:
        out[0], done = value, 1
    while done < total:
        least, at = _number(packed, at)
        if at < 0 or at + parts > packed.shape[0]:
            return _DAMAGED
        least, widths = (least >> 1) ^ -(least & 1), at
        at += parts
        for part in range(parts):
            width = np.int64(packed[widths + part])
            if done >= total:
                break
            if width > 40 or at + width * each // 8 > packed.shape[0]:
                return _DAMAGED
            for k in range(min(each, total - done)):
                value += least + _bits(packed, 8 * at + k * width, width)
                out[done] = value
                done += 1
            at += width * each // 8
    return at


def _delta_length(stream: PageBytes, count: int, limits: Limits) -> Iterator[_Values]:
    """All lengths, then all bytes."""
    sizes = np.empty(count, np.int64)
    # at most 5 bytes a length with its share of a block's head, and a last block that is filled up
    used = _delta_numbers(stream.peek(6 * count + 8 * _BLOCK), sizes)
    if used < 0 or (sizes < 0).any() or int(sizes.max(initial=0)) > stream.left:
        raise UnknownPage("its lengths are damaged or packed in an unknown way")
    stream.drop(used)
    yield from _sized(stream, sizes, limits)


def _sized(stream: PageBytes, sizes: Positions, limits: Limits) -> Iterator[_Values]:
    """Values whose sizes are known, one behind the other."""
    ends, at = np.cumsum(sizes), 0
    unheld = np.flatnonzero(sizes > limits.max_document).tolist()
    while at < len(sizes):
        if unheld and at == unheld[0]:
            yield _unheld(int(sizes[at]), stream.digest(int(sizes[at])))
            unheld.pop(0)
            at += 1
            continue
        before = int(ends[at - 1]) if at else 0
        stop = int(np.searchsorted(ends, before + limits.batch_bytes, "right"))
        stop = min(max(stop, at + 1), at + MAX_RECORDS, *unheld[:1])
        offsets = np.concatenate(([before], ends[at:stop])) - before
        yield _Values(stream.take(int(offsets[-1])), offsets, sizes[at:stop])
        at = stop


# ---------------------------------------------------------------- dictionaries and levels


@kernel
def hybrid_numbers(packed: Bytes, width: int, out: Positions) -> bool:
    """Decode RLE and bit-packed runs of `width` bits into `out`; whether there were enough."""
    done, at, total = 0, 0, out.shape[0]
    while done < total:
        head, at = _number(packed, at)
        if at < 0:
            return False
        if head & 1:
            count = min((head >> 1) * 8, total - done)
            if 8 * at + count * width > 8 * packed.shape[0]:
                return False
            for k in range(count):
                out[done + k] = _bits(packed, 8 * at + k * width, width)
            at += (head >> 1) * width
        else:
            count, size = min(head >> 1, total - done), (width + 7) // 8
            if at + size > packed.shape[0] or count == 0:
                return False
            out[done : done + count] = _bits(packed, 8 * at, width)
            at += size
        done += count
    return True


def _dictionary(stream: PageBytes, count: int, size: int, limits: Limits) -> _Values:
    """All values of a dictionary page of `size` bytes. Memory: those of its texts that are not over the limit."""
    content, filled = np.empty(size, np.uint8), 0  # memory is taken where it is written
    ends, sizes = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
    ids: dict[int, bytes] = {}
    done = 0
    for values in _plain(stream, count, limits):
        content[filled : filled + len(values.content)] = values.content
        ends.append(values.offsets[1:] + filled)
        sizes.append(values.sizes)
        ids |= {done + i: digest for i, digest in values.ids.items()}
        filled += len(values.content)
        done += len(values)
    return _Values(content[:filled], np.concatenate(ends), np.concatenate(sizes), ids)


def _looked_up(stream: PageBytes, count: int, dictionary: _Values, limits: Limits) -> Iterator[_Values]:
    """Values by their places in the dictionary."""
    if not count:
        return
    width = int(stream.take(1)[0])
    places = np.zeros(count, np.int64)
    if width > 32 or not hybrid_numbers(stream.take(stream.left), width, places):
        raise BrokenStream("unreadable", "places in a dictionary are damaged")
    if len(dictionary) <= int(places.max()):
        raise BrokenStream("unreadable", f"a page names value {places.max()} of {len(dictionary)} in its dictionary")
    known = binary_array(dictionary.offsets, dictionary.content, np.ones(len(dictionary), bool))
    held = np.diff(dictionary.offsets)[places]
    ends, at = np.cumsum(held), 0
    while at < count:
        before = int(ends[at - 1]) if at else 0
        stop = max(int(np.searchsorted(ends, before + limits.batch_bytes, "right")), at + 1)
        some = places[at : min(stop, at + MAX_RECORDS)]
        taken = known.take(pa.array(some))
        offsets = np.concatenate(([before], ends[at : at + len(some)])) - before
        content = np.frombuffer(taken.buffers()[2] or b"", np.uint8)[: int(offsets[-1])]
        ids = {k: dictionary.ids[place] for k, place in enumerate(some.tolist()) if place in dictionary.ids}
        yield _Values(content, offsets, dictionary.sizes[some], ids)
        at += len(some)


def _present(stream: PageBytes, page: Page, nullable: bool) -> Mask:
    """Which rows of a page have a value, bool (rows,)."""
    if page.kind == DATA:
        if not nullable:
            return np.ones(page.num_values, bool)
        packed = stream.take(int.from_bytes(stream.take(4).tobytes(), "little"))
    else:
        packed = np.frombuffer(stream.levels, np.uint8)
        if not len(packed):
            return np.ones(page.num_values, bool)
    levels = np.zeros(page.num_values, np.int64)
    if not hybrid_numbers(packed, 1, levels):
        raise BrokenStream("unreadable", "definition levels of a page are damaged")
    return levels != 0


# ---------------------------------------------------------------- rows


def _rows(values: _Values, present: Mask) -> Texts:
    """Values on the rows that have one; `present` (rows,) has as many trues as there are values."""
    held = np.ones(len(values), bool)
    held[list(values.ids)] = False
    sizes, valid, held_sizes = np.zeros(len(present), np.int64), present.copy(), np.zeros(len(present), np.int64)
    rows = np.flatnonzero(present)
    sizes[rows], held_sizes[rows], valid[rows] = values.sizes, np.diff(values.offsets), held
    offsets = np.zeros(len(present) + 1, np.int64)
    np.cumsum(held_sizes, out=offsets[1:])
    ids = {int(rows[i]): digest for i, digest in values.ids.items()}
    return Texts(binary_array(offsets, values.content, valid), sizes, present, ids)


def _page_rows(values: Iterator[_Values], present: Mask) -> Iterator[Texts]:
    """Blocks of a page's rows: each ends behind its last value, the page's last one with the nulls that follow."""
    rows, done, at = np.flatnonzero(present), 0, 0
    for some in values:
        done += len(some)
        stop = int(rows[done]) if done < len(rows) else len(present)
        yield _rows(some, present[at:stop])
        at = stop
    if at < len(present):
        empty = _Values(np.empty(0, np.uint8), np.zeros(1, np.int64), np.zeros(0, np.int64))
        yield _rows(empty, present[at:])


def large_texts(file: BinaryIO, pages: list[Page], nullable: bool, limits: Limits) -> Iterator[Texts]:
    """The texts of a column chunk in blocks of about `batch_bytes`, at the page's end smaller ones.

    Args:
        file: the Parquet file.
        pages: those of the chunk (`list_pages`).
        nullable: whether the column may hold nulls.
        limits: bytes that are held.

    Raises:
        UnknownPage, BrokenStream: at a page that cannot be read here; the blocks before it stand.
    Memory: a few times `batch_bytes`, a few times `max_document`, and the texts of a dictionary page.
    """
    dictionary = None
    chunk_bytes = max(limits.batch_bytes, 1 << 16)
    for page in pages:
        stream = PageBytes(file, page, chunk_bytes)
        if page.kind == DICTIONARY:
            dictionary = _dictionary(stream, page.num_values, page.size, limits)
            continue
        present = _present(stream, page, nullable)
        count = int(present.sum())
        if page.encoding == PLAIN:
            values = _plain(stream, count, limits)
        elif page.encoding == DELTA_LENGTH:
            values = _delta_length(stream, count, limits)
        elif dictionary is None:
            raise UnknownPage("it names a dictionary and there is none")
        else:
            values = _looked_up(stream, count, dictionary, limits)
        yield from _page_rows(values, present)
