"""Pages of a Parquet column chunk: their headers, and their bytes decompressed a piece at a time.

Arrow decodes a page whole and copies it on the way: a page of 1 GB takes more than 4 GB. Pages above `LARGE_PAGE` are
read here. What this module does not know (`UnknownPage`) is left to Arrow.

Layout: the Parquet format's parquet.thrift (PageHeader), in Thrift's compact protocol.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import xxhash

from curation.source.chunks import BrokenStream, read_chunks
from curation.source.snappy import snappy_chunks

LARGE_PAGE = 64 << 20  # bytes of a decompressed page, from which on it is read here; Arrow takes 4 to 5 times as much
DATA, DICTIONARY, DATA_V2 = 0, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE, DELTA_LENGTH, RLE_DICTIONARY = 0, 2, 3, 6, 8
_KNOWN_ENCODINGS = (PLAIN, PLAIN_DICTIONARY, DELTA_LENGTH, RLE_DICTIONARY)
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD")
_HEADER_BYTES = 512
_LONGEST_HEADER = 1 << 20  # with the statistics that it may hold


class UnknownPage(Exception):  # noqa: N818 (it names the thing that is left to Arrow)
    """A page that this module cannot read; the message says why."""


@dataclass(frozen=True)
class Page:
    """One page: where its body begins, sizes in bytes, and its header's fields.

    `levels` are the bytes of definition levels before the values: in front of the compressed part (version 2), or
    None where the body tells (version 1).
    """

    kind: int
    at: int
    size: int
    compressed: int
    num_values: int
    encoding: int
    levels: int | None
    codec: str


# ---------------------------------------------------------------- headers


class _Compact:
    """Values of Thrift's compact protocol in a buffer. `IndexError` at its end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def number(self) -> int:
        """A varint of at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise UnknownPage("its header holds a number of more than 64 bits")

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.content):
            raise IndexError

    def value(self, kind: int) -> Any:
        """A value of a type; strings, lists and maps are passed over."""
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self.signed()
        if kind == 12:
            return self.fields()
        if kind in (3, 7):
            self.skip(1 if kind == 3 else 8)
        elif kind == 8:
            self.skip(self.number())
        else:
            raise UnknownPage(f"its header holds a value of type {kind}")
        return None

    def fields(self) -> dict[int, Any]:
        """A struct: values by field number."""
        found: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            found[number] = self.value(head & 15)
        return found


def _header(file: BinaryIO, at: int, codec: str) -> tuple[Page, int]:
    """The page whose header is at a place of the file, and where the next one is."""
    size = _HEADER_BYTES
    while True:
        file.seek(at)
        compact = _Compact(file.read(size))
        try:
            fields = compact.fields()
            return _page(fields, at + compact.at, codec), at + compact.at + fields[3]
        except IndexError:
            size *= 16
            if size > _LONGEST_HEADER or len(compact.content) < size // 16:
                raise UnknownPage("its header is cut short or too long") from None
        except (KeyError, TypeError, RecursionError) as error:
            raise UnknownPage(f"its header is not a page's: {error!r}") from None


def _page(fields: dict[int, Any], at: int, codec: str) -> Page:
    kind = fields[1]
    if kind == DATA:
        values, encoding, levels = fields[5][1], fields[5][2], None
        if fields[5][3] != RLE:
            raise UnknownPage(f"its definition levels have encoding {fields[5][3]}")
    elif kind == DATA_V2:
        values, encoding, levels = fields[8][1], fields[8][4], fields[8][5]
        if not fields[8].get(7, True):
            codec = "UNCOMPRESSED"
        if fields[8][6]:
            raise UnknownPage("it has repetition levels")
    elif kind == DICTIONARY:
        values, encoding, levels = fields[7][1], fields[7][2], 0
        if 4 * values > fields[2]:
            raise UnknownPage(f"its {fields[2]} bytes cannot hold {values} values")
        encoding = PLAIN if encoding == PLAIN_DICTIONARY else encoding
    else:
        raise UnknownPage(f"it is of type {kind}")
    if encoding not in _KNOWN_ENCODINGS:
        raise UnknownPage(f"its values have encoding {encoding}")
    if min(values, levels or 0, fields[2], fields[3]) < 0:
        raise UnknownPage("its header holds a negative size")
    return Page(kind, at, fields[2], fields[3], values, encoding, levels, codec)


def list_pages(file: BinaryIO, column: Any) -> list[Page]:
    """The pages of a column chunk.

    Args:
        file: the Parquet file.
        column: its metadata (`pyarrow.parquet.ColumnChunkMetaData`).

    Raises:
        UnknownPage: where one cannot be read here.
    """
    if column.compression not in _CODECS:
        raise UnknownPage(f"it is compressed by {column.compression}")
    at = column.data_page_offset
    if column.dictionary_page_offset:  # some writers leave out where it is, and 0 is none
        at = min(at, column.dictionary_page_offset)
    end = at + column.total_compressed_size
    pages = []
    while at < end:
        page, at = _header(file, at, column.compression)
        pages.append(page)
    if at != end:
        raise UnknownPage("its column chunk ends inside it")
    if sum(page.num_values for page in pages if page.kind != DICTIONARY) != column.num_values:
        raise UnknownPage("pages and footer disagree about the number of values")
    return pages


# ---------------------------------------------------------------- bytes


class _Span(io.RawIOBase):
    """A part of a file. Others read the file meanwhile: it is placed anew before each read."""

    def __init__(self, file: BinaryIO, at: int, size: int) -> None:
        self._file = file
        self._at, self._end = at, at + size

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        got = self._file.read(left if size < 0 else min(size, left))
        self._at += len(got)
        return got


def _decompressed(span: Any, codec: str, size: int, chunk_bytes: int) -> Iterator[bytes]:
    if codec == "SNAPPY":
        return snappy_chunks(span, size, chunk_bytes)
    return read_chunks(span, {"GZIP": "gz", "ZSTD": "zst", "UNCOMPRESSED": ""}[codec], chunk_bytes)


class PageBytes:
    """The decompressed bytes of a page's body, read once from front to end.

    Memory: a few times `chunk_bytes`, or what one `take` asks for.
    """

    def __init__(self, file: BinaryIO, page: Page, chunk_bytes: int) -> None:
        before = page.levels if page.kind == DATA_V2 and page.levels else 0
        self.levels = _Span(file, page.at, before).read()
        span = _Span(file, page.at + before, page.compressed - before)
        self.left = page.size - before  # bytes not taken yet
        self._chunks = _decompressed(span, page.codec, self.left, chunk_bytes) if self.left else iter(())
        self._held: list[memoryview] = []
        self._size = 0

    def _gather(self, size: int) -> None:
        while self._size < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise BrokenStream("truncated", "a page holds fewer bytes than its header says")
            self._held.append(memoryview(chunk))
            self._size += len(chunk)

    def peek(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """At least `size` of the next bytes (all that are left, where that is fewer), without taking them."""
        self._gather(min(size, self.left))
        if len(self._held) > 1:
            self._held = [memoryview(b"".join(self._held))]
        content = np.frombuffer(self._held[0] if self._held else b"", np.uint8)
        return content[: self.left]

    def take(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Exactly so many bytes."""
        if size > self.left:
            raise BrokenStream("truncated", "values of a page go on behind its end")
        content = self.peek(size)[:size]
        self.drop(size)
        return content

    def drop(self, size: int) -> None:
        """Take bytes that `peek` has shown."""
        self._size -= size
        self.left -= size
        if size:
            rest = self._held[0][size:]
            self._held[:1] = [rest] if len(rest) else []

    def digest(self, size: int) -> bytes:
        """Take so many bytes and return their xxh3_128 hash alone; they are never held together."""
        if size > self.left:
            raise BrokenStream("truncated", "values of a page go on behind its end")
        hashed = xxhash.xxh3_128()
        while size:
            piece = self.peek(1)[:size]
            hashed.update(memoryview(piece))  # type: ignore[arg-type]  # numpy's stubs do not say that arrays are buffers
            self.drop(len(piece))
            size -= len(piece)
        return hashed.digest()
