"""Records of (hash, document) on disk, split by hash prefix, so that each part sorts in memory.

Documents are numbered through all inputs in canonical order; the order in which records are added does not matter for
what `equal_runs` finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.kernels import kernel

BYTES_PER_RECORD = 48  # hash, document, sort order and two copies while a part is sorted


class Runs(NamedTuple):
    """Groups of documents that share a hash: group i is `members[starts[i]:starts[i + 1]]`, ascending, two or more."""

    starts: np.ndarray
    members: np.ndarray


class HashFile:
    """One stream of (hash, document) records below a folder, in `parts` (a power of two) files by hash prefix.

    With `wide` a record carries a second hash, and both must be equal.
    """

    def __init__(self, folder: Path, name: str, parts: int, document_type: np.dtype, *, wide: bool = False) -> None:
        self.folder, self.name, self.parts, self.document_type, self.wide = folder, name, parts, document_type, wide
        self._shift = np.uint64(64 - (parts.bit_length() - 1)) if parts > 1 else None

    def add(self, hashes: np.ndarray, documents: np.ndarray, second: np.ndarray | None = None) -> None:
        """Append records; hashes uint64 (n,), documents (n,), second uint64 (n,) with `wide`."""
        if self._shift is None:
            self._append(0, hashes, documents, second)
            return
        part = (hashes >> self._shift).astype(np.uint16)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(self.parts + 1))
        for number in range(self.parts):
            chosen = order[bounds[number] : bounds[number + 1]]
            if len(chosen):
                self._append(number, hashes[chosen], documents[chosen], None if second is None else second[chosen])

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes and documents of one part, in the order in which they were added."""
        return self._read_kind(part, "hash", np.dtype(np.uint64)), self._read_kind(part, "document", self.document_type)

    def size(self, part: int) -> int:
        """Records of one part."""
        path = self._path(part, "hash")
        return path.stat().st_size // 8 if path.exists() else 0

    def pieces(self, part: int, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `read` gives, at most so many records at a time."""
        width = self.document_type.itemsize
        for first in range(0, self.size(part), most):
            yield (
                np.fromfile(self._path(part, "hash"), np.uint64, most, offset=8 * first),
                np.fromfile(self._path(part, "document"), self.document_type, most, offset=width * first),
            )

    def runs(self, part: int, left_out: np.ndarray | None = None) -> Runs:
        """Groups of equal hashes in one part, without the documents that `left_out` (bool by document) marks."""
        hashes, documents = self.read(part)
        second = self._read_kind(part, "second", np.dtype(np.uint64)) if self.wide else None
        if left_out is not None and len(documents):
            used = np.flatnonzero(~left_out[documents])
            if len(used) < len(documents):
                hashes, documents = hashes[used], documents[used]
        return equal_runs(hashes, documents, second)

    def remove(self, part: int) -> None:
        """Delete one part's files."""
        for kind in ("hash", "document", "second"):
            self._path(part, kind).unlink(missing_ok=True)

    def _append(self, part: int, hashes: np.ndarray, documents: np.ndarray, second: np.ndarray | None) -> None:
        arrays = {"hash": hashes, "document": documents.astype(self.document_type, copy=False)}
        if second is not None:
            arrays["second"] = second
        for kind, values in arrays.items():
            with self._path(part, kind).open("ab") as file:
                np.ascontiguousarray(values).tofile(file)

    def _read_kind(self, part: int, kind: str, dtype: np.dtype) -> np.ndarray:
        path = self._path(part, kind)
        return np.fromfile(path, dtype) if path.exists() else np.zeros(0, dtype)

    def _path(self, part: int, kind: str) -> Path:
        return self.folder / f"{self.name}-{part:04d}.{kind}"


def equal_runs(hashes: np.ndarray, documents: np.ndarray, second: np.ndarray | None = None) -> Runs:
    """Groups of two or more documents with equal hashes (and equal `second`), in order of hash; n log n.

    Args:
        hashes: uint64 (n,).
        documents: integers (n,), each document at most once for a hash.
        second: uint64 (n,) or null; further bits of the hash.
    """
    order = np.argsort(hashes)
    in_order = hashes[order]
    equal = in_order[1:] == in_order[:-1]
    shared = np.zeros(len(hashes), bool)
    shared[1:] |= equal
    shared[:-1] |= equal
    places = np.flatnonzero(shared)
    chosen = order[places]
    run = np.cumsum(np.concatenate([[False], in_order[places][1:] != in_order[places][:-1]])) if len(places) else places
    if second is None:
        runs = Runs(_run_starts(run), documents[chosen])
        sort_runs(runs.starts, runs.members)
        return runs
    chosen = chosen[np.lexsort((documents[chosen], second[chosen], run))]
    changes = np.concatenate(
        [[False], (hashes[chosen][1:] != hashes[chosen][:-1]) | (second[chosen][1:] != second[chosen][:-1])]
    )
    run = np.cumsum(changes) if len(chosen) else run
    sizes = np.bincount(run) if len(run) else np.zeros(0, np.int64)
    kept = sizes[run] > 1 if len(run) else np.zeros(0, bool)
    return Runs(_run_starts(run[kept]), documents[chosen[kept]])


@kernel
def sort_runs(starts: np.ndarray, members: np.ndarray) -> None:
    """Sort each group's members, in place."""
    for run in range(starts.shape[0] - 1):
        first, last = starts[run], starts[run + 1]
        if last - first > 32:
            members[first:last] = np.sort(members[first:last])
            continue
        for place in range(first + 1, last):
            member, free = members[place], place
            while free > first and members[free - 1] > member:
                members[free] = members[free - 1]
                free -= 1
            members[free] = member


def _run_starts(run: np.ndarray) -> np.ndarray:
    firsts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]])) if len(run) else np.zeros(0, np.int64)
    return np.concatenate([firsts, [len(run)]]).astype(np.int64)


class RunFile:
    """Groups appended to disk, read back whole or only those of some connected components."""

    def __init__(self, folder: Path, name: str, document_type: np.dtype) -> None:
        self._sizes, self._members = folder / f"{name}.sizes", folder / f"{name}.members"
        self.document_type = document_type
        self.num_members = 0

    def add(self, runs: Runs) -> None:
        """Append groups."""
        self.num_members += len(runs.members)
        with self._sizes.open("ab") as file:
            np.diff(runs.starts).tofile(file)
        with self._members.open("ab") as file:
            runs.members.astype(self.document_type, copy=False).tofile(file)

    def mark(self, marked: np.ndarray) -> None:
        """Set `marked` (bool by document) for every member, a few MiB of them at a time."""
        if self.num_members:
            members = np.memmap(self._members, self.document_type, "r")
            for start in range(0, len(members), 1 << 20):
                marked[members[start : start + (1 << 20)]] = True

    def read(self) -> Runs:
        """All groups in the order they were added."""
        if not self._sizes.exists():
            return Runs(np.zeros(1, np.int64), np.zeros(0, self.document_type))
        sizes = np.fromfile(self._sizes, np.int64)
        return Runs(np.concatenate([[0], np.cumsum(sizes)]), np.fromfile(self._members, self.document_type))

    def pieces(self, most: int) -> Iterator[Runs]:
        """All groups in the order they were added, in pieces of about `most` members."""
        if not self.num_members:
            return
        ends = np.cumsum(np.fromfile(self._sizes, np.int64))
        members = np.memmap(self._members, self.document_type, "r")
        first = start = 0
        while first < len(ends):
            last = max(int(np.searchsorted(ends, start + most, side="right")), first + 1)
            starts = np.concatenate([[start], ends[first:last]]) - start
            yield Runs(starts, np.asarray(members[start : ends[last - 1]]))
            first, start = last, int(ends[last - 1])

    def read_part(self, part_of_document: np.ndarray, part: int) -> Runs:
        """The groups whose first member lies in `part` (uint16 by document)."""
        if not self._sizes.exists():
            return self.read()
        sizes = np.fromfile(self._sizes, np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        members = np.memmap(self._members, self.document_type, "r") if starts[-1] else np.zeros(0, self.document_type)
        chosen = part_of_document[members[starts[:-1]]] == part
        kept = np.repeat(chosen, sizes)
        return Runs(np.concatenate([[0], np.cumsum(sizes[chosen])]), np.asarray(members[kept]))
