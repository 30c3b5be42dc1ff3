"""Best-fit packing: whole documents fitted into sequences, instead of a stream cut every `context` tokens.

A document longer than a sequence is cut into pieces that overlap by one token, so that each of its tokens but the first
is predicted once; no document that fits is cut. The token with which a later piece begins is read there and not
predicted, so that no model learns it as the first of a document. Pieces go longest first into the fullest sequence
that has room. The rest of a sequence is padding. Packing works on groups of documents of a fixed number, in canonical
order, and what a group leaves open is one sequence in thousands. Pieces that fill a sequence come first, as they lie in
the text, and are written some at a time: memory grows neither with the domain nor with the length of its documents.

Source: best-fit packing: Ding et al. 2024, arXiv:2404.10830 (there with a segment tree; here a bit set of free room).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from curation.kernels import kernel
from mixing.domain_index import PADDING, WITHIN, DomainIndexError, IndexShard, IndexWriter
from mixing.domains import DomainTokens

GROUP_DOCUMENTS = 1 << 18
CHUNK_PIECES = 1 << 18

Pieces = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # shard number, offset, length and row, int64 (n,) each


def pack_domain(index_path: str | Path, context: int, path: str | Path) -> dict[str, int]:
    """Write the packed index of a domain.

    Args:
        index_path: contiguous index, of `build_domain_index`.
        context: tokens a sequence predicts; its sequences hold one more.
        path: written, in any folder.

    Returns:
        num_sequences, num_documents, num_tokens, padding (positions without a token), num_cut_documents (longer than a
        sequence), repeated_tokens (those where two pieces overlap). No token is lost.

    Raises:
        DomainIndexError: if the index is packed already.
    """
    domain, path = DomainTokens.open(index_path), Path(path)
    if domain.footer.context is not None:
        raise DomainIndexError(f"{index_path}: packed already; pack the contiguous index")
    totals = np.zeros(4, np.int64)
    with IndexWriter(path) as index:
        for documents in _groups(domain):
            for pieces in _full_pieces(documents, context):
                index.add(*pieces)
                totals += (len(pieces[0]), 0, 0, int(pieces[2].sum()))
            shards, starts, lengths, rows = _last_pieces(documents, context)
            order, bins, num_bins = best_fit_bins(lengths, context + 1)
            shards, starts, lengths, rows = shards[order], starts[order], lengths[order], rows[order]
            free = (context + 1) - np.bincount(bins, lengths, num_bins).astype(np.int64)
            index.add(*_padded(shards, starts, lengths, rows, bins, free))
            totals += (num_bins, int((documents[2] > context + 1).sum()), int(free.sum()), int(lengths.sum()))
        num_sequences, num_cut, padding, placed = totals.tolist()
        index.close(
            replace(
                domain.footer,
                shards=_relative(domain, path.parent),
                num_runs=index.num_runs,
                num_pieces=index.num_pieces,
                context=context,
                num_sequences=num_sequences,
                padding=padding,
            )
        )
    return {
        "num_sequences": num_sequences,
        "num_documents": domain.footer.num_documents,
        "num_tokens": domain.num_tokens,
        "padding": padding,
        "num_cut_documents": num_cut,
        "repeated_tokens": placed - domain.num_tokens,
    }


def _groups(domain: DomainTokens) -> Iterator[Pieces]:
    """The documents of each group; empty ones left out."""
    for first in range(0, len(domain.documents), GROUP_DOCUMENTS):
        table = np.asarray(domain.documents[first : first + GROUP_DOCUMENTS + 1])
        positions = table[:, 0] if len(table) > GROUP_DOCUMENTS else np.append(table[:, 0], domain.length)
        begin, lengths = positions[:-1], np.diff(positions)
        filled = lengths > 0
        runs = domain.runs_at(begin[filled])
        yield runs[:, 1], runs[:, 2] + begin[filled] - runs[:, 0], lengths[filled], table[: len(lengths), 1][filled]


def _full_pieces(documents: Pieces, context: int) -> Iterator[Pieces]:
    """Pieces of context + 1 tokens, in order, some at a time; those that begin within a document have shard WITHIN - s.

    Nothing fits beside them, so that each is a sequence of its own, and as the longest they come before the others.
    """
    shards, starts, lengths, rows = documents
    stops = np.cumsum((lengths - 1) // context)
    total = int(stops[-1]) if len(stops) else 0
    for first in range(0, total, CHUNK_PIECES):
        numbers = np.arange(first, min(first + CHUNK_PIECES, total))
        of = np.searchsorted(stops, numbers, side="right")
        place = numbers - stops[of] + (lengths[of] - 1) // context
        full = np.full(len(numbers), context + 1)
        yield _numbered(shards[of], place), starts[of] + place * context, full, rows[of]


def _last_pieces(documents: Pieces, context: int) -> Pieces:
    """What is left of each document behind its full pieces, with one token of overlap; nothing of some."""
    shards, starts, lengths, rows = documents
    place, left = np.divmod(lengths - 1, context)
    some = (left > 0) | (lengths == 1)
    shards, starts, rows, place = shards[some], starts[some], rows[some], place[some]
    return _numbered(shards, place), starts + place * context, left[some] + 1, rows


def _numbered(shards: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Shard numbers of pieces by their place in their document."""
    return np.where(place > 0, WITHIN - shards, shards)


def best_fit_bins(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Order of the pieces by sequence (inside one as in the stream), the sequence of each, and their number."""
    longest_first = np.argsort(-lengths, kind="stable")
    bins = np.empty(len(lengths), np.int64)
    num_bins = int(_best_fit(lengths, longest_first, capacity, bins))
    order = np.argsort(bins, kind="stable")
    return order, bins[order], num_bins


def _padded(
    shards: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray, bins: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put padding behind each sequence that is not full; pieces are sorted by sequence."""
    open_bins = np.flatnonzero(free)
    behind = np.searchsorted(bins, open_bins, side="right")
    return (
        np.insert(shards, behind, PADDING),
        np.insert(starts, behind, 0),
        np.insert(lengths, behind, free[open_bins]),
        np.insert(rows, behind, PADDING),
    )


def _relative(domain: DomainTokens, folder: Path) -> tuple[IndexShard, ...]:
    """The shards of an index as an index in another folder names them."""
    return tuple(shard.seen_from(domain.path.parent, folder) for shard in domain.footer.shards)


@kernel
def _best_fit(lengths: np.ndarray, order: np.ndarray, capacity: int, bins: np.ndarray) -> int:
    """Place pieces in the given order into the sequence with the least room that is enough; number of sequences.

    Sequences with equal room form a stack; a bit set tells which amounts of room exist.
    """
    words = np.zeros(capacity // 64 + 1, np.uint64)
    top = np.full(capacity + 1, -1, np.int64)
    below = np.empty(len(lengths), np.int64)
    num_bins = 0
    for place in order:
        length = lengths[place]
        room = _least_room(words, length)
        if room < 0:
            number, room = num_bins, capacity
            num_bins += 1
        else:
            number = top[room]
            top[room] = below[number]
            if top[room] < 0:
                words[room >> 6] &= ~(np.uint64(1) << np.uint64(room & 63))
        bins[place] = number
        left = room - length
        if left > 0:
            below[number] = top[left]
            top[left] = number
            words[left >> 6] |= np.uint64(1) << np.uint64(left & 63)
    return num_bins


@kernel
def _least_room(words: np.ndarray, length: int) -> int:
    """Smallest set bit at or above `length`, or -1."""
    at = length >> 6
    word = words[at] & (~np.uint64(0) << np.uint64(length & 63))
    while word == 0:
        at += 1
        if at == len(words):
            return -1
        word = words[at]
    room = at << 6
    while word & np.uint64(1) == 0:
        word >>= np.uint64(1)
        room += 1
    return room
