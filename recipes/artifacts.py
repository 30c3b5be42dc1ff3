"""Artifacts: what a run makes, kept by what made it.

    workdir/<stage>-<key>/             a stage: everything made by the same options from the same kind of input
        <task><suffix>                 what one task wrote
        <task>.json                    the task's record, written last: counts, bytes, checksums
        manifest-<inputs>.json         the stage over one list of tasks, written when all are there

A file is written under a private name ending in `.tmp` and put in place by one rename; a task counts as done when its
record exists and its files have the recorded sizes. Records and manifests hold no times, hosts or versions, so two runs
of the same recipe leave the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import xxhash

Counts = dict[str, int | float | str | None]

# Times, host and workers of the last making of a stage, beside what it made.
LAST_MAKING = "run.json"

_CHUNK = 1 << 20


class ArtifactError(Exception):
    """A stage's folder is not what its manifest says."""


def key_of(*parts: object) -> str:
    """Hash of plain values (mappings in any order) as 16 hexadecimal digits."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def checksum(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in pieces of 1 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file by one rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_json(value: object) -> str:
    """The one way in which records and manifests are written."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def files_of(path: Path) -> list[Path]:
    """A file, or all files below a folder in order."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass
class Output:
    """Where one task writes. It crosses into worker processes, so it holds plain values.

    `path(suffix)` gives a private path; `commit(counts)` puts all of them in place and writes the record.
    """

    folder: str
    task: str
    lock: str
    _written: dict[str, str] = field(default_factory=dict)

    def path(self, suffix: str) -> Path:
        """Private path of one of the task's files or folders. A suffix such as `.parquet` names it for good."""
        assert suffix != ".json", "the task's record has this name"
        unique = f"{os.getpid()}-{os.urandom(3).hex()}"
        temporary = Path(self.folder) / f"{self.task}{suffix}.{unique}.tmp"
        self._written[suffix] = str(temporary)
        return temporary

    def commit(self, counts: Mapping[str, Any]) -> None:
        """Put the task's files in place and write its record: bytes and checksum of each, and the counts."""
        folder = Path(self.folder)
        files = {}
        for suffix, name in sorted(self._written.items()):
            for file in files_of(Path(name)):
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                inside = file.relative_to(name).as_posix()
                place = f"{self.task}{suffix}" + ("" if inside == "." else f"/{inside}")
                files[place] = {"bytes": file.stat().st_size, "checksum": checksum(file)}
        for suffix, name in sorted(self._written.items()):
            final = folder / f"{self.task}{suffix}"
            if final.is_dir():  # left by a task that was killed before its record: a rename cannot replace a folder
                shutil.rmtree(final)
            Path(name).replace(final)
        record = {"task": self.task, "files": files, "counts": dict(counts)}
        write_atomically(folder / f"{self.task}.json", to_json(record))

    def abandon(self) -> None:
        """Remove what was written so far: the task failed."""
        for name in self._written.values():
            remove(Path(name))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the stage's worker lock while writing, so that no other run takes the stage over before."""
        with Path(self.lock).open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            yield


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder in the work directory, or in a read-only store that already has it."""

    path: Path
    read_only: bool = False

    @property
    def name(self) -> str:
        """`<stage>-<key>`."""
        return self.path.name

    @property
    def key(self) -> str:
        """The part of the name that hashes what made the stage."""
        return self.path.name.rpartition("-")[2]

    def record(self, task: str) -> dict[str, Any] | None:
        """The record of a task that is whole, else None: files are there with their recorded sizes."""
        try:
            record: dict[str, Any] = json.loads((self.path / f"{task}.json").read_text(encoding="utf-8"))
            sizes = {name: (self.path / name).stat().st_size for name in record["files"]}
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None
        return record if all(sizes[n] == f["bytes"] for n, f in record["files"].items()) else None

    def last_making(self) -> dict[str, Any]:
        """Times, host and workers of the last making of this stage; nothing where it is not told."""
        path = self.path / LAST_MAKING
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def missing(self, tasks: Sequence[str]) -> list[str]:
        """Those of the tasks that are not whole, in their order."""
        return [task for task in tasks if self.record(task) is None]

    def file(self, task: str, suffix: str) -> Path:
        """Path of a task's file."""
        return self.path / f"{task}{suffix}"

    def output(self, task: str) -> Output:
        """Where a task writes; the folder is made at need."""
        self.path.mkdir(parents=True, exist_ok=True)
        return Output(str(self.path), task, str(self.path / ".workers.lock"))

    def finish(self, tasks: Sequence[str]) -> Path:
        """Write the manifest over a list of whole tasks and return its path."""
        records = []
        for task in tasks:
            record = self.record(task)
            if record is None:
                raise ArtifactError(f"{self.name}: task {task} is not whole; run the same command again")
            records.append(record)
        self.path.mkdir(parents=True, exist_ok=True)  # a stage over no shard at all has made no folder yet
        manifest = self.path / f"manifest-{key_of(sorted(tasks))}.json"
        if not manifest.exists():
            write_atomically(manifest, to_json({"stage": self.name, "tasks": records}))
        return manifest

    def remove_leftovers(self) -> None:
        """Remove what killed workers left half-written. Only for who holds the stage, when no worker writes."""
        for leftover in self.path.glob("*.tmp"):
            remove(leftover)

    @contextlib.contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether no run makes this stage and no worker writes into it; nobody begins to while the context is open."""
        with contextlib.ExitStack() as held:
            try:
                for name in (".run.lock", ".workers.lock"):
                    stream = held.enter_context((self.path / name).open("a"))
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Be the only run that writes into this stage; `on_wait` is told once who holds it, and why, where one does.

        Two locks: one that the run holds, one that each of its workers shares while it writes. A run that was killed
        leaves workers that end by themselves; the next run waits for them, then removes what they left half-written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".run.lock").open("a+") as run_lock:
            _lock(run_lock, on_wait, "process {} is making it in the same work directory; waiting for it")
            with (self.path / ".workers.lock").open("a+") as workers_lock:
                _lock(workers_lock, on_wait, _LEFT_WORKERS)
                self.remove_leftovers()
            run_lock.seek(0)
            run_lock.truncate()
            run_lock.write(str(os.getpid()))
            run_lock.flush()
            yield


_LEFT_WORKERS = (
    "the run that made it is gone, but a worker of it (process {}) is still writing; waiting until it ends, "
    "which it does by itself"
)


def _lock(stream: TextIO, on_wait: Callable[[str], None], words: str) -> None:
    """Take a lock; where another holds it, tell who (in place of `{}` in the words) and wait."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        on_wait(words.format(_holders(stream) or stream.read() or "(unknown)"))
        fcntl.flock(stream, fcntl.LOCK_EX)


def _holders(stream: TextIO) -> str:
    """Process ids of who holds a lock on a file, as Linux tells them; empty where the machine does not say.

    What the last holder wrote into the file is older where it was killed and a child inherited its lock.
    """
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    status = os.fstat(stream.fileno())
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = [words for line in lines if (words := line.split()) and place in words and "->" not in words]
    return ", ".join(sorted({words[words.index(place) - 1] for words in held}))


@dataclass(frozen=True)
class Store:
    """The work directory, and read-only stores in which whole stages are looked up by name."""

    workdir: Path
    reuse: tuple[Path, ...] = ()

    def stage(self, kind: str, key: str, tasks: Sequence[str] = ()) -> StageFolder:
        """The folder of a stage: in the work directory, or in a read-only store that has all of `tasks` whole."""
        name = f"{kind}-{key}"
        for store in self.reuse:
            folder = StageFolder(store / name, read_only=True)
            if tasks and not folder.missing(tasks):
                return folder
        return StageFolder(self.workdir / name)


class InputChecksums:
    """Checksums of raw shards, remembered by path, size and modification time.

    The time only tells whether the remembered checksum may be trusted without reading the file again; it never enters
    a key.
    """

    def __init__(self, path: Path, verify: bool = False) -> None:
        self._path = path
        self._verify = verify
        self._known: dict[str, list[Any]] = {}
        if path.exists():
            with contextlib.suppress(json.JSONDecodeError):
                self._known = json.loads(path.read_text(encoding="utf-8"))
        self._changed = False

    def of(self, path: Path) -> str:
        """Checksum of a file, read only when its size or time changed since it was last read."""
        return self.seen(path)[2]

    def seen(self, path: Path) -> tuple[int, int, str]:
        """Size, modification time (ns) and checksum of a file; it is read only when one of the first two changed."""
        stat = path.stat()
        known = self._known.get(str(path))
        if known and known[:2] == [stat.st_size, stat.st_mtime_ns] and not self._verify:
            return stat.st_size, stat.st_mtime_ns, str(known[2])
        found = checksum(path)
        self._known[str(path)] = [stat.st_size, stat.st_mtime_ns, found]
        self._changed = True
        return stat.st_size, stat.st_mtime_ns, found

    def save(self) -> None:
        """Write what was learnt, for the next run."""
        if self._changed:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, to_json(self._known))
