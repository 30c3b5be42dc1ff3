"""Best-fit packing: whole documents fitted into sequences, instead of a stream cut every `context` tokens.

A document longer than a sequence is cut into pieces that overlap by one token, so that each of its tokens but the first
is predicted once; no document that fits is cut. The token with which a later piece begins is read there and not
predicted, so that no model learns it as the first of a document. Pieces go longest first into the fullest sequence
that has room. The rest of a sequence is padding. Packing works on groups of documents of a fixed number, in canonical
order, so memory does not grow with the domain, and what a group leaves open is one sequence in thousands.

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
        for shards, starts, lengths, rows in _groups(domain):
            cut = lengths > context + 1
            shards, starts, lengths, rows = _pieces(shards, starts, lengths, rows, context)
            order, bins, num_bins = best_fit_bins(lengths, context + 1)
            shards, starts, lengths, rows = shards[order], starts[order], lengths[order], rows[order]
            free = (context + 1) - np.bincount(bins, lengths, num_bins).astype(np.int64)
            index.add(*_padded(shards, starts, lengths, rows, bins, free))
            totals += (num_bins, int(cut.sum()), int(free.sum()), int(lengths.sum()))
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


def _groups(domain: DomainTokens) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Shard number, offset, length and row of the documents of each group, int64 (n,); empty ones left out."""
    for first in range(0, len(domain.documents), GROUP_DOCUMENTS):
        table = np.asarray(domain.documents[first : first + GROUP_DOCUMENTS + 1])
        positions = table[:, 0] if len(table) > GROUP_DOCUMENTS else np.append(table[:, 0], domain.length)
        begin, lengths = positions[:-1], np.diff(positions)
        runs = domain.runs[np.searchsorted(domain.runs[:, 0], begin, side="right") - 1]
        filled = lengths > 0
        starts = runs[:, 2] + begin - runs[:, 0]
        yield runs[filled, 1], starts[filled], lengths[filled], table[: len(lengths), 1][filled]


def _pieces(
    shards: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray, context: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut documents longer than context + 1 into pieces that overlap by one token; later ones have shard WITHIN - s."""
    number = np.maximum(1, -(-(lengths - 1) // context))
    place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    cut = np.repeat(lengths, number) - place * context
    shards = np.repeat(shards, number)
    return (
        np.where(place > 0, WITHIN - shards, shards),
        np.repeat(starts, number) + place * context,
        np.minimum(cut, context + 1),
        np.repeat(rows, number),
    )


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
