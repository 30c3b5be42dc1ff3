"""The signature files that one matching reads: their order, their checks, and the numbering of their documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup.minhash import METADATA_KEY, Options, SignatureError, described


@dataclass(frozen=True)
class MatchInput:
    """One shard's signatures, and the row-aligned files beside them.

    Args:
        source: name of the source.
        shard: path of the shard as the ledger names it; (source, shard, row) is the canonical order.
        signatures: Parquet file of `minhash.signatures` rows (with `exact` only, where nothing else is asked for).
        columns: row-aligned Parquet files in which `keep` columns and `content_id` are looked up, first match wins.
        alive: bool by row, or a Parquet file with one bool column; rows that are false take no part. Null: all do.
        fixed: never dropped and given no layer: a version of an index.
    """

    source: str
    shard: str
    signatures: str
    columns: tuple[str, ...] = ()
    alive: np.ndarray | str | None = None
    fixed: bool = False


class Inputs:
    """Opened and checked inputs in canonical order; documents are numbered through them.

    `places[i]` is the place of the i-th input in the caller's list; input i's rows are documents
    `offsets[i]` to `offsets[i + 1] - 1`.
    """

    def __init__(self, given: Sequence[MatchInput], options: Options, exact: str) -> None:
        self.places = sorted(range(len(given)), key=lambda i: (not given[i].fixed, given[i].source, given[i].shard))
        self.inputs = [given[place] for place in self.places]
        self.exact = exact
        counts = [_checked_rows(one, options, exact) for one in self.inputs]
        self.offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        names = [(one.source, one.shard) for one in self.inputs if not one.fixed]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SignatureError(f"shard {twice[1]!r} of source {twice[0]!r} is given twice")

    @property
    def num_documents(self) -> int:
        """Rows of all inputs."""
        return int(self.offsets[-1])

    def input_of(self, documents: np.ndarray) -> np.ndarray:
        """Input of each document, int64."""
        return np.searchsorted(self.offsets, documents, side="right") - 1

    def rows(self, number: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of an input's signature columns with the first document's number."""
        document = int(self.offsets[number])
        try:
            with _open(self.inputs[number].signatures) as file:
                for batch in file.iter_batches(1 << 16, columns=list(columns)):
                    yield document, batch
                    document += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(self.inputs[number].signatures, error) from error

    def alive(self, number: int) -> np.ndarray | None:
        """Rows of an input that take part, bool; null for all."""
        one = self.inputs[number]
        if one.alive is None:
            return None
        alive = one.alive if isinstance(one.alive, np.ndarray) else _read_bools(one.alive)
        num_rows = int(self.offsets[number + 1] - self.offsets[number])
        if len(alive) != num_rows:
            raise SignatureError(
                f"{one.signatures}: {num_rows} rows, but its mask has {len(alive)}; "
                "the layers of a shard must be made from the same rows"
            )
        return alive

    def values(self, column: str, documents: np.ndarray, of_index: str | None = None) -> pa.ChunkedArray:
        """A column's values at ascending documents, from the first file of each input that has it.

        Args:
            column: its name.
            documents: their numbers, ascending.
            of_index: name of the column in inputs that are `fixed`, where it is another.

        Raises:
            SignatureError: where no file of an input has the column.
            ArrowTypeError: for types without a common one, which `common_type` tells beforehand.
        """
        bounds = np.searchsorted(documents, self.offsets)
        chunks = []
        for number, one in enumerate(self.inputs):
            rows = documents[bounds[number] : bounds[number + 1]] - self.offsets[number]
            if len(rows):
                chunks.append(_take(one, of_index if one.fixed and of_index else column, rows))
        if not chunks:
            return pa.chunked_array([], pa.null())
        kind = _common([chunk.type for chunk in chunks])
        return pa.chunked_array([chunk.cast(kind, safe=not pa.types.is_floating(kind)) for chunk in chunks], kind)

    def common_type(self, column: str) -> pa.DataType:
        """Type in which the values of a column are compared, whatever each source stores: numbers as numbers.

        Raises:
            SignatureError: for types that have no order between them, such as text beside numbers; named by source.
        """
        kind, of = pa.null(), ""
        for one in self.inputs:
            path = _file_with(one, column)
            own = pa.null() if path is None else pq.read_schema(path).field(column).type
            try:
                common = _common([kind, own])
            except (pa.ArrowTypeError, pa.ArrowInvalid):
                raise SignatureError(
                    f"{column.partition('@')[0]} is {own} in source {one.source} and {kind} in source {of}, which "
                    "cannot be compared; store it as one kind of value, or prefer by another entry in keep"
                ) from None
            of = of if pa.types.is_null(own) else one.source
            kind = common
        return kind

    def sketches(self, number: int, rows: np.ndarray) -> Iterator[tuple[slice, pa.ListArray]]:
        """Sketches of ascending rows of an index, with where each piece stands among them; none where it has none."""
        one = self.inputs[number]
        if not len(rows) or "sketch" not in pq.read_schema(one.signatures).names:
            return
        with _open(one.signatures) as file:
            first = 0
            for batch in file.iter_batches(1 << 14, columns=["sketch"]):
                low, high = np.searchsorted(rows, [first, first + batch.num_rows])
                if high > low:
                    yield slice(low, high), batch.column(0).take(pa.array(rows[low:high] - first))
                first += batch.num_rows

    def has(self, column: str) -> bool:
        """Whether every input has the column."""
        return all(_file_with(one, column) is not None for one in self.inputs)


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """The one type of several, or one that holds them all: int64 and any float are double; ArrowTypeError for none."""
    known = [kind for kind in dict.fromkeys(kinds) if not pa.types.is_null(kind)]
    if len(known) < 2:
        return known[0] if known else pa.null()
    schemas = [pa.schema([("value", kind)]) for kind in known]
    kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    return pa.float64() if pa.types.is_floating(kind) else kind


def _take(one: MatchInput, column: str, rows: np.ndarray) -> pa.Array:
    path = _file_with(one, column)
    if path is None and one.fixed:
        return pa.nulls(len(rows))  # an index keeps no signals; its documents come first in any case
    if path is None:
        raise SignatureError(
            f"column {column!r} is in none of the layers of {one.shard} (source {one.source}): "
            f"{', '.join((*one.columns, one.signatures))}; measure it before this step or name another in keep"
        )
    values = pq.read_table(path, columns=[column]).column(0)
    if len(values) <= rows[-1]:
        raise SignatureError(f"{path}: {len(values)} rows, fewer than the signatures {one.signatures} has")
    return values.take(pa.array(rows)).combine_chunks()


def _file_with(one: MatchInput, column: str) -> str | None:
    return next((path for path in (*one.columns, one.signatures) if column in pq.read_schema(path).names), None)


def _open(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True, memory_map=False)


def _unreadable(path: str, error: Exception) -> SignatureError:
    return SignatureError(f"signature file {path} is corrupt or cut off ({error}); delete it and run the step again")


def _checked_rows(one: MatchInput, options: Options, exact: str) -> int:
    """Number of rows, after a look at the file's options and columns."""
    if not Path(one.signatures).exists():
        raise SignatureError(f"signature file {one.signatures} of {one.source}/{one.shard} does not exist")
    try:
        with _open(one.signatures) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(one.signatures, error) from error
    if exact == "exact":
        check_options(one.signatures, schema, options)
    missing = [name for name in (exact, *band_names(options)) if name not in schema.names]
    if missing:
        raise SignatureError(f"{one.signatures} has no column {', '.join(missing)}; make the signatures again")
    return int(rows)


def check_options(path: str, schema: pa.Schema, options: Options) -> None:
    """Refuse signatures that were made with other options.

    Raises:
        SignatureError: with both sets of options, and which differ.
    """
    wanted = described(options)
    if not options.bands:  # exact hashes are the same for all shingles and bands of one normalisation
        wanted = {name: wanted[name] for name in ("normalize", "unit", "version", "unicode")}
    stored: dict[str, Any] = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    named = wanted.keys() | stored.keys() if options.bands else wanted.keys()
    differing = [name for name in sorted(named) if wanted.get(name) != stored.get(name)]
    if differing:
        raise SignatureError(
            f"{path} was made with other options ({', '.join(differing)} differ)\n"
            f"  it has: {json.dumps(stored, sort_keys=True)}\n"
            f"  wanted: {json.dumps(wanted, sort_keys=True)}\n"
            "make its signatures again with these options, or use the options it has"
        )


def band_names(options: Options) -> list[str]:
    """Columns of the band hashes."""
    return [f"band_{band:02d}" for band in range(options.bands)]


def _read_bools(path: str) -> np.ndarray:
    return np.asarray(pq.read_table(path).column(0).fill_null(False).to_numpy())
