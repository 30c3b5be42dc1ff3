r"""Hashes of RedPajama-V2's raw words: runs of `\w`, and runs of other characters that are no white space.

Letters of unspaced scripts are words of their own, as in all our signals of raw words.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.signals.normalised import WordHashes
from curation.text.properties import ALNUM, CHARACTER, SPACE, WORD_CLASS, property_table
from curation.text.segment import HASH_BASE, Array, decode, utf8_buffers


@kernel
def _hash_rows(buf: Array, offsets: Array, present: Array, table: Array, hashes: Array, bounds: Array) -> None:
    total = 0
    for row in range(present.shape[0]):
        i, end, kind = offsets[row], offsets[row + 1] if present[row] else offsets[row], 0
        while i < end:
            code_point, after = decode(buf, i)
            bits = table[np.uint64(code_point)]
            single = bits & ALNUM != 0 and bits & WORD_CLASS == CHARACTER
            here = 1 if bits & ALNUM != 0 else (0 if bits & SPACE != 0 else 2)
            if here and (here != kind or single):
                hashes[total] = np.uint64(0)
                total += 1
            kind = 3 if single else here  # a single letter closes before whatever follows
            if here:
                for k in range(i, after):
                    hashes[total - 1] = hashes[total - 1] * np.uint64(HASH_BASE) + np.uint64(buf[k]) + np.uint64(1)
            i = after
        bounds[row + 1] = total


def raw_words(text: pa.Array) -> WordHashes:
    """Raw words of row-aligned texts; a null has none. Memory: 8 bytes for each byte of the texts."""
    content, offsets = utf8_buffers(text)
    present = ~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
    hashes, bounds = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint64), np.zeros(len(text) + 1, np.int64)
    _hash_rows(content, offsets, present, property_table(), hashes, bounds)
    return WordHashes(hashes[: bounds[-1]], bounds)
