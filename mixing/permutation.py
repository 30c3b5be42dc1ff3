"""Keyed permutations of 0..n-1 as pure functions: a Feistel network on a square, with cycle walking.

The square's side is ceil(sqrt(n)). A number below `side * side` is a pair of digits (left, right) to the base
`side`; a round replaces it by (right, left + F(right) mod side), which is undone without inverting F. Numbers that land
at n or above walk on until they are below n. The square is at most 2 sqrt(n) + 1 larger than n, so the walk is short: a
network on whole bits walks up to four times on average. A round hashes with two multiplications; keys are
derived with SplitMix64's finalizer.

Six rounds pass the tests of `tests/mixing/test_permutation.py`; on squares narrower than 32 the distance of neighbours
was uneven after six (p = 0.001 in 400,000 trials), so they get ten. Up to 64 things no number of rounds helps, as a
Feistel network on an odd square only makes even permutations: they are permuted by swap-or-not.

Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains" (generalized Feistel, cycle walking); Hoang,
Morris and Rogaway 2012, arXiv:1208.1176 (swap-or-not); Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators" (the finalizer).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from curation.kernels import inline_kernel, kernel

ROUNDS = 6
ROUNDS_NARROW = 10
NARROW_SIDE = 32
SMALL_SIZE = 64
SMALL_ROUNDS = 48
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32, _S63 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32), np.uint64(63)


Word = Any
"""A 64-bit integer inside kernels; numpy's and Python's stubs disagree on what arithmetic on them returns."""


def name_key(seed: int, *words: str) -> int:
    """Return the 64-bit key of words (a use, a domain's name) under a seed; list positions never enter it."""
    text = "\0".join((str(seed), *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@inline_kernel
def _mix(value: Word) -> Word:
    """Scramble 64 bits (SplitMix64's finalizer)."""
    value = (value ^ (value >> _S30)) * _FIRST
    value = (value ^ (value >> _S27)) * _SECOND
    return value ^ (value >> _S31)


@kernel
def derive_key(key: Word, number: Word) -> Word:
    """Return the uint64 key of the `number`-th child of a uint64 key: an epoch of a domain, a window of a span."""
    return _mix(_mix(np.uint64(key) + _GOLDEN) ^ (np.uint64(number) * _GOLDEN + _SECOND))


@inline_kernel
def _side(size: Word) -> Word:
    """Return ceil(sqrt(size)), exact for sizes below 2**62."""
    side = np.int64(math.sqrt(size))
    while side * side < size:
        side += 1
    while (side - 1) * (side - 1) >= size:
        side -= 1
    return side


@inline_kernel
def _round(digit: Word, round_key: Word, side: Word) -> Word:
    """Hash a digit to 0..side-1: two multiplications, of which the product with `side` keeps the high bits."""
    value = (digit ^ round_key) * _FIRST
    value = (value ^ (value >> _S32)) * _SECOND
    return ((value >> _S32) * side) >> _S32


@inline_kernel
def _swap_or_not(value: Word, size: Word, key: Word, first: Word, step: Word) -> Word:
    """Permute few things: in each round a keyed bit for each pair (x, K - x) tells whether the two change places."""
    for number in range(SMALL_ROUNDS):
        round_key = derive_key(key, first + step * number)
        partner = np.int64(((round_key >> _S32) * np.uint64(size)) >> _S32) - value
        if partner < 0:
            partner += size
        if _mix(np.uint64(max(value, partner)) ^ round_key) >> _S63:
            value = partner
    return value


@kernel
def permute(index: Word, size: Word, key: Word) -> Word:
    """Return where the permutation of 0..size-1 under a uint64 key sends `index` (0 <= index < size < 2**62)."""
    if size <= SMALL_SIZE:
        return _swap_or_not(np.int64(index), size, np.uint64(key), 0, 1)
    side = np.uint64(_side(size))
    rounds = ROUNDS if side >= NARROW_SIDE else ROUNDS_NARROW
    value = np.uint64(index)
    while True:
        left = value // side
        right = value - left * side
        round_key = np.uint64(key)
        for _ in range(rounds):
            # unsigned, so that a sum below `side` minus `side` wraps to a huge number: reduction without a branch
            sum_of_both = left + _round(right, round_key, side)
            left = right
            right = min(sum_of_both, sum_of_both - side)
            round_key += _GOLDEN
        value = left * side + right
        if value < np.uint64(size):
            return np.int64(value)


@kernel
def unpermute(value: Word, size: Word, key: Word) -> Word:
    """Return the index that `permute` sends to `value`: the inverse permutation under the same key."""
    if size <= SMALL_SIZE:
        return _swap_or_not(np.int64(value), size, np.uint64(key), SMALL_ROUNDS - 1, -1)
    side = np.uint64(_side(size))
    rounds = ROUNDS if side >= NARROW_SIDE else ROUNDS_NARROW
    index = np.uint64(value)
    while True:
        left = index // side
        right = index - left * side
        round_key = np.uint64(key) + np.uint64(rounds - 1) * _GOLDEN
        for _ in range(rounds):
            difference = right - _round(left, round_key, side)
            right = left
            left = min(difference, difference + side)
            round_key -= _GOLDEN
        index = left * side + right
        if index < np.uint64(size):
            return np.int64(index)


BUFFER = 16
"""Stretches that are shuffled together by `permute_local`: what a reader of remote shards holds at a time."""


@kernel
def permute_local(index: Word, size: Word, key: Word, stretch: Word) -> Word:
    """Permute 0..size-1 so that neighbours stay near: whole stretches change places, then `BUFFER` of them are mixed.

    Things index to index + BUFFER * stretch - 1, from a multiple of that, come from `BUFFER` stretches (the last may be
    short) and from nowhere else. A stretch of 0 is `permute`.
    """
    if stretch == 0:
        return permute(index, size, key)
    span = stretch * BUFFER
    window = index // span
    start = window * span
    place = start + permute(index - start, min(span, size - start), derive_key(key, 2 * window + 1))
    number = place // stretch
    if number < size // stretch:  # a short last stretch stays the last
        number = permute(number, size // stretch, derive_key(key, 0))
    return number * stretch + place % stretch


@kernel
def unpermute_local(value: Word, size: Word, key: Word, stretch: Word) -> Word:
    """Return the index that `permute_local` sends to `value`."""
    if stretch == 0:
        return unpermute(value, size, key)
    number = value // stretch
    if number < size // stretch:
        number = unpermute(number, size // stretch, derive_key(key, 0))
    place = number * stretch + value % stretch
    span = stretch * BUFFER
    window = place // span
    start = window * span
    return start + unpermute(place - start, min(span, size - start), derive_key(key, 2 * window + 1))
