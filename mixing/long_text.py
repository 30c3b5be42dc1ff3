"""Encode a long document in pieces, to the same tokens as at once.

The library keeps some 400 bytes a token while it encodes: a document of 64 MiB would take gigabytes. So pieces overlap
by some context on both sides, and are cut where the encodings with and without the rest agree on the tokens around.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

_TRIES = 32


@dataclass(frozen=True)
class Cut:
    """How long documents are cut, in characters: pieces, their overlap on each side, and how far cuts must agree."""

    piece: int = 1 << 18
    context: int = 1024
    agreed: int = 128


def encode_long(encoder: tokenizers.Tokenizer, document: str, cut: Cut | None = None) -> np.ndarray[Any, Any]:
    """Token ids of a document, uint32 (n,); memory grows with a piece (some 400 bytes a token) and with the ids.

    Where no place to cut is found (text without any boundary between tokens), the rest is encoded at once.
    """
    return np.concatenate([np.zeros(0, np.uint32), *_pieces(encoder, document, cut or Cut())])


def _pieces(encoder: tokenizers.Tokenizer, document: str, cut: Cut) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    while True:
        begin = max(0, start - cut.context)
        stop = start + cut.piece
        ids, places = _encoded(encoder, document, begin, stop + cut.context)
        kept = places >= start if begin else np.ones(len(ids), dtype=bool)
        if stop + cut.context >= len(document):
            yield ids[kept]
            return
        end = _agreed_cut(encoder, document, ids, places, (start, stop), cut)
        if end is None:
            ids, places = _encoded(encoder, document, begin, len(document))
            yield ids[places >= start] if begin else ids
            return
        yield ids[kept & (places < end)]
        start = end


def _agreed_cut(
    encoder: tokenizers.Tokenizer,
    document: str,
    ids: np.ndarray,
    places: np.ndarray,
    span: tuple[int, int],
    cut: Cut,
) -> int | None:
    """Last place in a span at which a token starts and around which the tokens do not depend on what lies further to
    the left: the next piece will find the same tokens there.
    """
    candidates = np.unique(places[(places > span[0] + cut.context) & (places <= span[1])])[::-1][:_TRIES]
    for place in candidates.tolist():
        near_ids, near_places = _encoded(encoder, document, place - cut.context, place + cut.context)
        here, near = (abs(each - place) <= cut.agreed for each in (places, near_places))
        if np.array_equal(ids[here], near_ids[near]) and np.array_equal(places[here], near_places[near]):
            return int(place)
    return None


def _encoded(encoder: tokenizers.Tokenizer, document: str, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a stretch of a document, uint32, and the character at which each token starts, int64."""
    encoding = encoder.encode(document[begin:end], add_special_tokens=False)
    places = np.array([start for start, _ in encoding.offsets], np.int64) + begin
    return np.array(encoding.ids, np.uint32), places
