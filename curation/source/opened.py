"""An opened shard's bytes: byte order marks, empty archives, and the members of zip archives."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from curation.source.chunks import BrokenStream, UnreadableShard, read_chunks

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def opened_chunks(file: BinaryIO, compression: str, path: str, chunk_bytes: int) -> Iterator[bytes]:
    """A stream's chunks without its byte order mark.

    Args:
        file: open for reading.
        compression: as `read_chunks` knows it, or `zip` for a member that unpacks itself.
        path: for errors.
        chunk_bytes: about the bytes of a chunk.

    Raises:
        UnreadableShard: if no byte can be read (of a stream that is no member of an archive), or the text is UTF-16.
        BrokenStream: when it breaks after some bytes.
    """
    chunks = _member_chunks(file, chunk_bytes) if compression == "zip" else read_chunks(file, compression, chunk_bytes)
    started = False
    try:
        for chunk in _first_bytes_together(chunks):
            if not started and chunk.startswith(_UTF16_MARKS):
                raise UnreadableShard(path, "it is UTF-16; convert it to UTF-8")
            yield chunk if started else chunk.removeprefix(_UTF8_MARK)
            started = True
    except BrokenStream as error:
        if started or compression == "zip":  # the other members of a zip archive can still be read
            raise
        raise UnreadableShard(path, error) from error
    if not started and compression not in ("", "zip") and file.tell() == 0:
        raise UnreadableShard(path, f"it is empty, without even a {compression} header")


def _first_bytes_together(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks of which the first holds a byte order mark whole, however small the others are."""
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= len(_UTF8_MARK):
            yield first
            break
    else:
        if first:
            yield first
        return
    yield from chunks


def _member_chunks(file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(chunk_bytes)
        except EOFError as error:
            raise BrokenStream("truncated", error) from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise BrokenStream("unreadable", error) from error
        except OSError as error:
            if error.errno is not None:  # the disk's; damage that bz2 finds has no number
                raise
            raise BrokenStream("unreadable", error) from error
        if not chunk:
            return
        yield chunk


def zip_members(file: BinaryIO, path: str) -> Iterator[BinaryIO]:
    """The files in a zip archive, opened one after the other in the order of their names.

    Raises:
        UnreadableShard: if it is no zip archive, or a member is encrypted or packed in an unknown way.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(
                name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
            )
            for name in names:
                yield cast(BinaryIO, archive.open(name))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnreadableShard(path, error) from error
