"""Documents that another tool tokenised become a token shard: checked, decoded once, sampled, and written.

Each document is decoded for its size and content id, so a text is recognised as the one that other sources hold if the
tokenizer loses nothing. A begin or end token counts as the tokenizer's own where every document but empty ones has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation.source.where import sampled
from mixing.selections import part_names
from mixing.shards import OWN_COLUMNS, TokenRecord, TokenShardError, check_ids, describe_tokens
from mixing.stages import PART
from mixing.tokenizer import Tokenizer, decode

_ROWS = 4096
_TOKENS = 1 << 24
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


@dataclass(frozen=True)
class ForeignTokens:
    """Tokens another tool wrote: the flat array, and the offset after each document, int64."""

    tokens: np.ndarray[Any, Any]
    ends: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ForeignDocuments:
    """Some documents another tool wrote.

    Attributes:
        tokens: their ids one after the other, any type of whole numbers (n,).
        ends: offset after each, int64 (d,).
        columns: what stands beside the tokens, by name, (d,) each.
    """

    tokens: np.ndarray[Any, Any]
    ends: np.ndarray[Any, np.dtype[np.int64]]
    columns: Mapping[str, pa.Array] = field(default_factory=dict)


def documents_in(foreign: ForeignTokens) -> Iterator[ForeignDocuments]:
    """A flat array in groups of documents: 16 million tokens at most, or one longer document."""
    first, number = 0, len(foreign.ends)
    while first < number:
        start = int(foreign.ends[first - 1]) if first else 0
        fit = int(np.searchsorted(foreign.ends, start + _TOKENS, side="right"))
        last = min(max(fit, first + 1), first + _ROWS, number)
        ends = np.asarray(foreign.ends[first:last])
        yield ForeignDocuments(np.asarray(foreign.tokens[start : int(ends[-1])]), ends - start)
        first = last


def import_documents(
    groups: Iterable[ForeignDocuments],
    tokenizer: Tokenizer,
    tokens_path: str | Path,
    documents_path: str | Path,
    *,
    licence: str | None = None,
    split: str | None = None,
    sample: float = 1.0,
) -> dict[str, int]:
    """Write foreign documents as a token shard; row n is the n-th document. Memory grows with a group.

    Columns of numbers are kept beside the tokens, to sort by; the column that the source is split by becomes `part`.

    Args:
        groups: the documents, in order.
        tokenizer: that wrote them.
        tokens_path: written; flat tokens.
        documents_path: written; Parquet.
        licence: of documents that bring none in a column `licence`.
        split: column that the source is split by.
        sample: share of the documents to take, by content; a smaller one is part of a larger one.

    Returns:
        As `mixing.shards.write_token_shard`.

    Raises:
        TokenShardError: if a token id is not in the vocabulary.
    """
    described = (_described(group, first, tokenizer, licence, split) for first, group in _numbered(groups))
    return write_described(described, tokenizer, tokens_path, documents_path, sample=sample)


def write_described(
    groups: Iterable[tuple[np.ndarray, pa.RecordBatch]],
    tokenizer: Tokenizer,
    tokens_path: str | Path,
    documents_path: str | Path,
    *,
    sample: float = 1.0,
) -> dict[str, int]:
    """Write tokens with the rows of their documents, whose `end` counts from the group's first token."""
    counts = {"num_documents": 0, "num_tokens": 0, "num_characters": 0, "size_bytes": 0}
    checksum, edges = xxhash.xxh3_128(), _Edges(tokenizer)
    writer: pq.ParquetWriter | None = None
    with Path(tokens_path).open("wb") as tokens:
        for whole, described in groups:
            ids, documents = _sample(whole, described, sample)
            writer = writer or pq.ParquetWriter(documents_path, documents.schema, store_schema=False)
            stored = ids.astype(tokenizer.dtype).tobytes()
            tokens.write(stored)
            checksum.update(stored)
            ends = documents["end"].to_numpy()
            edges.see(ids, ends)
            place = documents.schema.get_field_index("end")
            writer.write_batch(documents.set_column(place, "end", pa.array(ends + counts["num_tokens"], pa.int64())))
            counts["num_documents"] += len(ends)
            counts["num_tokens"] += len(ids)
            for column in ("num_characters", "size_bytes"):
                counts[column] += pc.sum(documents[column]).as_py() or 0
    writer = writer or pq.ParquetWriter(documents_path, _SCHEMA, store_schema=False)
    record = TokenRecord(
        tokenizer.dtype.str,
        counts["num_tokens"],
        counts["num_documents"],
        tokenizer.vocabulary,
        tokenizer.identity,
        tokenizer.bos if edges.all_begin else None,
        tokenizer.eos if edges.all_end else None,
        checksum.hexdigest(),
    )
    writer.add_key_value_metadata(describe_tokens(record))
    writer.close()
    return counts


class _Edges:
    """Whether every document seen so far begins with the begin token, and ends with the end token.

    An empty document has no edges and says nothing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._bos, self._eos = tokenizer.bos, tokenizer.eos
        self._seen = self._begin = self._end = 0

    def see(self, ids: np.ndarray, ends: np.ndarray) -> None:
        """Look at the edges of some documents."""
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        full = starts < ends
        self._seen += int(full.sum())
        self._begin += int((ids[starts[full]] == (-1 if self._bos is None else self._bos)).sum())
        self._end += int((ids[ends[full] - 1] == (-1 if self._eos is None else self._eos)).sum())

    @property
    def all_begin(self) -> bool:
        """There are documents with tokens, and all have a begin token."""
        return 0 < self._seen == self._begin

    @property
    def all_end(self) -> bool:
        """There are documents with tokens, and all have an end token."""
        return 0 < self._seen == self._end


def _sample(ids: np.ndarray, documents: pa.RecordBatch, share: float) -> tuple[np.ndarray, pa.RecordBatch]:
    """The documents of a group that a sample holds, and their tokens."""
    if share >= 1 or not documents.num_rows:
        return ids, documents
    taken = sampled(b"".join(documents["content_id"].to_pylist()), share)
    lengths = np.diff(documents["end"].to_numpy(), prepend=0)
    documents = documents.filter(pa.array(taken))
    place = documents.schema.get_field_index("end")
    ends = pa.array(np.cumsum(lengths[taken]), pa.int64())
    return ids[np.repeat(taken, lengths)], documents.set_column(place, "end", ends)


_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("end", pa.int64()),
        ("num_characters", pa.int64()),
        ("size_bytes", pa.int64()),
        ("content_id", pa.binary(16)),
        ("cluster", pa.binary(16)),
        ("licence", pa.string()),
    ]
)


def _numbered(groups: Iterable[ForeignDocuments]) -> Iterator[tuple[int, ForeignDocuments]]:
    """Each group with the number of its first document."""
    first = 0
    for group in groups:
        yield first, group
        first += len(group.ends)


def _described(
    group: ForeignDocuments, first: int, tokenizer: Tokenizer, licence: str | None, split: str | None
) -> tuple[np.ndarray, pa.RecordBatch]:
    """Tokens of a group, which are in the vocabulary, and the rows of its documents."""
    ids, ends, number = group.tokens, group.ends, len(group.ends)
    check_ids(ids, tokenizer.vocabulary, f"documents {first} to {first + number - 1}")
    starts = np.concatenate(([0], ends[:-1])) if number else ends
    texts = [decode(tokenizer, ids[a:b]) for a, b in zip(starts.tolist(), ends.tolist())]
    encoded = [text.encode() for text in texts]
    licences = group.columns.get("licence")
    own = [
        pa.array(np.arange(first, first + number), pa.int64()),
        pa.array(ends, pa.int64()),
        pa.array([len(text) for text in texts], pa.int64()),
        pa.array([len(text) for text in encoded], pa.int64()),
        pa.array([xxhash.xxh3_128_digest(text) for text in encoded], pa.binary(16)),
        pa.nulls(number, pa.binary(16)),
        pa.array([licence] * number, pa.string())
        if licences is None
        else pc.fill_null(licences.cast(pa.string()), pa.scalar(licence, pa.string())),
    ]
    columns = dict(zip(_SCHEMA.names, own, strict=True))
    return ids, pa.record_batch(columns | beside(group.columns, split))


def beside(columns: Mapping[str, pa.Array], split: str | None) -> dict[str, pa.Array]:
    """What a token shard keeps of the columns beside the tokens: numbers, and the part by the column it is split by."""
    numbers = {
        name: column
        for name, column in sorted(columns.items())
        if name not in (*OWN_COLUMNS, PART) and any(is_kind(column.type) for is_kind in _NUMBERS)
    }
    if split is None:
        return numbers
    if split not in columns:
        raise TokenShardError(f"no column {split!r} to split by; there are {', '.join(sorted(columns)) or 'none'}")
    return {**numbers, PART: part_names(columns[split])}
