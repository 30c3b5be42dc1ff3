"""Row batches cut by rows and by bytes, so that whoever holds one holds a known amount, whatever wrote the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def cut_batches(batches: Iterable[pa.RecordBatch], rows: int, size_bytes: int) -> Iterator[pa.RecordBatch]:
    """Join small row batches and split large ones.

    Cuts stand behind every `rows` rows, whatever the bytes, so that small rows come in the same batches for any
    `size_bytes`; and between them wherever a batch would be larger than `size_bytes`. Only a single row may be larger.

    Args:
        batches: of one schema.
        rows: of the longest batch.
        size_bytes: of the largest batch, as Arrow holds it.

    Memory: a batch that is made, twice while it is joined, and one that is given.
    """
    held: list[pa.RecordBatch] = []
    place = held_bytes = 0  # rows since the last cut by rows; bytes that are held
    for batch in batches:
        for piece in _split(batch, size_bytes):
            while piece.num_rows:
                taken = piece.slice(0, rows - place)
                piece = piece.slice(taken.num_rows)
                if held and held_bytes + taken.nbytes > size_bytes:
                    yield _joined(held)
                    held, held_bytes = [], 0
                held.append(taken)
                held_bytes += taken.nbytes
                place += taken.num_rows
                if place == rows:
                    yield _joined(held)
                    held, place, held_bytes = [], 0, 0
    if held:
        yield _joined(held)


def _split(batch: pa.RecordBatch, size_bytes: int) -> Iterator[pa.RecordBatch]:
    """The batch in halves of halves, until none is larger or of more than one row."""
    if batch.nbytes <= size_bytes or batch.num_rows < 2:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _split(batch.slice(0, half), size_bytes)
    yield from _split(batch.slice(half), size_bytes)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
