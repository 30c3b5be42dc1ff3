"""Exact document dedup: equal raw text, or equal normalised text.

Both match with `match.match` and options without bands. Raw text is compared by the rows layer's `content_id`, so it
needs no signatures of its own: give the rows file as `signatures` and `exact_column="content_id"`. Normalised text is
compared by the `exact` column that `hashes` makes (the same as in MinHash signatures).
"""

from __future__ import annotations

import pyarrow as pa

from curation.dedup.match import MatchOptions
from curation.dedup.minhash import Options, signatures


def options(normalize: str | None) -> Options:
    """Signature options without bands; null (raw text) reads no normalisation."""
    return Options(shingle=1, bands=0, rows=1, normalize=normalize or "raw")


def hashes(text: pa.Array, normalize: str) -> pa.RecordBatch:
    """Exact hashes of normalised texts, row-aligned: `exact` (16 bytes), `num_shingles` (words), null without text."""
    return signatures(text, options(normalize))


def match_options(
    normalize: str | None, *, max_cluster: int | None = None, max_lost: float | None = None, suffix: str = ""
) -> MatchOptions:
    """Options of `match.match` for exact dedup; normalize null compares raw text by `content_id`."""
    return MatchOptions(
        options(normalize),
        max_cluster=max_cluster,
        max_lost=max_lost,
        exact_column="exact" if normalize else "content_id",
        suffix=suffix,
    )
