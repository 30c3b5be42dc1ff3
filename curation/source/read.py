"""From a shard's path to its row batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

import pyarrow as pa
import xxhash

from curation.source.chunks import BrokenStream, UnreadableShard, compression_of, open_bytes
from curation.source.formats import FORMATS
from curation.source.kinds import column_types
from curation.source.opened import opened_chunks, zip_members
from curation.source.parquet_records import open_parquet, parquet
from curation.source.reader import ReadCounts, Reader, Reading
from curation.source.records import Records, unheld_record
from curation.source.rows import as_rows
from curation.source.spans import Unheld
from curation.source.where import SourceError, did_you_mean


def read_shard(
    path: str, reader: Reader, *, batch_bytes: int = 16 << 20, counts: ReadCounts | None = None
) -> Iterator[pa.RecordBatch]:
    """Read a shard as row batches of the schema ROWS (and the brought columns), in the order of the file.

    Every record is a row, also one that cannot be read: its text is null and `read_reason` says why. The row number is
    the record's place in the shard, whatever `where` and `sample` leave out.

    Args:
        path: a file, local or of any fsspec filesystem; its suffix tells a compression (gz, zst, bz2, xz) or a zip
            archive, whose members are read one after the other, sorted by name.
        reader: how it is read.
        batch_bytes: about the bytes of a batch, for Parquet twice these at the most; the rows do not depend on it.
        counts: is filled while reading, with the rows left unread too.

    Raises:
        UnreadableShard: if nothing of the file can be read.
        SourceError: if the reader names a column, format or condition that does not fit the file.
    Memory: a few times `batch_bytes`, and a few times the longest record below `max_document`; for Parquet five pages
        of at most 64 MiB, unless `counts.whole_pages` tells otherwise.
    """
    counts = ReadCounts() if counts is None else counts
    if reader.format != "parquet" and reader.format not in FORMATS:
        raise SourceError(
            f"{path}: unknown format {reader.format!r}{did_you_mean(reader.format, [*FORMATS, 'parquet'])}"
        )
    kinds = dict(column_types(path, reader))
    reading = Reading(path, reader, kinds, counts)
    row = 0
    for records in _records(path, reading, batch_bytes):
        batch = as_rows(records, row, reader, kinds, counts)
        row += len(records)
        if len(batch):
            yield batch


def _records(path: str, reading: Reading, batch_bytes: int) -> Iterator[Records]:
    try:
        file = open_bytes(path)
    except OSError as error:
        raise UnreadableShard(path, error) from error
    with closing(file):
        if reading.reader.format == "parquet":
            local = None if "://" in path else file  # elsewhere looking for large pages would read the file twice
            yield from parquet(open_parquet(path, file), reading, batch_bytes, local)
        elif path.lower().endswith(".zip"):
            yield from _members(file, reading, batch_bytes)
        else:
            yield from _stream(file, compression_of(path), reading, batch_bytes)


def _stream(file: BinaryIO, compression: str, reading: Reading, batch_bytes: int) -> Iterator[Records]:
    chunks = opened_chunks(file, compression, reading.path, batch_bytes)
    try:
        yield from FORMATS[reading.reader.format](chunks, reading)
    except (BrokenStream, OSError) as error:
        raise UnreadableShard(reading.path, error) from error


def _members(file: BinaryIO, reading: Reading, batch_bytes: int) -> Iterator[Records]:
    """Records of all members of a zip archive; a member of which nothing can be read is one row."""
    for member in zip_members(file, reading.path):
        with member as stream:
            try:
                yield from FORMATS[reading.reader.format](
                    opened_chunks(stream, "zip", reading.path, batch_bytes), reading
                )
            except BrokenStream as error:
                yield unheld_record(Unheld(error.reason, 0, xxhash.xxh3_128_digest(b"")))
            except OSError as error:
                raise UnreadableShard(reading.path, error) from error
