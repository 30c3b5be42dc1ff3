"""Which text a tokenizer is trained on: an amount of bytes, shared out over domains, chosen by content.

Two walks: over sizes and content ids to find how far to go in each domain (`text_limits`), then over the text
(`take_text`). A larger amount holds a smaller one's documents; there is no seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from mixing.document_hash import id_words, purpose_hash

_BINS = 1 << 16
_BIN_SHIFT = np.uint64(48)
_PURPOSE = "tokenizer text"


def text_limits(
    sizes: Mapping[str, Iterable[tuple[pa.Array, np.ndarray]]], size_bytes: int, shares: Mapping[str, float]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """How far to go in each domain, so that it gives its share of the bytes.

    Memory: half a MiB for the domain at hand. Exact to 1/65,536 of a domain, or a document.

    Args:
        sizes: for each domain, content ids (fixed_size_binary(16)) and sizes in bytes of its documents, in row batches.
        size_bytes: text in all domains together.
        shares: share of each domain; they are divided by their sum.

    Returns:
        Limit of each domain for `take_text`; and for each domain available_bytes, wanted_bytes and taken_bytes (all
        there are where a domain has less than its share; nothing takes its place).
    """
    limits, counts = {}, {}
    for domain, batches in sizes.items():
        by_hash = _by_hash(batches)
        wanted = int(size_bytes * shares.get(domain, 0.0) / sum(shares.values()))
        reached = np.concatenate(([0], np.cumsum(by_hash)))
        limit = _BINS if wanted >= reached[-1] else int(np.argmin(np.abs(reached - wanted)))
        limits[domain] = limit
        counts[domain] = {
            "available_bytes": int(reached[-1]),
            "wanted_bytes": wanted,
            "taken_bytes": int(reached[limit]),
        }
    return limits, counts


def take_text(rows: Iterable[tuple[str, pa.Array, pa.Array]], limits: Mapping[str, int]) -> Iterator[pa.Array]:
    """The chosen text of row batches of (domain, content ids, text), in their order; null text is left out."""
    for domain, ids, text in rows:
        taken = pa.array(_bins(ids) < limits.get(domain, 0))
        chosen = text.filter(taken).drop_null()
        if len(chosen):
            yield chosen


def measured_from(batches: Iterable[tuple[pa.Array, np.ndarray]], size_bytes: int, share: float) -> tuple[int, int]:
    """From which hash on a domain's text is kept aside to measure tokenizers on, at the far end from `text_limits`.

    Args:
        batches: content ids and sizes in bytes of the domain's documents.
        size_bytes: most bytes kept aside.
        share: most of the domain's bytes kept aside.

    Returns:
        The first hash of the text kept aside (at least the document that comes last), and the bytes before it.
    """
    by_hash = _by_hash(batches)
    from_end = np.cumsum(by_hash[::-1])
    wanted = min(size_bytes, int(share * int(from_end[-1])))
    last = int(np.flatnonzero(by_hash)[-1]) if by_hash.any() else 0
    first = min(_BINS - int(np.searchsorted(from_end, wanted, side="right")), last)
    return first, int(by_hash[:first].sum())


def below(batches: Iterable[tuple[pa.Array, np.ndarray]], first: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Content ids and sizes of the documents whose hash comes before `first`."""
    for ids, sizes in batches:
        taken = _bins(ids) < first
        yield ids.filter(pa.array(taken)), sizes[taken]


def kept_aside(ids: pa.Array, first: int) -> pa.Array:
    """Which documents are kept aside by `measured_from`, boolean."""
    return pa.array(_bins(ids) >= first)


def _by_hash(batches: Iterable[tuple[pa.Array, np.ndarray]]) -> np.ndarray:
    """Bytes of documents by their hash, int64 (65,536,)."""
    by_hash = np.zeros(_BINS, np.int64)
    for ids, each in batches:
        np.add.at(by_hash, _bins(ids), each)
    return by_hash


def _bins(ids: pa.Array) -> np.ndarray:
    return (purpose_hash(id_words(ids), _PURPOSE) >> _BIN_SHIFT).astype(np.int64)
