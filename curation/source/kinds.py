"""The kinds of the columns that `brought` and `where` ask for, told by the beginnings of a source's shards."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice, product
from typing import BinaryIO

import pyarrow as pa

from curation.source.chunks import BrokenStream, UnreadableShard, compression_of, open_bytes
from curation.source.formats import FORMATS
from curation.source.opened import opened_chunks, zip_members
from curation.source.parquet_records import kinds_of_columns, open_parquet
from curation.source.reader import ReadCounts, Reader, Reading, check_columns
from curation.source.records import KINDS
from curation.source.where import SourceError, condition, did_you_mean, is_true

PREFIX_BYTES = 1 << 20
LOOK_BYTES = 256 << 20  # looked at for columns that have no value in the first bytes of any shard
_TOLD = ("text", "number", "bool")  # kinds of columns in text formats
_MOST_TRIED = 3**6  # kinds of six columns; each try asks polars once
_NAME = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"\s*:')


def column_types(paths: str | Sequence[str], reader: Reader) -> tuple[tuple[str, str], ...]:
    """(column, kind) of the columns that `brought` and `where` ask for, sorted; told once for all shards of a source.

    A column is `number` or `bool` when all its values in the first MiB are, else `text`; in Parquet its type says it.
    Where nothing stands there, the next shards are asked, then the records behind, at the most 256 MiB of them. A
    column without any value has the first kind of which `where` can be asked.

    Args:
        paths: shards of the source, or one.
        reader: how they are read; its own `types` go before what text shards tell, and behind what Parquet says.

    Returns:
        Value for `Reader.types`.

    Raises:
        SourceError: if a column is not there.
        UnreadableShard: if no shard can be read.
    """
    shards = [paths] if isinstance(paths, str) else list(paths)
    declared = dict(reader.types)
    for name, kind in declared.items():
        if kind not in KINDS:
            raise SourceError(f"{shards[0]}: column {name!r} is declared as {kind!r}{did_you_mean(kind, _TOLD)}")
    asked = reader.asked()
    if reader.format == "parquet":
        told = declared | (_stored(shards, reader) if asked else {})
    else:
        undeclared = [name for name in asked if name not in declared]
        told = declared | (_told(shards, reader, undeclared) if undeclared else {})
    told |= _askable(reader, told, [name for name in asked if name not in told])
    return tuple((name, told[name]) for name in asked)


def _each(shards: Sequence[str], tells_all: Callable[[str], bool]) -> None:
    """Ask shard after shard until one tells all; those that cannot be read are passed over, unless none can."""
    failed: list[UnreadableShard] = []
    for path in shards:
        try:
            if tells_all(path):
                return
        except UnreadableShard as error:
            failed.append(error)
        except OSError as error:
            failed.append(UnreadableShard(path, error))
    if failed and len(failed) == len(shards):
        raise failed[0]


def _stored(shards: Sequence[str], reader: Reader) -> dict[str, str]:
    """Kinds by the types of Parquet columns; a column of nulls alone, as pandas writes it, has no type in its shard."""
    told: dict[str, str] = {}

    def tells_all(path: str) -> bool:
        with closing(open_bytes(path)) as file:
            schema = open_parquet(path, file).schema_arrow
        stored = kinds_of_columns(schema)
        check_columns(list(schema.names), Reading(path, reader, stored, ReadCounts()), "columns")
        typed = [name for name in reader.asked() if not pa.types.is_null(schema.field(name).type)]
        told.update({name: stored[name] for name in typed if name not in told})
        return len(told) == len(reader.asked())

    _each(shards, tells_all)
    return told


def _told(shards: Sequence[str], reader: Reader, names: list[str]) -> dict[str, str]:
    """Kinds by values: those in the first bytes of shard after shard, else the first ones of the records behind."""
    if reader.format in ("lines", "text"):
        raise SourceError(f"{shards[0]}: no column {names[0]!r}; the format {reader.format} brings none")
    look = _Look(reader, list(names))
    _each(shards, look.at_beginning)
    if look.left:
        look.budget = LOOK_BYTES // 2
        _each(shards, look.at_all)
    absent = [name for name in look.left if look.seen and name not in look.seen]
    if absent:
        where = f"{shards[0]} and {len(shards) - 1:,} more" if len(shards) > 1 else shards[0]
        looked = f"the {LOOK_BYTES >> 20} MiB looked at" if look.budget <= 0 else "any record"
        later = "; if it comes later, write it into an early record too, null is enough" if look.budget <= 0 else ""
        raise SourceError(f"{where}: no column {absent[0]!r} in {looked}{did_you_mean(absent[0], look.seen)}{later}")
    return look.told


@dataclass
class _Look:
    """A look at text shards for the kinds of some columns."""

    reader: Reader
    left: list[str]  # columns without a value so far
    told: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # names of the records, also those without a value
    budget: int = LOOK_BYTES // 2

    def at_beginning(self, path: str) -> bool:
        """Tell kinds by all values in the first MiB of a shard; whether to stop."""
        with closing(open_bytes(path)) as file:
            prefix = _prefix(path, file)
        self.budget -= len(prefix[0])
        if self.reader.format in ("jsonl", "json"):
            text = prefix[0].decode("utf-8", "replace")
            self.seen |= {json.loads(f'"{name}"', strict=False) for name in _NAME.findall(text)}
        try:
            self._tell(sum(self._counted(path, _chunks(prefix)), Counter()))
        except BrokenStream as error:
            raise UnreadableShard(path, error) from error
        return not self.left or self.budget <= 0

    def at_all(self, path: str) -> bool:
        """Tell kinds by the first values that a shard has anywhere; whether to stop."""
        zipped = path.lower().endswith(".zip")
        with closing(open_bytes(path)) as file, suppress(BrokenStream):
            for stream in zip_members(file, path) if zipped else [file]:
                chunks = opened_chunks(stream, "zip" if zipped else compression_of(path), path, PREFIX_BYTES)
                for counts in self._counted(path, self._noted(chunks)):
                    self._tell(counts)
                    if not self.left or self.budget <= 0:
                        return True
        return False

    def _noted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, counted and searched for the names."""
        for chunk in chunks:
            self.budget -= len(chunk)
            self.seen |= {name for name in self.left if json.dumps(name, ensure_ascii=False).encode() in chunk}
            yield chunk

    def _tell(self, counts: Mapping[tuple[str, str], int]) -> None:
        for name in [name for name in self.left if counts.get((name, "text"))]:
            all_are = [kind for kind in ("number", "bool") if counts[name, kind] == counts[name, "text"]]
            self.told[name] = (all_are or ["text"])[-1]
            self.left.remove(name)

    def _counted(self, path: str, chunks: Iterator[bytes]) -> Iterator[Counter[tuple[str, str]]]:
        """How many values of each kind the columns have, block by block."""
        reading = _EveryKind(path, self.reader, {}, ReadCounts(), tuple(self.left))
        for records in FORMATS[self.reader.format](chunks, reading):
            columns = {key: records.columns.get(key) for key in product(reading.names, _TOLD)}
            yield Counter({key: len(c) - c.null_count for key, c in columns.items() if c is not None})


@dataclass(frozen=True)
class _EveryKind(Reading):
    """A reading of some columns as each of the kinds."""

    names: tuple[str, ...] = ()

    def wanted(self) -> list[tuple[str, str]]:
        return list(product(self.names, _TOLD))


def _askable(reader: Reader, told: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """Kinds of columns without any value: the first ones of which `where` can be asked, else text."""
    known = {name: pa.array([], KINDS[kind]) for name, kind in told.items()}
    for kinds in islice(product(_TOLD, repeat=len(names)), _MOST_TRIED if reader.where and names else 0):
        columns = known | {name: pa.array([], KINDS[kind]) for name, kind in zip(names, kinds, strict=True)}
        with suppress(SourceError):
            is_true(str(reader.where), {name: columns[name] for name in condition(str(reader.where))[1]}, 0)
            return dict(zip(names, kinds, strict=True))
    return dict.fromkeys(names, "text")


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
