"""A Bloom filter whose answers depend on its keys and their order alone: sized by their number, one writer."""

from __future__ import annotations

import math

import numpy as np

from curation.dedup.shingle import mix
from curation.kernels import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)


def bits_and_probes(num_keys: int, false_positives: float) -> tuple[int, int]:
    """Bits (a multiple of 64, at least 64) and probes of a filter that holds `num_keys` keys at a false-positive rate.

    Source: Bloom 1970: n ln(1/p) / ln(2)^2 bits and log2(1/p) probes; 28.8 bits and 20 probes for one in a million.
    """
    bits = math.ceil(max(num_keys, 1) * math.log(1 / false_positives) / math.log(2) ** 2)
    return -(-max(bits, 64) // 64) * 64, max(1, round(math.log2(1 / false_positives)))


@kernel
def seen_before(keys: np.ndarray, field: np.ndarray, probes: int, out: np.ndarray) -> None:
    """Mark each key that was (or seems to have been) there before it, and add it.

    Args:
        keys: uint64 (n,), in order.
        field: the filter's bits, uint64 (bits / 64,), zero at the start.
        probes: bits looked at for a key.
        out: bool (n,), set to whether all of a key's bits were set.
    """
    bits = np.uint64(field.shape[0] * 64)
    for index in range(keys.shape[0]):
        place, step = mix(keys[index]), mix(keys[index] ^ _STEP) | np.uint64(1)
        found = True
        for _ in range(probes):
            # the upper 32 bits times the size: a place below `bits`, for filters under 2^32 bits
            bit = ((place >> np.uint64(32)) * bits) >> np.uint64(32)
            mask = np.uint64(1) << (bit & np.uint64(63))
            word = field[np.int64(bit >> np.uint64(6))]
            if (word & mask) == 0:
                found = False
                field[np.int64(bit >> np.uint64(6))] = word | mask
            place += step
        out[index] = found
