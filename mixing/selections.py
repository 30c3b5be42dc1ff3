"""What a domain is: documents of one source, or of one part of it, or a share of those by content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixing.document_hash import Words, chosen, id_words
from mixing.shards import ShardFiles, read_documents

# Part of documents whose signal is null.
UNKNOWN = "unknown"

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Selection:
    """Documents of a domain.

    Attributes:
        source: name of the source.
        column: the categorical signal the source is split by; None: the whole source.
        value: its value as text; `unknown` takes the rows where it is null.
        share: share of the documents, chosen by content, nested; for proxies that repeat as their target does.
    """

    source: str
    column: str | None = None
    value: str | None = None
    share: float = 1.0

    @property
    def columns(self) -> list[str]:
        """Columns of the documents that the selection reads."""
        return [] if self.column is None else [self.column]


def thin(selection: Selection, share: float) -> Selection:
    """A share of a selection's documents by content hash: every copy of a text stays or goes, and a larger share holds
    a smaller one's documents. Thinning twice multiplies.

    Raises:
        ValueError: if the share is not within (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share} of {selection.source!r}: choose one above 0 and at most 1")
    return replace(selection, share=selection.share * share)


def selected(documents: pa.RecordBatch, selection: Selection, content: Words | None = None) -> Mask:
    """Which document rows (of the selection's source) a selection takes, bool (n,)."""
    mask = np.ones(documents.num_rows, dtype=bool)
    if selection.column is not None:
        mask &= pc.equal(part_names(documents[selection.column]), selection.value).to_numpy(zero_copy_only=False)
    if selection.share < 1:
        content = id_words(documents["content_id"]) if content is None else content
        mask &= chosen(content, "thin", selection.share)
    return mask


def part_names(signal: pa.Array) -> pa.Array:
    """Part of each document by its categorical signal, as text; null is `unknown`."""
    if pa.types.is_dictionary(signal.type):
        signal = signal.dictionary_decode()
    return pc.fill_null(signal.cast(pa.string()), UNKNOWN)


def count_parts(shards: Iterable[ShardFiles], column: str) -> dict[str, int]:
    """Number of tokens of each part of a source, by the column it is split by; parts in the order of their names."""
    counts: dict[str, int] = {}
    for files in shards:
        before = 0
        for documents in read_documents(files, ["end", column]):
            ends = documents["end"].to_numpy()
            lengths = np.diff(ends, prepend=before)
            before = int(ends[-1])
            names = pc.dictionary_encode(part_names(documents[column]))
            totals = np.zeros(len(names.dictionary), np.int64)
            np.add.at(totals, names.indices.to_numpy(), lengths)
            for name, total in zip(names.dictionary.to_pylist(), totals.tolist()):
                counts[name] = counts.get(name, 0) + total
    return dict(sorted(counts.items()))


def canonical(shards: Iterable[ShardFiles], sources: Iterable[str]) -> Sequence[ShardFiles]:
    """Token shards of some sources in canonical order: by source name, then shard path."""
    wanted = set(sources)
    return sorted((f for f in shards if f.source in wanted), key=lambda files: (files.source, files.shard))
