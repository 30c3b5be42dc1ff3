"""Planned stages and how one is made: what is missing is computed, what is there is reused.

A stage's key and the names of its tasks are known before anything runs, so a whole run can be shown without running it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.kernel_cache import compiled_kernels, kernels_folder
from mixing.tokenizer_files import SETTINGS
from recipes.artifacts import LAST_MAKING, StageFolder, Store, checksum, key_of, to_json, write_atomically
from recipes.engine import TaskFailed, WorkerPool, pool_executor
from recipes.errors import RunError
from recipes.progress import Narrator, amount_of, several

_COMPILING = "  compiling kernels, once per machine and version of gristmill; the next run finds them"
_LOOK_EVERY_S = 10.0  # for kernels that were compiled meanwhile


@dataclass(frozen=True)
class PlannedTask:
    """A task of a planned stage: its name and its plain inputs."""

    name: str
    inputs: Any


@dataclass(frozen=True)
class PlannedStage:
    """A stage that is to be there: what it does, to what, and where its artifacts lie.

    Attributes:
        title: what a person reads, such as `web_de signals`.
        verb: the part of the run it belongs to (`curate`, `tokenize`, …); `--until` stops after one.
        folder: where it lies, by its key.
        work: module-level function (inputs, options, output) -> counts.
        options: the work's options.
        tasks: its tasks.
        check: looks at the counts when the stage is whole and may refuse to go on.
        sets_aside: an error in one task does not stop the others; the stage then ends with `TasksSetAside`.
        serves: names of the recipe's steps that it is for; `--until` may stop after the last that serves one.
    """

    title: str
    verb: str
    folder: StageFolder
    work: Callable[..., Any]
    options: Any
    tasks: tuple[PlannedTask, ...]
    check: Callable[[Mapping[str, Any]], None] | None = field(default=None, compare=False)
    sets_aside: bool = False
    serves: tuple[str, ...] = ()

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, in order."""
        return [task.name for task in self.tasks]

    def missing(self) -> list[str]:
        """Names of the tasks that are not whole."""
        return self.folder.missing(self.task_names)

    def file(self, task: str, suffix: str) -> str:
        """Path of a task's file."""
        return str(self.folder.file(task, suffix))

    def read_json(self, task: str, suffix: str) -> Any:
        """What a task's JSON file holds."""
        return json.loads(self.folder.file(task, suffix).read_text(encoding="utf-8"))

    def counts(self) -> dict[str, Any]:
        """Counts of all tasks, numbers added up."""
        return add_counts([(self.folder.record(task) or {"counts": {}})["counts"] for task in self.task_names])


def add_counts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of several tasks as one: numbers are added, anything else is the last task's."""
    total: Counter[str] = Counter()
    others: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                total[name] += value  # type: ignore[assignment]
            else:
                others[name] = value
    return {**others, **dict(sorted(total.items()))}


def options_that_count(options: Any) -> Any:
    """The options as plain values for a key: a field equal to its default is left out, a path becomes its content.

    So an option that is added later changes no key while it has its default, and a model file counts by what is in it.
    """
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        counted: dict[str, Any] = {"": type(options).__name__}
        for part in dataclasses.fields(options):
            value = getattr(options, part.name)
            if part.default is not dataclasses.MISSING and value == part.default:
                continue
            counted[part.name] = _KEY_OF_CONTENT.get(part.metadata.get("content"), options_that_count)(value)
        return counted
    if isinstance(options, Mapping):
        return {str(name): options_that_count(value) for name, value in options.items()}
    if isinstance(options, list | tuple):
        return [options_that_count(value) for value in options]
    return options


def content_key(path: str | None) -> str | None:
    """What a model file or folder holds, for a key. A file is read once a process, unless its size or time changes."""
    if path is None:
        return None
    place = Path(path)
    if place.is_dir():
        files = [file for file in sorted(place.rglob("*")) if file.is_file()]
        return key_of([(file.relative_to(place).as_posix(), _checksum_of(file)) for file in files])
    return _checksum_of(place)


def tokenizer_key(path: str | None) -> str | None:
    """What a tokenizer holds, for a key: its folder, or its file and settings beside it, which name special tokens."""
    beside = [] if path is None or Path(path).is_dir() else [Path(path).parent / name for name in SETTINGS]
    settings = [(file.name, _checksum_of(file)) for file in beside if file.is_file()]
    return key_of(content_key(path), settings) if settings else content_key(path)


# How a field of a stage's options counts that names a file, by the field's `content`.
_KEY_OF_CONTENT: dict[Any, Callable[[Any], Any]] = {True: content_key, "tokenizer": tokenizer_key}


def _checksum_of(file: Path) -> str:
    status = file.stat()
    return _read_once(file, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _read_once(file: Path, *_: int) -> str:
    """Checksum of a file: each source names the model that scores it, which may have gigabytes."""
    return checksum(file)


def plan_stage(store: Store, kind: str, key_parts: Sequence[object], **parts: Any) -> PlannedStage:
    """A planned stage in its folder. `key_parts` are plain values and options that made it."""
    key = key_of(kind, *[options_that_count(part) for part in key_parts])
    names = [task.name for task in parts["tasks"]]
    return PlannedStage(folder=store.stage(kind, key, names), **parts)


class TasksSetAside(RunError):  # noqa: N818
    """A stage could not make some of its tasks: (name, reason) of each. The others are kept."""

    def __init__(self, title: str, total: int, tasks: list[tuple[str, str]]) -> None:
        lines = "\n".join(f"  {name}: {reason}" for name, reason in tasks)
        super().__init__(
            f"{title}: {len(tasks)} of {total} tasks could not be made; the others are kept:\n{lines}\n"
            "The same command tries them again; fewer `execution.workers` need less memory."
        )
        self.tasks = tasks


def make_stage(
    stage: PlannedStage, pool: WorkerPool, narrator: Narrator, logs: Path, *, checks: bool = True
) -> dict[str, Any]:
    """Make what is missing of a stage and return its counts. A whole stage is only read. `checks`: may refuse them."""
    if not stage.missing():
        counts = _finish(stage, checks)
        narrator.reused(stage.title, amount_of(counts))
        return counts
    if stage.folder.read_only:
        raise RunError(f"{stage.folder.path}: a read-only store lost a stage while it was in use")
    started = time.monotonic()
    with held(narrator, stage.folder.path, stage.title):
        missing = set(stage.missing())
        kernels = kernels_folder()
        before = compiled_kernels(kernels)
        if not before:
            narrator.say_once(_COMPILING)
        if missing:
            with compiling_told(narrator, stage.title, kernels, before):
                _run_missing(stage, [t for t in stage.tasks if t.name in missing], pool, narrator, logs)
        counts = _finish(stage, checks)
    compiled = compiled_kernels(kernels) - before
    note = f", {several(compiled, 'kernel')} compiled on the way" if compiled else ""
    narrator.made(stage.title, amount_of(counts), time.monotonic() - started, note)
    return counts


@contextlib.contextmanager
def compiling_told(
    narrator: Narrator, title: str, kernels: Path, before: int, every_s: float = _LOOK_EVERY_S
) -> Iterator[None]:
    """Say while a stage lasts that it compiles kernels, and without a terminal how many it has compiled so far."""
    ended = threading.Event()

    def look() -> None:
        told = before
        while not ended.wait(every_s):
            there = compiled_kernels(kernels)
            if there == told:
                continue
            narrator.say_once(_COMPILING)
            if not narrator.console.is_terminal:
                narrator.say(f"  {title:<38} {several(there - before, 'kernel')} compiled so far")
            told = there

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


@contextlib.contextmanager
def held(narrator: Narrator, folder: Path, title: str) -> Iterator[None]:
    """Be the only run that makes an artifact; waits for another one, and says so."""

    def waiting(why: str) -> None:
        narrator.say(f"  {title}: {why}")

    with StageFolder(folder).locked(waiting):
        yield


def _run_missing(
    stage: PlannedStage, todo: list[PlannedTask], pool: WorkerPool, narrator: Narrator, logs: Path
) -> None:
    from curation.stage import StageStep, Task

    tasks = [Task(task.name, task.inputs, stage.folder.output(task.name)) for task in todo]
    step = StageStep(stage.title, stage.work, stage.options, tasks)
    started = time.time()
    with narrator.bar(stage.title, len(tasks)) as advance:
        executor = pool_executor(pool, [step], len(tasks), logs / stage.folder.name, lambda _: advance(1))
        try:
            outcome = executor.run(_any_error if stage.sets_aside else _unreadable)
        except TaskFailed as error:
            error.add_note(f"in {stage.title}; the whole error is in {logs / stage.folder.name / 'logs'}")
            raise
    stage.folder.remove_leftovers()  # of workers that were killed on the way
    aside = [(todo[rank].name, reason) for rank, reason in sorted(outcome.set_aside.items())]
    # Times, host and versions go beside the artifacts, never into them.
    told = {
        "started": started,
        "seconds": time.time() - started,
        "cpu_seconds": outcome.cpu_seconds,
        "host": platform.node(),
        "process": os.getpid(),
        "workers": min(pool.workers, len(todo)),
        "tasks": [task.name for rank, task in enumerate(todo) if rank not in outcome.set_aside],
        "set_aside": dict(aside),
    }
    write_atomically(stage.folder.path / LAST_MAKING, to_json(told))
    if aside:
        raise TasksSetAside(stage.title, len(stage.tasks), aside)


def _unreadable(error: BaseException) -> str | None:
    """Why a shard may be set aside: it cannot be read at all. Any other error stops the run."""
    from curation.source import UnreadableShard

    return str(error) if isinstance(error, UnreadableShard) else None


def _any_error(error: BaseException) -> str | None:
    """Why a task of which others are independent is set aside: in the error's words. A full disk stops all."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return None
    return f"{type(error).__name__}: {error}"


def _finish(stage: PlannedStage, checks: bool) -> dict[str, Any]:
    """Write the stage's manifest and look at what it counts."""
    if not stage.folder.read_only:
        stage.folder.finish(stage.task_names)
    counts = stage.counts()
    if checks and stage.check is not None:
        stage.check(counts)
    return counts
