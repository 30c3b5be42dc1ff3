"""Bytes of a shard, decompressed a chunk at a time, with bounded memory whatever the ratio of compression.

Python's own file objects lose the last bytes before a break (`gzip`), end silently (`zstandard`) or unpack a small
hostile input whole. Here every byte before the break is given out, and only then `BrokenStream` says that there is
more.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

import fsspec
import zstandard

_READ_BYTES = 1 << 18  # of compressed input at a time
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)


class UnreadableShard(Exception):  # noqa: N818 (it names the thing that is set aside)
    """A whole shard that cannot be read. `path` names it, the message says why."""

    def __init__(self, path: str, cause: object) -> None:
        super().__init__(
            f"cannot read shard {path}: {cause}; repair or remove it, or raise the source's `broken` share"
        )
        self.path = path
        self.cause = str(cause)

    def __reduce__(self) -> tuple[type[UnreadableShard], tuple[str, str]]:
        return UnreadableShard, (self.path, self.cause)


class BrokenStream(Exception):  # noqa: N818
    """The stream has no more readable bytes though it should. `reason`: `truncated` (it ends early) or `unreadable`."""

    def __init__(self, reason: str, cause: object) -> None:
        super().__init__(f"{reason}: {cause}")
        self.reason = reason


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def open_bytes(path: str) -> BinaryIO:
    """Open a file of any fsspec path for reading; a plain path is opened without fsspec."""
    if "://" not in path:
        return open(path, "rb")  # noqa: PTH123 (the caller closes it; `path` may be any string)
    return cast(BinaryIO, fsspec.open(path, "rb").open())


def compression_of(path: str) -> str:
    """The compression that a path's suffix tells: `gz`, `zst`, `bz2`, `xz` or the empty string."""
    suffix = path.rpartition(".")[2].lower() if "." in path.rpartition("/")[2] else ""
    return {"gz": "gz", "gzip": "gz", "zst": "zst", "zstd": "zst", "bz2": "bz2", "xz": "xz"}.get(suffix, "")


def read_chunks(file: BinaryIO, compression: str, chunk_bytes: int) -> Iterator[bytes]:
    """Read a file to its end in chunks of at most about `chunk_bytes` decompressed bytes.

    Memory: one chunk and the decompressor's window (zstd: at most 128 MiB, as its own tools allow).

    Raises:
        BrokenStream: after the last readable byte, when the compressed stream is cut short or damaged.
    """
    if compression == "zst":
        return _gathered(_zstd_blocks(file), chunk_bytes)
    if compression == "gz":
        return _members(file, _Gzip, (zlib.error,), chunk_bytes)
    if compression == "bz2":
        return _members(file, bz2.BZ2Decompressor, (OSError,), chunk_bytes)
    if compression == "xz":
        return _members(file, lzma.LZMADecompressor, (lzma.LZMAError,), chunk_bytes)
    return _plain(file, chunk_bytes)


def _plain(file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    while chunk := file.read(chunk_bytes):
        yield chunk


class _Gzip:
    """zlib's decompressor of one gzip member with the interface of bz2's and lzma's: it keeps what it has not used."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _members(
    file: BinaryIO, member: Callable[[], _Decompressor], damage: tuple[type[Exception], ...], chunk_bytes: int
) -> Iterator[bytes]:
    """Chunks of all members (gzip, bz2, xz files may hold several, with zero bytes between or behind them)."""
    decompressor, compressed, ended = member(), b"", False
    started, full = False, False  # inside a member; it may give more without more input
    while True:
        if not compressed and not ended and not full:
            compressed = file.read(_READ_BYTES)
            ended = not compressed
        if not started:
            compressed = compressed.lstrip(b"\0")
            if not compressed:
                if ended:
                    return
                continue
            started = True
        try:
            chunk = decompressor.decompress(compressed, chunk_bytes)
        except damage as error:
            raise BrokenStream("unreadable", error) from error
        compressed, full = b"", len(chunk) == chunk_bytes
        if chunk:
            yield chunk
        if decompressor.eof:
            compressed = decompressor.unused_data
            decompressor, started, full = member(), False, False
        elif ended and not chunk:
            raise BrokenStream("truncated", "the compressed stream ends before its end mark")


def _gathered(pieces: Iterator[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """Join small pieces into chunks; what was gathered before a break is still given out."""
    held: list[bytes] = []
    size = 0
    broken: BrokenStream | None = None
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= chunk_bytes:
                yield b"".join(held)
                held, size = [], 0
    except BrokenStream as error:
        broken = error
    if size:
        yield b"".join(held)
    if broken is not None:
        raise broken


class _Exact:
    """Reads exact numbers of bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held = b""
        self._at = 0

    def _refill(self) -> bool:
        more = self._file.read(_READ_BYTES)
        self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)

    def at_end(self) -> bool:
        return self._at == len(self._held) and not self._refill()

    def take(self, size: int) -> bytes:
        while len(self._held) - self._at < size:
            if not self._refill():
                raise BrokenStream("truncated", "the zstd stream ends inside a frame")
        self._at += size
        return self._held[self._at - size : self._at]


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Decompressed blocks (128 KiB at most) of all zstd frames.

    zstandard has no bound on what one call returns, and 4 bytes may stand for 128 KiB: so a call gets one block.
    Frame layout: RFC 8878 §3.1.
    """
    source = _Exact(file)
    while not source.at_end():
        magic = source.take(4)
        number = int.from_bytes(magic, "little")
        if number in _ZSTD_SKIPPABLE:
            _skip(source, int.from_bytes(source.take(4), "little"))
            continue
        if number != _ZSTD_MAGIC:
            raise BrokenStream("unreadable", f"no zstd frame begins with {magic.hex()}")
        header, checksum_bytes = _zstd_header(source)
        frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        try:
            frame.decompress(magic + header)
            yield from _zstd_frame(source, frame.decompress, checksum_bytes)
        except zstandard.ZstdError as error:
            raise BrokenStream("unreadable", error) from error


def _skip(source: _Exact, size: int) -> None:
    while size:
        size -= len(source.take(min(size, _READ_BYTES)))


def _zstd_header(source: _Exact) -> tuple[bytes, int]:
    """A frame's header behind its magic number, and the bytes of the checksum behind its blocks."""
    descriptor = source.take(1)
    flags = descriptor[0]
    single_segment = bool(flags & 0x20)
    size_bytes = (1 if single_segment else 0, 2, 4, 8)[flags >> 6]
    dictionary_bytes = (0, 1, 2, 4)[flags & 3]
    rest = (0 if single_segment else 1) + dictionary_bytes + size_bytes
    return descriptor + source.take(rest), 4 if flags & 4 else 0


def _zstd_frame(source: _Exact, decompress: Callable[[bytes], bytes], checksum_bytes: int) -> Iterator[bytes]:
    last = False
    while not last:
        head = source.take(3)
        number = int.from_bytes(head, "little")
        last, kind, size = bool(number & 1), (number >> 1) & 3, number >> 3
        block = decompress(head + source.take(1 if kind == 1 else size))  # kind 1: one byte, repeated
        if block:
            yield block
    if checksum_bytes:
        decompress(source.take(checksum_bytes))
