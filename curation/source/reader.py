"""How a shard is read: the description that a source gives, and the counts that reading it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from curation.source.where import SourceError, condition, did_you_mean

OPTIONAL_FIELDS = ("id", "url", "date", "licence")


@dataclass(frozen=True)
class Reader:
    """How a shard is read. Plain values, picklable.

    Attributes:
        format: jsonl, json, csv, tsv, parquet, text (a document a file) or lines (a document a line).
        fields: (role, column) pairs, roles text, id, url, date, licence; a role left out has the format's default.
        brought: columns carried along as `NAME@source`.
        where: SQL on the source's columns; rows where it is not true are not read, only counted.
        sample: share of rows that are read, by content hash.
        max_document: bytes of the longest record (Parquet: text) that is read.
        types: (column, `text` | `number` | `bool`) for columns of `brought` and `where` in text formats, and for those
            of Parquet that hold nulls alone; without it the shard decides. `column_types` gives it once for all
            shards of a source.
    """

    format: str
    fields: tuple[tuple[str, str], ...] = ()
    brought: tuple[str, ...] = ()
    where: str | None = None
    sample: float = 1.0
    max_document: int = 64 << 20
    types: tuple[tuple[str, str], ...] = ()

    def column(self, role: str) -> str:
        """The source's column for a role; by default the role's own name."""
        return dict(self.fields).get(role, role)

    def asked(self) -> tuple[str, ...]:
        """Columns that `brought` and `where` ask for, sorted: those that have a type of their own."""
        return tuple(sorted({*self.brought, *(condition(self.where)[1] if self.where else ())}))


@dataclass
class ReadCounts:
    """What reading a shard met: records = rows + unread_where + unread_sample. Filled while `read_shard` runs."""

    records: int = 0
    rows: int = 0
    unread_where: int = 0
    unread_sample: int = 0
    blank: int = 0  # lines of white space in jsonl and lines: no records
    whole_pages: int = 0  # row groups of Parquet with very large pages that only Arrow could read, in much memory
    reasons: dict[str, int] = field(default_factory=dict)  # rows by read reason


@dataclass(frozen=True)
class Reading:
    """What the formats need to know: the reader, the asked columns' kinds, where to count, and the shard's name."""

    path: str
    reader: Reader
    kinds: Mapping[str, str]
    counts: ReadCounts

    @property
    def text(self) -> str:
        """The column that holds the text."""
        return self.reader.column("text")

    def wanted(self) -> list[tuple[str, str]]:
        """(column, kind) pairs to read beside the text, each once, sorted."""
        fields = {(self.reader.column(role), "text") for role in OPTIONAL_FIELDS}
        return sorted(fields | {(name, self.kinds[name]) for name in self.reader.asked()})


def check_columns(known: list[str], reading: Reading, where: str) -> None:
    """Refuse a shard without the columns that the recipe names, or with one of them twice.

    Optional fields under their default name may be absent.

    Raises:
        SourceError: naming the shard, the column and the nearest that is there.
    """
    reader = reading.reader
    named = {reader.column(role) for role in OPTIONAL_FIELDS if reader.column(role) != role}
    for name in [reading.text, *sorted(named), *reader.asked()]:
        if name not in known:
            raise SourceError(f"{reading.path}: no column {name!r} in its {where}{did_you_mean(name, known)}")
        if known.count(name) > 1:
            raise SourceError(
                f"{reading.path}: column {name!r} stands {known.count(name)} times in its {where}; rename one"
            )
