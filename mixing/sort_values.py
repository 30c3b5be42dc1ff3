"""What a phase ordered by a signal sorts by: a value for each sequence of each domain.

A sequence's value is the mean of its documents' values, weighted by their tokens in it; documents without a value are
left out, and a sequence of such documents alone has none (NaN) and comes last. The documents' values stand in the row
layers of curation, row for row; files made here are flat float64, sequence for sequence, to be memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.kernels import kernel
from curation.layers import read_layers
from curation.passes import ShardInputs
from curation.stage import Counts, Output
from mixing.domain_index import PADDING, shard_of
from mixing.domain_stage import file_word, read_domains
from mixing.domains import DomainTokens
from mixing.shards import ShardFiles, read_documents

Float64s = npt.NDArray[np.float64]
ValuesOf = Callable[[str, str], Float64s | None]
Rows = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]  # columns -> row batches
_PIECES = 1 << 18


class SortValueError(ValueError):
    """A signal by which nothing can be sorted."""


@dataclass(frozen=True)
class SortInputs:
    """Layers of the shards that domains are made of, `domains.json`, and token shards that came ready."""

    shards: tuple[ShardInputs, ...]
    domains: str
    ready: tuple[ShardFiles, ...] = ()


@dataclass(frozen=True)
class SortOptions:
    """What is sorted by.

    Attributes:
        wanted: (signal, context) of each phase or run ordered by a signal.
        columns: (source, signal, column) of each source that has the signal, in its layers or beside ready tokens; the
            others have no values.
    """

    wanted: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class SortFile:
    """The values of a domain's sequences of one context, as `values.json` lists them."""

    domain: str
    signal: str
    context: int
    file: str
    num_sequences: int
    num_without: int


def make_sort_values(inputs: SortInputs, options: SortOptions, output: Output) -> Counts:
    """Write the values of every domain's sequences for each signal and context.

    One signal's column of a shard is in memory at a time, 8 bytes for each row of the raw shard (of some hundred
    thousand documents' shards where sequences are packed), and 16 bytes for each sequence of a domain.
    """
    columns = {(source, signal): column for source, signal, column in options.columns}
    layers: dict[tuple[str, str], Rows] = {
        (shard.source, shard.shard): partial(read_layers, shard.layers) for shard in inputs.shards
    }
    layers |= {(files.source, files.shard): partial(read_documents, files) for files in inputs.ready}
    folder, listed = Path(inputs.domains).parent, []
    for domain in read_domains(inputs.domains):
        for signal, context in options.wanted if domain.training is not None else ():
            index = DomainTokens.open(folder / str(domain.index(context)))
            values = sequence_values(index, context, _reader(layers, columns, signal))
            suffix = f".{file_word(domain.name)}.{signal}.{context}"
            values.astype("<f8").tofile(output.path(suffix))
            without = int(np.isnan(values).sum())
            listed.append(SortFile(domain.name, signal, context, f"all{suffix}", len(values), without))
    output.path(".values.json").write_text(json.dumps([asdict(one) for one in listed], indent=1), encoding="utf-8")
    return {
        "sequences": sum(one.num_sequences for one in listed),
        "without_value": sum(one.num_without for one in listed),
    }


def open_sort_values(path: str | Path) -> Callable[[str, str, int], Float64s]:
    """Files of `make_sort_values` as `mixing.order.open_order` takes them: (domain, signal, context) to values."""
    path = Path(path)
    listed = [SortFile(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    files = {(one.domain, one.signal, one.context): one for one in listed}

    def values(domain: str, signal: str, context: int) -> Float64s:
        one = files[domain, signal, context]
        return np.fromfile(path.parent / one.file, "<f8", one.num_sequences)

    return values


def sequence_values(index: DomainTokens, context: int, values_of: ValuesOf) -> Float64s:
    """Return the value of each sequence of an index.

    Args:
        index: contiguous, or packed for the context.
        context: tokens a sequence predicts.
        values_of: (source, shard) to the values of its rows, NaN where there is none, float64 (rows,); None: none has.
    """
    number = index.num_sequences(context)
    sums, weights = np.zeros(number), np.zeros(number)
    for begins, lengths, values in _pieces(index, values_of):
        _add_pieces(begins, lengths, values, index.stride(context), sums, weights)
    with np.errstate(invalid="ignore"):
        means: Float64s = sums / weights
    return means


def _pieces(index: DomainTokens, values_of: ValuesOf) -> Iterator[tuple[np.ndarray, np.ndarray, Float64s]]:
    """Position, length and value of groups of an index's documents (or pieces of them); padding has no value."""
    held: dict[int, Float64s | None] = {}
    for first in range(0, len(index.documents), _PIECES):
        table = np.asarray(index.documents[first : first + _PIECES + 1])
        begins = table[:, 0] if len(table) > _PIECES else np.append(table[:, 0], index.length)
        rows, lengths = table[: len(begins) - 1, 1], np.diff(begins)
        has_text = (rows >= 0) & (lengths > 0)  # an empty document lies in no run
        shards = np.full(len(rows), PADDING)
        shards[has_text] = shard_of(index.runs_at(begins[:-1][has_text])[:, 1])
        used = np.unique(shards[has_text]).tolist()
        held = {number: values for number, values in held.items() if number in used}
        values = np.full(len(rows), np.nan)
        for number in used:
            if number not in held:
                shard = index.footer.shards[number]
                held[number] = values_of(shard.source, shard.shard)
            known = held[number]
            if known is not None:
                here = (shards == number) & has_text
                values[here] = known[rows[here]]
        yield begins[:-1], lengths, values


def _reader(rows_of: Mapping[tuple[str, str], Rows], columns: Mapping[tuple[str, str], str], signal: str) -> ValuesOf:
    """How the values of a shard's rows are read: by number of row, for a sample leaves rows out."""

    def values_of(source: str, shard: str) -> Float64s | None:
        column = columns.get((source, signal))
        if column is None:
            return None
        rows, values = [np.zeros(0, np.int64)], [np.zeros(0)]
        for batch in rows_of[source, shard](["row", column]):
            rows.append(batch.column("row").to_numpy().astype(np.int64))
            has_column = column in batch.schema.names  # one file of a source may lack it, or hold nothing in it
            values.append(
                _numbers(batch.column(column), source, signal) if has_column else np.full(batch.num_rows, np.nan)
            )
        return _by_row(np.concatenate(rows), np.concatenate(values))

    return values_of


def _by_row(rows: npt.NDArray[np.int64], values: Float64s) -> Float64s:
    """Values at the places of their rows, NaN for rows that were not read."""
    known = np.full(int(rows.max(initial=-1)) + 1, np.nan)
    known[rows] = values
    return known


def _numbers(column: pa.Array, source: str, signal: str) -> Float64s:
    """A column as float64, to the nearest where a whole number is too long for it, NaN where it is null."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise SortValueError(f"signal {signal!r} of source {source!r} is {column.type}, not a number: choose another")
    numbers: Float64s = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


@kernel
def _add_pieces(
    begins: np.ndarray, lengths: np.ndarray, values: np.ndarray, stride: int, sums: np.ndarray, weights: np.ndarray
) -> None:
    """Add each piece's value times its tokens to the sequences it lies in, in the order of the stream."""
    for piece in range(len(begins)):
        if np.isnan(values[piece]):
            continue
        at, stop = begins[piece], begins[piece] + lengths[piece]
        while at < stop:
            sequence = at // stride
            if sequence >= len(sums):
                break
            part = min(stop, (sequence + 1) * stride) - at
            sums[sequence] += values[piece] * part
            weights[sequence] += part
            at += part
