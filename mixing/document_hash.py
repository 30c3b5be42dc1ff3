"""Choosing documents by what they are: hashes of content ids, one independent stream for each purpose.

A share of documents chosen by hash needs no seed, is the same whatever the order of work, and is nested: a larger share
holds every document of a smaller one. Purposes are independent, so held-out text is not the text that thinning keeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

Words = np.ndarray[Any, np.dtype[np.uint64]]

_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)


def id_words(ids: pa.Array) -> Words:
    """Content ids (fixed_size_binary(16), nulls as zeros) as two big-endian words each, uint64 (n, 2)."""
    ids = ids.cast(pa.binary(16)) if ids.type != pa.binary(16) else ids
    stored = ids.buffers()[1]
    if stored is None or not len(ids):
        return np.zeros((len(ids), 2), np.uint64)
    words = np.frombuffer(stored, ">u8", 2 * len(ids), 16 * ids.offset).astype(np.uint64).reshape(-1, 2)
    if ids.null_count:
        words[ids.is_null().to_numpy(zero_copy_only=False)] = 0
    return words


def words_ids(words: Words) -> pa.Array:
    """Inverse of `id_words`: fixed_size_binary(16)."""
    stored = pa.py_buffer(np.ascontiguousarray(words).astype(">u8").tobytes())
    return pa.Array.from_buffers(pa.binary(16), len(words), [None, stored])


def purpose_hash(words: Words, purpose: str) -> Words:
    """Hash of each id for one purpose, uniform over uint64 (n,).

    Source: the finaliser of splitmix64 (Steele, Lea and Flood 2014), applied to each word in turn.
    """
    salt = np.uint64(xxhash.xxh3_64_intdigest(purpose))
    return _mixed(_mixed(words[:, 0] ^ salt) + words[:, 1])


def share_limit(share: float) -> int:
    """Smallest hash that is not chosen, as a Python int (1 << 64 chooses all)."""
    return round(share * (1 << 53)) << 11


def chosen(words: Words, purpose: str, share: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents a share of them holds, bool (n,); nested in the share."""
    limit = share_limit(share)
    if limit >= 1 << 64:
        return np.ones(len(words), dtype=bool)
    return purpose_hash(words, purpose) < np.uint64(limit)


def _mixed(values: Words) -> Words:
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLY_1
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLY_2
    return values ^ (values >> np.uint64(31))
