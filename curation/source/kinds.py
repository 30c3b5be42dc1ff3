"""The kinds of the columns that `brought` and `where` ask for, told by the beginning of a shard."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

from curation.source.chunks import BrokenStream, UnreadableShard, compression_of, open_bytes
from curation.source.formats import FORMATS
from curation.source.opened import opened_chunks, zip_members
from curation.source.parquet_records import kinds_of_columns, open_parquet
from curation.source.reader import ReadCounts, Reader, Reading, check_columns
from curation.source.where import SourceError, did_you_mean

PREFIX_BYTES = 1 << 20
_NAME = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"\s*:')


def column_types(path: str, reader: Reader) -> tuple[tuple[str, str], ...]:
    """(column, kind) of the columns that `brought` and `where` ask for, sorted; told once for all shards of a source.

    A column is `number` or `bool` when all its values in the first MiB are, else `text`; in Parquet its type says it.

    Args:
        path: a shard of the source.
        reader: how it is read; its own `types` go before what the shard tells.

    Returns:
        Value for `Reader.types`.

    Raises:
        SourceError: if a column is not there.
        UnreadableShard: if the shard cannot be read.
    """
    asked = reader.asked()
    declared = dict(reader.types)
    for name, kind in declared.items():
        if kind not in ("text", "number", "bool", "int64"):
            raise SourceError(
                f"{path}: column {name!r} is declared as {kind!r}{did_you_mean(kind, ('text', 'number', 'bool'))}"
            )
    if not set(asked) - set(declared) and reader.format != "parquet":
        return tuple((name, declared[name]) for name in asked)
    if not asked:
        return ()
    try:
        with closing(open_bytes(path)) as file:
            if reader.format == "parquet":
                schema = open_parquet(path, file).schema_arrow
                stored = kinds_of_columns(schema)
                check_columns(list(schema.names), Reading(path, reader, stored, ReadCounts()), "columns")
                return tuple((name, stored[name]) for name in asked)
            prefix = _prefix(path, file)
    except OSError as error:
        raise UnreadableShard(path, error) from error
    undeclared = [name for name in asked if name not in declared]
    told = {**_told(path, reader, prefix, undeclared), **declared}
    return tuple((name, told[name]) for name in asked)


def _prefix(path: str, file: BinaryIO) -> tuple[bytes, bool]:
    """The first bytes of a shard (of a zip archive's first member that has some), and whether there are more."""
    zipped = path.lower().endswith(".zip")
    for stream in zip_members(file, path) if zipped else [file]:
        held = b""
        try:
            for chunk in opened_chunks(stream, "zip" if zipped else compression_of(path), path, PREFIX_BYTES):
                held += chunk
                if len(held) > PREFIX_BYTES:
                    return held[:PREFIX_BYTES], True
        except BrokenStream:
            return held, True
        if held:
            return held, False
    return b"", False


def _chunks(prefix: tuple[bytes, bool]) -> Iterator[bytes]:
    yield prefix[0]
    if prefix[1]:
        raise BrokenStream("truncated", "the prefix ends")  # so that its last record, maybe cut, tells nothing


def _values(path: str, reader: Reader, prefix: tuple[bytes, bool], names: list[str], kind: str) -> dict[str, int]:
    """How many values of a kind each column has in the prefix."""
    reading = Reading(path, reader, dict.fromkeys(reader.asked(), kind), ReadCounts())
    found = dict.fromkeys(names, 0)
    try:
        for records in FORMATS[reader.format](_chunks(prefix), reading):
            for name in names:
                column = records.columns.get((name, kind))
                found[name] += 0 if column is None else len(column) - column.null_count
    except BrokenStream as error:
        raise UnreadableShard(path, error) from error
    return found


def _told(path: str, reader: Reader, prefix: tuple[bytes, bool], names: list[str]) -> dict[str, str]:
    present = _values(path, reader, prefix, names, "text")
    if reader.format in ("lines", "text") and names:
        raise SourceError(f"{path}: no column {names[0]!r}; the format {reader.format} brings none")
    if reader.format in ("jsonl", "json"):
        _check_names(path, prefix[0], [name for name in names if not present[name]])
    kinds = dict.fromkeys(names, "text")
    for kind in ("number", "bool"):
        matching = _values(path, reader, prefix, names, kind)
        kinds.update({name: kind for name in names if matching[name] == present[name] > 0})
    return kinds


def _check_names(path: str, prefix: bytes, absent: list[str]) -> None:
    """Refuse names that no record of the prefix has, when there are records with names at all."""
    if not absent:
        return
    known = {json.loads(f'"{name}"', strict=False) for name in _NAME.findall(prefix.decode("utf-8", "replace"))}
    for name in absent:
        if known and name not in known:
            raise SourceError(
                f"{path}: no column {name!r} in its first {len(prefix):,} bytes{did_you_mean(name, known)}; "
                "if it comes later, declare its kind"
            )


def column_names(path: str, reader: Reader) -> tuple[str, ...]:
    """The columns that a shard has, in its order: a schema's, a header's, or those of the records in the first MiB.

    Args:
        path: a shard.
        reader: how it is read; only its format counts.

    Returns:
        Names of the top level; none for lines and text, and where no record of the first MiB is whole.

    Raises:
        UnreadableShard: if nothing of the shard can be read.
    """
    if reader.format in ("lines", "text"):
        return ()
    try:
        with closing(open_bytes(path)) as file:
            if reader.format == "parquet":
                return tuple(open_parquet(path, file).schema_arrow.names)
            prefix = _prefix(path, file)[0].decode("utf-8-sig", "replace")
    except OSError as error:
        raise UnreadableShard(path, error) from error
    if reader.format in ("csv", "tsv"):
        return tuple(next(csv.reader(io.StringIO(prefix), delimiter="\t" if reader.format == "tsv" else ","), ()))
    return tuple(dict.fromkeys(name for record in _objects(prefix, reader.format) for name in record))


def _objects(text: str, kind: str) -> Iterator[dict[str, object]]:
    """Whole JSON objects of a text; in jsonl a bad line is passed over, in a list nothing is told behind a bad one."""
    decoder, place = json.JSONDecoder(strict=False), text.find("{")
    while place >= 0:
        try:
            found, place = decoder.raw_decode(text, place)
            yield found
        except ValueError:
            place = text.find("\n", place) if kind == "jsonl" else -1
        place = text.find("{", place) if place >= 0 else -1
