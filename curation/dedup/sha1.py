"""SHA-1 as a kernel (FIPS 180-4), for hashes of lines that equal CCNet's."""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.kernels import inline_kernel, kernel


@inline_kernel
def _rotate(x: Any, count: Any) -> Any:
    return np.uint32((x << np.uint32(count)) | (x >> np.uint32(32 - count)))


@inline_kernel
def _compress(state: np.ndarray, words: np.ndarray) -> Any:
    """Mix one block of 16 words into the state; `words` uint32 (80,) is scratch from 16 on."""
    for index in range(16, 80):
        words[index] = _rotate(words[index - 3] ^ words[index - 8] ^ words[index - 14] ^ words[index - 16], 1)
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for index in range(20):
        mixed = np.uint32(_rotate(a, 5) + (d ^ (b & (c ^ d))) + e + words[index] + np.uint32(0x5A827999))
        a, b, c, d, e = mixed, a, _rotate(b, 30), c, d
    for index in range(20, 40):
        mixed = np.uint32(_rotate(a, 5) + (b ^ c ^ d) + e + words[index] + np.uint32(0x6ED9EBA1))
        a, b, c, d, e = mixed, a, _rotate(b, 30), c, d
    for index in range(40, 60):
        mixed = np.uint32(_rotate(a, 5) + ((b & c) | (d & (b | c))) + e + words[index] + np.uint32(0x8F1BBCDC))
        a, b, c, d, e = mixed, a, _rotate(b, 30), c, d
    for index in range(60, 80):
        mixed = np.uint32(_rotate(a, 5) + (b ^ c ^ d) + e + words[index] + np.uint32(0xCA62C1D6))
        a, b, c, d, e = mixed, a, _rotate(b, 30), c, d
    state[0] = np.uint32(state[0] + a)
    state[1] = np.uint32(state[1] + b)
    state[2] = np.uint32(state[2] + c)
    state[3] = np.uint32(state[3] + d)
    state[4] = np.uint32(state[4] + e)


@kernel
def sha1_start(content: np.ndarray, start: int, end: int, state: np.ndarray, words: np.ndarray) -> Any:
    """First 8 bytes of SHA-1 of `content[start:end]` as a little-endian number.

    `state` uint32 (5,) and `words` uint32 (80,) are scratch.
    """
    state[0], state[1], state[2] = np.uint32(0x67452301), np.uint32(0xEFCDAB89), np.uint32(0x98BADCFE)
    state[3], state[4] = np.uint32(0x10325476), np.uint32(0xC3D2E1F0)
    place = start
    while end - place >= 64:
        for index in range(16):
            at = place + 4 * index
            words[index] = (
                (np.uint32(content[at]) << np.uint32(24))
                | (np.uint32(content[at + 1]) << np.uint32(16))
                | (np.uint32(content[at + 2]) << np.uint32(8))
                | np.uint32(content[at + 3])
            )
        _compress(state, words)
        place += 64
    rest = end - place
    for index in range(16):
        words[index] = np.uint32(0)
    for index in range(rest):
        words[index >> 2] |= np.uint32(content[place + index]) << np.uint32(24 - 8 * (index & 3))
    words[rest >> 2] |= np.uint32(0x80) << np.uint32(24 - 8 * (rest & 3))
    if rest >= 56:
        _compress(state, words)
        for index in range(16):
            words[index] = np.uint32(0)
    bits = np.uint64(end - start) * np.uint64(8)
    words[14], words[15] = np.uint32(bits >> np.uint64(32)), np.uint32(bits & np.uint64(0xFFFFFFFF))
    _compress(state, words)
    big_endian = (np.uint64(state[0]) << np.uint64(32)) | np.uint64(state[1])
    little = np.uint64(0)
    for _ in range(8):
        little = (little << np.uint64(8)) | (big_endian & np.uint64(0xFF))
        big_endian >>= np.uint64(8)
    return little
