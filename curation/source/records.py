"""Records of any format as columns, before they are rows: texts as bytes, reasons, and the values a source brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import xxhash

from curation.source.spans import Block, Bytes, Positions, Unheld

Mask = npt.NDArray[np.bool_]

READ_REASONS = (
    "",  # readable
    "bad_csv",
    "bad_json",
    "missing_text",
    "non_string_text",
    "not_a_record",
    "too_large",
    "truncated",
    "unreadable",
)
"""Why a record has no text; the first stands for readable records."""

CODES: Mapping[str, int] = {reason: code for code, reason in enumerate(READ_REASONS)}
_WITH_FIELDS = tuple(CODES[reason] for reason in ("", "missing_text", "non_string_text"))

KINDS = {"text": pa.large_string(), "number": pa.float64(), "bool": pa.bool_(), "int64": pa.int64()}
"""Arrow types of what a source brings, by kind; `int64` comes from Parquet only."""


@dataclass
class Records:
    """R records, row-aligned.

    `columns` holds the values that fields, `brought` and `where` name, by (column, type). `texts` may still hold
    invalid UTF-8. `sizes` and `ids` speak of the record as it stands in the shard and count where the text is null.
    """

    texts: pa.Array  # large_binary
    reasons: npt.NDArray[np.uint8]
    sizes: Positions
    ids: dict[int, bytes]
    lone_surrogates: Positions
    columns: dict[tuple[str, str], pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def has_fields(self) -> Mask:
        """Whether a record could be taken apart, bool (R,): `where` is asked only there."""
        return np.isin(self.reasons, _WITH_FIELDS)


def unheld_record(record: Unheld) -> Records:
    """One record of which only size and hash are known."""
    return Records(
        pa.nulls(1, pa.large_binary()),
        np.array([CODES[record.reason]], np.uint8),
        np.array([record.size_bytes], np.int64),
        {0: record.content_id},
        np.zeros(1, np.int64),
    )


def without_too_large(block: Block, limit: int) -> tuple[Positions, Mask]:
    """The block's ends with records over the limit emptied, and which these are."""
    too_large: Mask = block.ends - block.begins > limit
    return (np.where(too_large, block.begins, block.ends) if too_large.any() else block.ends), too_large


def held_records(
    block: Block, texts: pa.Array, reasons: Bytes, lone: Positions, columns: dict[tuple[str, str], pa.Array]
) -> Records:
    """Records of a block, with the hashes of those that have no text."""
    raw = memoryview(block.buffer)  # type: ignore[arg-type]  # numpy's stubs do not say that arrays are buffers
    ids = {
        i: xxhash.xxh3_128_digest(raw[block.begins[i] : block.ends[i]]) for i in np.flatnonzero(reasons).tolist()
    }  # fmt: skip
    return Records(texts, reasons, block.ends - block.begins, ids, lone, columns)


def binary_array(offsets: Positions, values: Bytes, valid: Mask) -> pa.Array:
    """A large_binary array from Arrow's own layout; null where not valid."""
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(offsets), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.large_binary(), len(valid), buffers)


def raw_bytes(array: pa.Array) -> tuple[Positions, memoryview]:
    """Offsets (R + 1) and bytes of a large_binary or large_string array, its own slice only."""
    buffers = array.buffers()
    if not len(array):
        return np.zeros(1, np.int64), memoryview(b"")
    offsets = np.frombuffer(buffers[1], np.int64, count=len(array) + 1, offset=array.offset * 8)
    return offsets, memoryview(buffers[2] if buffers[2] is not None else b"")


def repair(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Turn bytes into text: invalid UTF-8 sequences become U+FFFD.

    Args:
        array: large_binary (R,), may hold nulls.

    Returns:
        large_string (R,), and the sequences replaced in each value, int32 (R,). A sequence is a maximal subpart
        (Unicode 15, §3.9, table 3-8), as Python's and the web's decoders count.
    """
    counts = np.zeros(len(array), np.int32)
    try:
        return array.cast(pa.large_string()), counts
    except pa.ArrowInvalid:
        pass
    texts: list[bytes | None] = []
    for i, value in enumerate(array):
        raw = value.as_py()
        if raw is not None:
            text = raw.decode("utf-8", "replace")
            # U+FFFD written as such stays and is not counted; its bytes are never part of an invalid sequence
            counts[i] = text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")
            raw = text.encode()
        texts.append(raw)
    return pa.array(texts, pa.large_binary()).cast(pa.large_string()), counts


def numbers(texts: pa.Array) -> pa.Array:
    """Texts as float64; null where one is no finite number."""
    values = pl.Series(texts).cast(pl.Float64, strict=False)
    finite = pl.select(pl.when(values.is_finite()).then(values)).to_series()
    return finite.to_arrow()
