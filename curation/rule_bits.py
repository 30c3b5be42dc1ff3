"""Truth values of rules as bits of one number a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from curation.kernels import kernel

# Of the transposition of 8 x 8 bits in a uint64: which bits change places, and how far (Warren, Hacker's Delight, 7-3).
_SWAPS = ((0x00AA00AA00AA00AA, 7), (0x0000CCCC0000CCCC, 14), (0x00000000F0F0F0F0, 28))


def decision_bits(truths: Sequence[pl.Series], bits: Sequence[int], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Gather Boolean columns into numbers, uint64 (rows,) each.

    Args:
        truths: at most 64 Boolean columns.
        bits: the bit of each column, every number below their count once.
        num_rows: rows of each column.

    Returns:
        drop, undecided: the bit is set in `drop` where the column is true, in `undecided` where it is null.
    """
    values = np.zeros((len(truths), (num_rows + 7) // 8), np.uint8)
    unknown = np.zeros_like(values)
    for truth, bit in zip(truths, bits, strict=True):
        found = truth.rechunk().to_arrow()
        valid, present = found.buffers()
        if num_rows and present is not None:
            values[bit] = _bitmap(present, found.offset, num_rows)
        if valid is not None and found.null_count:
            unknown[bit] = ~_bitmap(valid, found.offset, num_rows)
    drop, undecided = np.zeros(num_rows, np.uint64), np.zeros(num_rows, np.uint64)
    _transpose(values & ~unknown, drop)
    if unknown.any():
        _transpose(unknown, undecided)
    return drop, undecided


def _bitmap(buffer: Any, offset: int, num_rows: int) -> np.ndarray:
    """Arrow's bits of `num_rows` rows from `offset` on, as bytes that begin with the first of them."""
    raw = np.frombuffer(buffer, np.uint8)[offset // 8 : (offset + num_rows + 7) // 8]
    if offset % 8 == 0:
        return raw
    return np.packbits(np.unpackbits(raw, bitorder="little")[offset % 8 :][:num_rows], bitorder="little")


@kernel
def _transpose(bitmaps: np.ndarray, into: np.ndarray) -> None:
    """Write bit `row` of each bitmap, uint8 (bitmaps, bytes), to the bit of `into[row]` that is its number."""
    for first in range(0, bitmaps.shape[0], 8):
        for byte in range(bitmaps.shape[1]):
            word = np.uint64(0)
            for k in range(min(8, bitmaps.shape[0] - first)):
                word |= np.uint64(bitmaps[first + k, byte]) << np.uint64(8 * k)
            if word == np.uint64(0):
                continue
            for mask, shift in _SWAPS:
                swapped = (word ^ (word >> np.uint64(shift))) & np.uint64(mask)
                word ^= swapped ^ (swapped << np.uint64(shift))
            for k in range(min(8, into.shape[0] - 8 * byte)):
                into[8 * byte + k] |= ((word >> np.uint64(8 * k)) & np.uint64(255)) << np.uint64(first)
