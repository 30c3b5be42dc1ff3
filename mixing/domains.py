"""Domains as streams of tokens: an index of the documents that a selection takes, and reading what it says.

The stream is in canonical order (source name, shard path, row). Contiguous: sequence i of `context` T is positions
[i T, i T + T + 1), so every token but the first is predicted once. Packed (`mixing.packing`): sequence i is positions
[i (T + 1), (i + 1) (T + 1)), made for one context. The file is described in `mixing.domain_index`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixing.domain_index import (
    PADDING,
    DomainIndexError,
    Footer,
    IndexWriter,
    index_shards,
    map_table,
    read_footer,
    shard_of,
)
from mixing.held_out import HeldOut
from mixing.selections import Mask, Selection, canonical, selected
from mixing.shards import ShardFiles, TokenRecord, TokenShardError, read_documents, read_record


@dataclass(frozen=True)
class Slice:
    """A stretch of one document inside a sequence: tokens [start, stop) of the sequence, at `offset` of its shard."""

    source: str
    shard: str
    row: int
    start: int
    stop: int
    offset: int


@dataclass(frozen=True)
class DomainTokens:
    """An opened domain index; its tables are memory-mapped."""

    path: Path
    footer: Footer
    runs: np.ndarray[Any, np.dtype[np.int64]]
    documents: np.ndarray[Any, np.dtype[np.int64]]

    @classmethod
    def open(cls, path: str | Path) -> DomainTokens:
        """Open an index that `build_domain_index` or `pack_domain` wrote.

        Raises:
            DomainIndexError: if the file is cut or not an index.
        """
        path = Path(path)
        footer = read_footer(path)
        sizes = (3 * footer.num_runs, 2 * footer.num_pieces)
        runs = map_table(path, 0, sizes[0]).reshape(-1, 3)
        return cls(path, footer, runs, map_table(path, 8 * sizes[0], sizes[1]).reshape(-1, 2))

    @property
    def num_tokens(self) -> int:
        """Tokens of the domain, each once, padding left out."""
        return self.footer.num_tokens

    @property
    def length(self) -> int:
        """Positions of the stream, padding included."""
        if self.footer.context is None or self.footer.num_sequences is None:
            return self.footer.num_tokens
        return self.footer.num_sequences * (self.footer.context + 1)

    def num_sequences(self, context: int) -> int:
        """Sequences of `context` tokens (and the one that follows): (N - 1) // T, or those packed for this context."""
        self.stride(context)
        if self.footer.num_sequences is not None:
            return self.footer.num_sequences
        return max(0, self.footer.num_tokens - 1) // context

    def stride(self, context: int) -> int:
        """Positions between the starts of two sequences.

        Raises:
            DomainIndexError: if the index was packed for another context.
        """
        if self.footer.context is None:
            return context
        if context != self.footer.context:
            raise DomainIndexError(
                f"{self.path}: packed for context {self.footer.context}, asked for {context}; pack it again"
            )
        return context + 1

    def files(self, number: int) -> ShardFiles:
        """Files of a shard by its number in the index."""
        shard = self.footer.shards[number]
        folder = self.path.parent
        return ShardFiles(shard.source, shard.shard, folder / shard.tokens, folder / shard.documents)

    def runs_at(self, positions: np.ndarray) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The runs in which rising positions of the stream lie, int64 (n, 3); an empty document's is the one before."""
        if not len(positions):
            return np.zeros((0, 3), np.int64)
        # `bisect` reads a few places; numpy's search in the whole table would copy a column of it into memory first
        low, high = (bisect_right(self.runs[:, 0], int(positions[place])) for place in (0, -1))
        near = np.asarray(self.runs[max(low - 1, 0) : high])
        found: np.ndarray = near[np.searchsorted(near[:, 0], positions, side="right") - 1]
        return found

    def documents_in(self, sequence: int, context: int) -> list[Slice]:
        """Documents of a sequence's `context` + 1 positions, in order; padding is left out."""
        start = self._start(sequence, context)
        stop = start + context + 1
        first = bisect_right(self.documents[:, 0], start) - 1
        slices = []
        for number in range(max(first, 0), len(self.documents)):
            begin, row = self.documents[number].tolist()
            if begin >= stop:
                break
            end = int(self.documents[number + 1, 0]) if number + 1 < len(self.documents) else self.length
            if row != PADDING and end > start:
                slices.append(self._slice(row, max(begin, start), min(end, stop), start))
        return slices

    def sequences_of(self, source: str, shard: str, row: int, context: int) -> list[int]:
        """Sequences that hold tokens of a document, to predict or to predict from; none if it is not in the domain."""
        found: list[int] = []
        stride, last = self.stride(context), self.num_sequences(context)
        for begin, end in self._spans(source, shard, row):
            # a contiguous sequence also holds the first token of the next
            first = max(0, -(-(begin - context) // stride)) if stride == context else begin // stride
            found.extend(number for number in range(first, min(last, (end - 1) // stride + 1)))
        return sorted(set(found))

    def _start(self, sequence: int, context: int) -> int:
        number = self.num_sequences(context)
        if not 0 <= sequence < number:
            raise IndexError(f"{self.path}: sequence {sequence}, but it has {number} of context {context}")
        return sequence * self.stride(context)

    def _slice(self, row: int, begin: int, end: int, start: int) -> Slice:
        position, number, offset = self.runs[bisect_right(self.runs[:, 0], begin) - 1].tolist()
        shard = self.footer.shards[int(shard_of(number))]
        return Slice(shard.source, shard.shard, row, begin - start, end - start, offset + begin - position)

    def _spans(self, source: str, shard: str, row: int) -> Iterator[tuple[int, int]]:
        """Stretches of the stream that hold a document; several where packing cut it.

        A few searches where text lies end to end, in canonical order; packed, the table is read in pieces.
        """
        numbers = [n for n, known in enumerate(self.footer.shards) if (known.source, known.shard) == (source, shard)]
        if self.footer.context is None:
            yield from (span for number in numbers for span in self._found_in_order(number, row))
            return
        for piece in range(0, len(self.documents), 1 << 20):
            for number in (np.flatnonzero(self.documents[piece : piece + (1 << 20), 1] == row) + piece).tolist():
                begin = int(self.documents[number, 0])
                end = int(self.documents[number + 1, 0]) if number + 1 < len(self.documents) else self.length
                run = bisect_right(self.runs[:, 0], begin) - 1
                if end > begin and int(shard_of(self.runs[run, 1])) in numbers:
                    yield begin, end

    def _found_in_order(self, number: int, row: int) -> Iterator[tuple[int, int]]:
        """The stretch of a document of a shard, by number, where documents lie in order of shards and rows."""
        # `bisect` reads a few places; numpy's search would copy a column of the whole table into memory first.
        begins, rows, shards = self.documents[:, 0], self.documents[:, 1], self.runs[:, 1]
        low, high = bisect_left(shards, number), bisect_right(shards, number)
        if low == high:
            return
        # the last document that begins there: those before it at the same place have no tokens
        first = bisect_right(begins, int(self.runs[low, 0])) - 1
        stop = bisect_left(begins, int(self.runs[high, 0])) if high < len(self.runs) else len(rows)
        place = bisect_left(rows, row, first, stop)
        if place < stop and int(rows[place]) == row:
            end = int(begins[place + 1]) if place + 1 < len(begins) else self.length
            if end > int(begins[place]):
                yield int(begins[place]), end


def build_domain_index(
    shards: Iterable[ShardFiles],
    selection: Selection,
    path: str | Path,
    *,
    held_out: HeldOut | None = None,
    domain: str | None = None,
    part: str = "training",
) -> dict[str, int]:
    """Write the index of a domain, or of its held-out text.

    Memory grows with a row batch of documents; 40 bytes a document go to disk.

    Args:
        shards: token shards; those of other sources are left out. Their order does not matter.
        selection: the domain's documents.
        path: written.
        held_out: what nothing may train on; None: nothing is held out.
        domain: the domain's name in `held_out`, needed for part held_out.
        part: training (nothing that any domain holds out), held_out (the domain's own choice), or all.

    Returns:
        num_documents, num_tokens, num_characters, size_bytes, num_runs.

    Raises:
        DomainIndexError: if shards disagree about the tokenizer or a column is missing.
        TokenShardError: if a shard is cut or missing.
    """
    chosen_part = _part(held_out, domain, part)
    shards = canonical(shards, [selection.source])
    records = [read_record(files) for files in shards]
    _check_same_tokenizer(shards, records)
    counts = {"num_documents": 0, "num_tokens": 0, "num_characters": 0, "size_bytes": 0}
    with IndexWriter(Path(path)) as index:
        for number, (files, record) in enumerate(zip(shards, records)):
            _add_shard(index, number, _documents(files, record, selection), selection, chosen_part, counts)
        index.close(
            Footer(
                shards=index_shards(shards, records, Path(path).parent),
                num_runs=index.num_runs,
                num_pieces=index.num_pieces,
                vocabulary=max((record.vocabulary for record in records), default=0),
                tokenizer=records[0].tokenizer if records else "",
                eos=_common_eos(records),
                part=part,
                selection=asdict(selection),
                **counts,
            )
        )
    return counts | {"num_runs": index.num_runs}


def _part(held_out: HeldOut | None, domain: str | None, part: str) -> Callable[[pa.RecordBatch], Mask]:
    """Which documents of a row batch the part takes, as a function."""
    if part == "all" or (part == "training" and held_out is None):
        return lambda documents: np.ones(documents.num_rows, dtype=bool)
    if part == "training" and held_out is not None:
        return lambda documents: ~held_out.untrained(documents)
    if part == "held_out" and held_out is not None and domain is not None and domain in held_out.limits:
        return lambda documents: held_out.own(documents, domain)
    raise DomainIndexError(
        f"part {part!r} of domain {domain!r}: choose training, held_out (of a domain it names) or all"
    )


def _documents(files: ShardFiles, record: TokenRecord, selection: Selection) -> Iterator[pa.RecordBatch]:
    wanted = ["row", "end", "num_characters", "size_bytes", "content_id", "cluster", *selection.columns]
    seen = 0
    try:
        for documents in read_documents(files, wanted):
            seen += documents.num_rows
            yield documents
    except (KeyError, pa.ArrowInvalid) as error:
        error.add_note(f"{files.documents_path}: reading {', '.join(wanted)}")
        raise
    if seen != record.num_documents:
        raise TokenShardError(f"{files.documents_path}: {seen} documents, recorded {record.num_documents}")


def _add_shard(
    index: IndexWriter,
    number: int,
    batches: Iterable[pa.RecordBatch],
    selection: Selection,
    chosen_part: Callable[[pa.RecordBatch], Mask],
    counts: dict[str, int],
) -> None:
    """Append the chosen documents of one shard, and count them."""
    before = 0
    for documents in batches:
        ends = documents["end"].to_numpy()
        lengths = np.diff(ends, prepend=before)
        before = int(ends[-1])
        mask = selected(documents, selection) & chosen_part(documents)
        taken = lengths[mask]
        index.add(np.full(len(taken), number), (ends - lengths)[mask], taken, documents["row"].to_numpy()[mask])
        counts["num_documents"] += len(taken)
        counts["num_tokens"] += int(taken.sum())
        for column in ("num_characters", "size_bytes"):
            counts[column] += int(documents[column].to_numpy()[mask].sum())


def _common_eos(records: Sequence[TokenRecord]) -> int | None:
    """The end token of every shard that has tokens; None where they end differently, as shards of other tools may."""
    ends = {record.eos for record in [record for record in records if record.num_tokens] or records}
    return ends.pop() if len(ends) == 1 else None


def _check_same_tokenizer(shards: Sequence[ShardFiles], records: Sequence[TokenRecord]) -> None:
    for files, record in zip(shards, records):
        if record.tokenizer != records[0].tokenizer:
            raise DomainIndexError(
                f"{files.tokens_path}: made by tokenizer {record.tokenizer}, but "
                f"{shards[0].tokens_path} by {records[0].tokenizer}"
            )
