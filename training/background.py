"""Checkpoints written while the training goes on.

Weights and moments are copied into the host's memory (one more copy of what a process saves, kept and used again), and
a thread writes, checksums and renames this process's file. On a CPU the thread also copies, beside the next train
step's forward and backward, which only read weights: the training waits for the copy right before it changes them
(`BackgroundSaver.wait_for_copy`). On a GPU it waits at once, while they are copied into page-locked memory.

The processes agree through small files in the checkpoint's folder, not through a collective, which would meet the
training's own: each leaves an entry, and the first process commits when all are there. One checkpoint at most is being
written; the next one waits for it. A process that ends on the way leaves a folder without a manifest, which is no
checkpoint.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.alive import bytes_in, result_of
from training.checkpoint import (
    CheckpointError,
    Gather,
    commit,
    file_of,
    num_updates,
    prepare,
    to_write,
    write_tensors,
)
from training.step import nothing

POLL_S = 0.02
# As long as the training's own collectives wait for a process.
PATIENCE_S = 1800.0
# What a run that ends badly grants a checkpoint on its way.
LAST_WAIT_S = 60.0


@dataclass(frozen=True)
class _Copy:
    """What one save writes.

    Attributes:
        tensors: weights and moments, the training's own until they are copied.
        copied: set when the training's may change.
    """

    folder: Path
    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    index: dict[str, Any]
    updates: int
    token: str
    world: int
    copied: threading.Event


class BackgroundSaver:
    """Saves checkpoints of one training, one at a time, in a thread.

    Attributes:
        blocked_s: seconds that the training has waited for it.
        beat: called while the training waits for what goes on being written, as a sign of life.
    """

    def __init__(self, rank: int, gather: Gather, min_free_bytes: int = 0, beat: Callable[[], None] = nothing) -> None:
        self.rank, self.gather, self.min_free_bytes, self.beat = rank, gather, min_free_bytes, beat
        self.blocked_s = 0.0
        self._copies: dict[str, Tensor] = {}
        self._writing: Future[None] | None = None
        self._folder = Path()
        self._copied = threading.Event()

    def begin(
        self,
        root: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        manifest: Mapping[str, Any],
        then: Callable[[], None] = nothing,
    ) -> Path:
        """Start to copy what is saved and to write it; every process calls it.

        Neither weights nor moments may change before `wait_for_copy`.

        Args:
            root: see `training.checkpoint.save`, as the next three.
            model: its weights.
            optimizer: its moments.
            manifest: copied here.
            then: called in the thread when this process's part is done, on the first process when it is committed.

        Returns:
            The folder, which is a checkpoint once it is committed.

        Raises:
            OSError, CheckpointError: of the checkpoint before, if that failed.
        """
        self.finish()
        since = time.perf_counter()
        folder = prepare(root, manifest, self.rank, self.gather)
        tokens = self.gather(uuid.uuid4().hex)
        tensors, index = to_write(model, optimizer)
        own = json.loads(json.dumps(manifest))
        self._copied = threading.Event()
        if any(tensor.is_cuda for tensor in tensors.values()):
            tensors = copy_to_host(tensors, self._copies)
            self._copied.set()
        copy = _Copy(folder, own, tensors, index, num_updates(optimizer), tokens[0], len(tokens), self._copied)
        self._folder, self._writing = folder, _in_thread(partial(self._write, copy, then))
        self.blocked_s += time.perf_counter() - since
        return folder

    def wait_for_copy(self) -> None:
        """Wait until weights and moments may change; to be called before each change of them."""
        if self._writing is None:
            return
        since = time.perf_counter()
        self._copied.wait()
        self.blocked_s += time.perf_counter() - since

    def look(self) -> None:
        """Raise what has gone wrong since, without waiting."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, on the first process until it is committed.

        Raises:
            OSError, CheckpointError: if it could not be written.
        """
        if self._writing is None:
            return
        since = time.perf_counter()
        try:
            result_of(self._writing, lambda: bytes_in(self._folder), self.beat)
        finally:
            self.blocked_s += time.perf_counter() - since
            if self._writing.done():  # not where the waiting was broken off
                self._writing = None

    def wait(self) -> None:
        """Wait a while for the checkpoint that is being written, whatever becomes of it."""
        if self._writing is not None:
            wait([self._writing], LAST_WAIT_S)

    def _write(self, copy: _Copy, then: Callable[[], None]) -> None:
        try:
            try:
                on_host = copy.tensors if copy.copied.is_set() else copy_to_host(copy.tensors, self._copies)
            finally:
                copy.copied.set()
            written = write_tensors(copy.folder / file_of(self.rank), on_host, self.min_free_bytes)
            entry = {"tensors": copy.index, **written}
            if copy.world > 1:
                _leave(copy, self.rank, entry)
            if self.rank == 0:
                entries = _entries(copy) if copy.world > 1 else [entry]
                commit(copy.folder, copy.manifest, entries, copy.updates)
            then()
        except Exception as error:
            if copy.world > 1 and self.rank:
                _leave(copy, self.rank, {"error": str(error), "errno": getattr(error, "errno", None)})
            raise


def _in_thread(work: Callable[[], None]) -> Future[None]:
    """Do work in a thread that dies with the process: a pool's would hold up the end of one that failed."""
    written: Future[None] = Future()

    def run() -> None:
        try:
            written.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised in the training's own thread
            written.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return written


def copy_to_host(tensors: Mapping[str, Tensor], copies: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, by name, into memory of `copies`, made at first and used again; page-locked for a GPU's."""
    for name, tensor in tensors.items():
        if name not in copies:
            copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies[name].copy_(tensor, non_blocking=True)
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.synchronize()
    return {name: copies[name] for name in tensors}


def _entry_path(copy: _Copy, rank: int) -> Path:
    return copy.folder / f"{file_of(rank)}.{copy.token}.json"


def _leave(copy: _Copy, rank: int, entry: Mapping[str, Any]) -> None:
    path = _entry_path(copy, rank)
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(entry))
    unfinished.replace(path)


def _entries(copy: _Copy) -> list[dict[str, Any]]:
    """The entries of all processes in order of ranks, once they are there."""
    deadline = time.monotonic() + PATIENCE_S
    found = []
    for rank in range(copy.world):
        path = _entry_path(copy, rank)
        while not path.exists():
            if time.monotonic() > deadline:
                raise CheckpointError(f"{copy.folder}: rank {rank} has written nothing in {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
        entry = json.loads(path.read_text())
        if "error" in entry and entry["errno"] is not None:
            raise OSError(entry["errno"], f"rank {rank}: {entry['error']}", str(copy.folder))
        if "error" in entry:
            raise CheckpointError(f"{copy.folder}: rank {rank}: {entry['error']}")
        found.append(entry)
    return found
