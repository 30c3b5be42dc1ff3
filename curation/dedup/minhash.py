"""MinHash signatures of row batches: band hashes, an exact hash and the number of shingles of every document.

The permutations are datasketch 2.0's affine schemes, so signatures equal `datasketch.MinHash(scheme=..., seed=...)` bit
for bit when it is given the same shingle hashes (`shingle.shingle_hashes`; for affine32 their upper half). A document
shorter than a shingle has no band hashes; its exact hash still finds its copies, so nothing is skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import NORMALIZATIONS, load_fold, unicode_version
from curation.dedup.shingle import BLOCK, finish_exact, mix, next_shingles, start_document, text_buffers
from curation.kernels import inline_kernel, kernel

VERSION = 1  # raise when a signature of the same text and options changes
METADATA_KEY = b"gristmill.signatures"
_SCHEMES: dict[str, np.dtype[Any]] = {"affine32": np.dtype(np.uint32), "affine64": np.dtype(np.uint64)}
_BAND_FACTOR = np.uint64(0x9FB21C651E98DF25)


class SignatureError(ValueError):
    """Signatures that cannot be used: other options, a broken file, or options that make no sense."""


@dataclass(frozen=True)
class Options:
    """What a signature depends on. The defaults are FineWeb's: 5-word shingles, 14 bands of 8 rows.

    `shingle` counts words, or characters of the normalised text with `unit="characters"`. `seed` is fixed by the
    preset and never the recipe's. Probability that two documents of similarity s share a band: 1 - (1 - s^rows)^bands.
    """

    shingle: int = 5
    unit: str = "words"
    bands: int = 14
    rows: int = 8
    seed: int = 1
    scheme: str = "affine32"
    normalize: str = "words"

    def __post_init__(self) -> None:
        if self.unit not in ("words", "characters"):
            raise SignatureError(f"shingle unit {self.unit!r} is unknown; write words or characters")
        if self.scheme not in _SCHEMES:
            raise SignatureError(f"scheme {self.scheme!r} is unknown; write affine32 or affine64")
        if self.normalize not in NORMALIZATIONS:
            raise SignatureError(f"normalize {self.normalize!r} is unknown; choose one of {', '.join(NORMALIZATIONS)}")
        if not 1 <= self.shingle <= 1024:
            raise SignatureError(f"a shingle of {self.shingle} {self.unit}: needs 1 to 1024")
        if self.bands < 0 or self.rows < 1 or self.bands * self.rows > 65536:
            raise SignatureError(
                f"bands x rows is {self.bands} x {self.rows}: needs at least 0 x 1, at most 65,536 hashes"
            )

    @property
    def hashes(self) -> int:
        """Number of permutations."""
        return self.bands * self.rows


def bands_for_threshold(threshold: float, hashes: int) -> tuple[int, int]:
    """Bands and rows that suit a similarity threshold best, by the integral datasketch and RedPajama-V2 minimise.

    Args:
        threshold: Jaccard similarity, 0 to 1.
        hashes: permutations at hand; bands x rows uses at most so many.

    Returns:
        (bands, rows) with the least `0.5 * false positives + 0.5 * false negatives`, the areas under
        1 - (1 - s^rows)^bands below, and over it above the threshold; 128 hashes give RedPajama's 14 x 9 for 0.7,
        9 x 13 for 0.8, 5 x 25 for 0.9.
    """
    if not 0 <= threshold <= 1 or hashes < 1:
        raise SignatureError(f"threshold {threshold} with {hashes} hashes: needs 0 to 1, and at least 1 hash")
    best, chosen = np.inf, (1, 1)
    for bands in range(1, hashes + 1):
        for rows in range(1, hashes // bands + 1):
            error = _error_area(threshold, bands, rows)
            if error < best:
                best, chosen = error, (bands, rows)
    return chosen


def _error_area(threshold: float, bands: int, rows: int) -> float:
    """Half the false-positive plus half the false-negative area, by Gauss-Legendre quadrature (error below 1e-9)."""
    nodes, weights = _legendre_nodes()
    below = (nodes + 1) * (threshold / 2)
    above = threshold + (nodes + 1) * ((1 - threshold) / 2)
    found_below = 1 - (1 - below**rows) ** bands
    missed_above = (1 - above**rows) ** bands
    return float(0.25 * (threshold * (weights @ found_below) + (1 - threshold) * (weights @ missed_above)))


@functools.cache
def _legendre_nodes() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(256)
    return nodes, weights


@functools.cache
def permutations(options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Factors (odd) and addends of the affine permutations, as datasketch 2.0 draws them from the seed; (hashes,)."""
    dtype = _SCHEMES[options.scheme]
    width = dtype.itemsize * 8
    draw = np.random.RandomState(options.seed)
    factors = draw.randint(0, 1 << (width - 1), options.hashes, dtype=dtype.type) * dtype.type(2) + dtype.type(1)
    return factors, draw.randint(0, 1 << width, options.hashes, dtype=dtype.type)


@inline_kernel
def _lower_minima32(
    shingles: np.ndarray, count: Any, factors: np.ndarray, addends: np.ndarray, minima: np.ndarray
) -> Any:
    for index in range(count):
        x = np.uint32(shingles[index] >> np.uint64(32))
        x ^= x >> np.uint32(16)
        x = np.uint32(x * np.uint32(0x85EBCA6B))
        x ^= x >> np.uint32(13)
        x = np.uint32(x * np.uint32(0xC2B2AE35))
        x ^= x >> np.uint32(16)
        for p in range(factors.shape[0]):
            minima[p] = min(minima[p], np.uint32(np.uint32(x * factors[p]) + addends[p]))


@inline_kernel
def _lower_minima64(
    shingles: np.ndarray, count: Any, factors: np.ndarray, addends: np.ndarray, minima: np.ndarray
) -> Any:
    for index in range(count):
        x = mix(shingles[index])
        for p in range(factors.shape[0]):
            minima[p] = min(minima[p], x * factors[p] + addends[p])


@kernel
def _sign32(  # noqa: PLR0913
    content: np.ndarray,
    offsets: np.ndarray,
    valid: np.ndarray,
    fold: Any,
    characters: Any,
    size: Any,
    factors: np.ndarray,
    addends: np.ndarray,
    minima: np.ndarray,
    exact_out: np.ndarray,
    counts: np.ndarray,
) -> Any:
    cursor, exact = np.zeros(2, np.int64), np.zeros(5, np.uint64)
    units = np.zeros(BLOCK + size + 24, np.uint64)
    shingles = np.zeros(BLOCK + size + 24, np.uint64)
    for row in range(offsets.shape[0] - 1):
        if not valid[row]:
            continue
        start, end = offsets[row], offsets[row + 1]
        start_document(cursor, exact, start)
        while cursor[0] < end:
            count = next_shingles(content, end, fold, characters, size, cursor, exact, units, shingles)
            _lower_minima32(shingles, count, factors, addends, minima[row])
            counts[row] += count
        exact_out[row, 0], exact_out[row, 1] = finish_exact(exact, content, start, end)


@kernel
def _sign64(  # noqa: PLR0913
    content: np.ndarray,
    offsets: np.ndarray,
    valid: np.ndarray,
    fold: Any,
    characters: Any,
    size: Any,
    factors: np.ndarray,
    addends: np.ndarray,
    minima: np.ndarray,
    exact_out: np.ndarray,
    counts: np.ndarray,
) -> Any:
    cursor, exact = np.zeros(2, np.int64), np.zeros(5, np.uint64)
    units = np.zeros(BLOCK + size + 24, np.uint64)
    shingles = np.zeros(BLOCK + size + 24, np.uint64)
    for row in range(offsets.shape[0] - 1):
        if not valid[row]:
            continue
        start, end = offsets[row], offsets[row + 1]
        start_document(cursor, exact, start)
        while cursor[0] < end:
            count = next_shingles(content, end, fold, characters, size, cursor, exact, units, shingles)
            _lower_minima64(shingles, count, factors, addends, minima[row])
            counts[row] += count
        exact_out[row, 0], exact_out[row, 1] = finish_exact(exact, content, start, end)


@kernel
def _hash_bands(minima: np.ndarray, bands: Any, rows: Any, out: np.ndarray) -> Any:
    """64-bit hash of each band's minima into `out` (bands, documents)."""
    for row in range(minima.shape[0]):
        for band in range(bands):
            hashed = np.uint64(band + 1) * _BAND_FACTOR
            for place in range(band * rows, band * rows + rows):
                hashed = (hashed ^ np.uint64(minima[row, place])) * _BAND_FACTOR
                hashed ^= hashed >> np.uint64(32)
            out[band, row] = mix(hashed)


def minima(text: pa.Array, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MinHash values, exact hashes and shingle counts of a text array.

    Returns:
        Minima (documents, hashes) of the scheme's type, equal to datasketch's `hashvalues` (all ones where there is no
        shingle); exact hashes uint64 (documents, 2); number of shingles int64 (documents,). Rows without text are zero
        in the last two. Memory: 4 or 8 bytes a hash and document.
    """
    content, offsets, valid = text_buffers(text)
    factors, addends = permutations(options)
    values = np.full((len(text), options.hashes), np.iinfo(factors.dtype).max, factors.dtype)
    exact, counts = np.zeros((len(text), 2), np.uint64), np.zeros(len(text), np.int64)
    sign = _sign32 if options.scheme == "affine32" else _sign64
    fold = tuple(load_fold(options.normalize))
    characters = options.unit == "characters"
    sign(content, offsets, valid, fold, characters, options.shingle, factors, addends, values, exact, counts)
    return values, exact, counts


def signatures(text: pa.Array, options: Options) -> pa.RecordBatch:
    """Signatures of a text array, row-aligned.

    Returns:
        Columns `exact` (16 bytes: hash of the normalised text, of the raw text where no word is in it), `num_shingles`
        int32 and `band_00`, `band_01` … uint64. All null where the text is null; the bands are null where the document
        is shorter than a shingle. The options stand in the schema's metadata. Memory: 130 bytes a hash-and-document
        row of 112 hashes at a time (4,096 rows), 8 bytes a band.
    """
    pieces = [_signature_arrays(text.slice(at, 4096), options) for at in range(0, max(len(text), 1), 4096)]
    bands = np.concatenate([piece[0] for piece in pieces], axis=1)
    exact = np.concatenate([piece[1] for piece in pieces])
    counts = np.concatenate([piece[2] for piece in pieces])
    absent = np.asarray(text.is_null().to_numpy(zero_copy_only=False))
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(text), [_validity(absent), pa.py_buffer(exact.astype(">u8").tobytes())]
    )
    columns = [fixed, pa.array(np.minimum(counts, np.iinfo(np.int32).max).astype(np.int32), mask=absent)]
    columns += [pa.array(band, mask=counts == 0) for band in bands]
    return pa.RecordBatch.from_arrays(columns, schema=schema(options))


def _signature_arrays(text: pa.Array, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, exact, counts = minima(text, options)
    bands = np.zeros((options.bands, len(text)), np.uint64)
    _hash_bands(values, options.bands, options.rows, bands)
    return bands, exact, counts


def _validity(absent: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes())


def schema(options: Options) -> pa.Schema:
    """Schema of a signature file, with the options in its metadata."""
    fields = [pa.field("exact", pa.binary(16)), pa.field("num_shingles", pa.int32())]
    fields += [pa.field(f"band_{band:02d}", pa.uint64()) for band in range(options.bands)]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(described(options)).encode()})


def described(options: Options) -> dict[str, Any]:
    """Options as plain values, with the version and the Unicode version that the hashes depend on."""
    return {**dataclasses.asdict(options), "version": VERSION, "unicode": unicode_version()}
