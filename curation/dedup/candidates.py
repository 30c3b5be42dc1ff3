"""Candidates: documents with equal exact hashes, and documents that share a band.

All signatures are read once into files of (hash, document), split by hash prefix so that each part sorts in memory;
then one band after the other is sorted and its groups are kept. Time n log n, disk 12 bytes a band and document (16
beyond 2^31 documents). In memory stay, for every document, its place in the union-find forest and among those with a
candidate (4 or 8 bytes each) and two bits of state (2 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.dedup.cluster import union_runs
from curation.dedup.inputs import Inputs, band_names
from curation.dedup.minhash import Options, SignatureError
from curation.dedup.spill import BYTES_PER_RECORD, HashFile, RunFile, Runs

STATE_BYTES = 18  # a document in the forest, its flags and its place, at most
_FLUSH_ROWS = 1 << 20  # rows of all bands that are split by prefix at a time, at most; 1 KiB each while they are
_FLUSH_BYTES = 1 << 10


@dataclass(frozen=True)
class Candidates:
    """What shares a hash.

    `copies` are groups of exact copies; `groups` groups by band of one document for each exact copy (its smallest).
    `parent` is the union-find forest over `groups`. `num_alive` counts rows with a signature that take part.
    """

    copies: Runs
    groups: RunFile
    parent: np.ndarray
    num_alive_by_input: np.ndarray


def find_candidates(inputs: Inputs, options: Options, folder: Path, memory: int) -> Candidates:
    """Sort all hashes and group equal ones.

    Args:
        inputs: checked inputs.
        options: of the signatures; zero bands find exact copies only.
        folder: empty scratch folder.
        memory: bytes to stay within.

    Raises:
        SignatureError: when the documents' state alone is more than the memory.
    """
    num_documents = inputs.num_documents
    state_gib, memory_gib = num_documents * STATE_BYTES / 2**30, memory / 2**30
    if state_gib > memory_gib / 2:
        raise SignatureError(
            f"{num_documents:,} documents x {STATE_BYTES} bytes of state = {state_gib:.3g} GiB is more than half of "
            f"the {memory_gib:.3g} GiB for matching; raise execution.memory by {2 * state_gib - memory_gib:.3g} GiB"
        )
    document_type = np.dtype(np.int32 if num_documents < 2**31 else np.int64)
    parts = 1
    while num_documents // parts * BYTES_PER_RECORD > memory // 3:
        parts *= 2
    flush_rows = min(max(memory // 4 // _FLUSH_BYTES, 1 << 12), _FLUSH_ROWS)
    files, num_alive = _gather(inputs, options, folder, (parts, flush_rows), document_type)
    copies = _concatenated([files[0].runs(part) for part in range(parts)], document_type)
    copied = np.zeros(num_documents, bool)
    copied[copies.members] = True
    copied[copies.members[copies.starts[:-1]]] = False  # the first of each stands for the others
    parent = np.arange(num_documents, dtype=document_type)
    groups = RunFile(folder, "groups", document_type)
    for file in files[1:]:
        for part in range(parts):
            runs = file.runs(part, copied)
            file.remove(part)
            union_runs(parent, runs.starts, runs.members)
            groups.add(runs)
    return Candidates(copies, groups, parent, num_alive)


def _gather(
    inputs: Inputs, options: Options, folder: Path, sizes: tuple[int, int], document_type: np.dtype
) -> tuple[list[HashFile], np.ndarray]:
    """Read every input once into a file of exact hashes and one for each band; sizes: parts, rows written at once."""
    parts, flush_rows = sizes
    names = band_names(options)
    files = [HashFile(folder, "exact", parts, document_type, wide=True)]
    files += [HashFile(folder, name, parts, document_type) for name in names]
    num_alive = np.zeros(len(inputs.inputs), np.int64)
    waiting: list[tuple[np.ndarray, pa.RecordBatch]] = []
    waiting_rows = 0
    for number in range(len(inputs.inputs)):
        alive = inputs.alive(number)
        start = int(inputs.offsets[number])
        for document, batch in inputs.rows(number, [inputs.exact, *names]):
            taken = np.asarray(batch.column(inputs.exact).is_valid().to_numpy(zero_copy_only=False))
            if alive is not None:
                taken = taken & alive[document - start : document - start + batch.num_rows]
            rows = np.flatnonzero(taken)
            num_alive[number] += len(rows)
            waiting.append((document + rows, batch if len(rows) == batch.num_rows else batch.take(pa.array(rows))))
            waiting_rows += len(rows)
            if waiting_rows >= flush_rows:
                _write(files, waiting)
                waiting, waiting_rows = [], 0
    _write(files, waiting)
    return files, num_alive


def _write(files: list[HashFile], waiting: list[tuple[np.ndarray, pa.RecordBatch]]) -> None:
    if not waiting:
        return
    documents = np.concatenate([numbers for numbers, _ in waiting])
    table = pa.Table.from_batches([batch for _, batch in waiting])
    halves = _exact_halves(table.column(0))
    files[0].add(halves[:, 0], documents, halves[:, 1])
    for place, file in enumerate(files[1:], start=1):
        column = table.column(place)
        present = np.asarray(column.is_valid().to_numpy())
        if present.all():
            file.add(column.to_numpy(), documents)
        elif present.any():
            file.add(column.drop_null().to_numpy(), documents[present])


def _exact_halves(column: pa.ChunkedArray) -> np.ndarray:
    """The 16-byte hashes as uint64 (rows, 2)."""
    parts = []
    for chunk in column.chunks:
        content = np.frombuffer(chunk.buffers()[1], np.uint8)
        parts.append(content[chunk.offset * 16 : (chunk.offset + len(chunk)) * 16].view(">u8").astype(np.uint64))
    return np.concatenate(parts).reshape(-1, 2) if parts else np.zeros((0, 2), np.uint64)


def _concatenated(runs: list[Runs], document_type: np.dtype) -> Runs:
    sizes = [np.diff(one.starts) for one in runs]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    return Runs(starts, np.concatenate([one.members for one in runs]).astype(document_type, copy=False))
