"""Truth values of rules as bits of one number a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from curation.kernels import kernel


def add_bits(truth: pl.Series, bit: int, drop: np.ndarray, undecided: np.ndarray) -> None:
    """Set a bit of `drop` where a Boolean column is true, and of `undecided` where it is null; uint64 (rows,)."""
    found = truth.rechunk().to_arrow()
    valid, values = found.buffers()
    if len(found) and values is not None:
        _set_bits(_bytes(values), found.offset, np.uint64(bit), drop)
    if valid is not None and found.null_count:
        _clear_unknown(_bytes(valid), found.offset, np.uint64(bit), drop, undecided)


def _bytes(buffer: Any) -> np.ndarray:
    return np.frombuffer(buffer, np.uint8)


@kernel
def _set_bits(bitmap: np.ndarray, offset: int, bit: np.uint64, into: np.ndarray) -> None:
    """Set a bit of each row whose bit of a bitmap, from `offset` on, is set."""
    for row in range(into.shape[0]):
        place = row + offset
        into[row] |= np.uint64((bitmap[place >> 3] >> (place & 7)) & 1) << bit


@kernel
def _clear_unknown(valid: np.ndarray, offset: int, bit: np.uint64, drop: np.ndarray, undecided: np.ndarray) -> None:
    """Move rows without a value from dropped (whatever stands there) to undecided."""
    for row in range(drop.shape[0]):
        place = row + offset
        unknown = np.uint64(1 - ((valid[place >> 3] >> (place & 7)) & 1)) << bit
        drop[row] &= ~unknown
        undecided[row] |= unknown
