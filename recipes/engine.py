"""Where stages run: the one place that chooses an executor, and the local process pool that survives a killed worker.

The pool keeps datatrove's executor interface. Two traps of datatrove's local executor are closed: it waits for ever
when a worker is killed, and its workers write on after their parent was killed. Here a task whose worker died is tried
again, alone, and set aside by name after the second death; a worker ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.memory import HUGE_PAGES

# One thread in every library: float sums are then reduced in one order, whatever the number of workers.
SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ARROW_IO_THREADS": "1",
}
_DEATHS_ALLOWED = 2
_PR_SET_PDEATHSIG = 1


class TaskFailed(Exception):  # noqa: N818  the run stops on it; the name is what the reader sees
    """A task raised an error; its cause is the error from the worker."""


@dataclass
class Outcome:
    """What became of a stage's tasks: ranks done, ranks set aside with the reason, and the time they took."""

    done: list[int] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0  # of the workers for these tasks, compiling of kernels left out


def _end_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, by the kernel on Linux and by a watching thread elsewhere."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _end_with_parent(parent)


class WorkerPool:
    """A pool of single-threaded worker processes that lives as long as the run; started at first use."""

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function in a worker."""
        if self._pool is None:
            self._pool = self._start()
        return self._pool.submit(function, *arguments)

    def _start(self) -> ProcessPoolExecutor:
        os.environ.update(SINGLE_THREAD | HUGE_PAGES)
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, context, _start_worker, (os.getpid(),))

    def restart(self) -> None:
        """Drop a broken pool; the next call starts a new one."""
        self.close()

    def close(self, *, kill: bool = False) -> None:
        """End the workers: after their tasks, or at once."""
        if self._pool is None:
            return
        # Killed first, so that waiting is short: without waiting, the interpreter's own clean-up at exit races with the
        # pool's and may print a traceback about a closed pipe.
        for process in list((self._pool._processes or {}).values()) if kill else ():
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(kill=kind is not None)


def run_tasks(
    pool: WorkerPool,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    on_done: Callable[[int, Any], None],
    may_set_aside: Callable[[BaseException], str | None] = lambda error: None,
) -> Outcome:
    """Call a function for each argument in the pool's workers; results come as they are ready.

    A task whose worker died is called again, alone, so that it cannot take others down; after its second death alone
    it is set aside. An error that `may_set_aside` gives a reason for sets the task aside; any other stops with
    `TaskFailed`.
    """
    outcome = Outcome()
    deaths: dict[int, int] = {}
    queue = list(range(len(arguments)))
    running: dict[Future[Any], int] = {}
    while queue or running:
        alone = bool(queue) and deaths.get(queue[0], 0) > 0
        room = 1 if alone else pool.workers * 2
        while queue and len(running) < room and (not alone or not running):
            if not alone and deaths.get(queue[0], 0) > 0:
                break
            rank = queue.pop(0)
            future = _submitted(pool, function, arguments[rank], others=bool(running))
            if future is None:  # the pool has just broken; what runs in it tells so below
                queue.insert(0, rank)
                break
            running[future] = rank
            if alone:
                break
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        died: list[int] = []
        for future in finished:
            rank = running.pop(future)
            error = future.exception()
            if error is None:
                outcome.done.append(rank)
                on_done(rank, future.result())
            elif isinstance(error, BrokenProcessPool):
                died.append(rank)
            elif reason := may_set_aside(error):
                outcome.set_aside[rank] = reason
                on_done(rank, None)
            else:
                raise TaskFailed(str(error)) from error
        if died:
            died += running.values()
            running.clear()
            pool.restart()
            _requeue(died, deaths, queue, outcome, on_done)
    return outcome


def _submitted(pool: WorkerPool, function: Callable[[Any], Any], argument: Any, *, others: bool) -> Future[Any] | None:
    """A call in the pool; None where a worker has died since and `others` still run. An idle pool is started anew."""
    try:
        return pool.submit(function, argument)
    except BrokenProcessPool:
        if others:
            return None
        pool.restart()
        return pool.submit(function, argument)


def _requeue(
    died: list[int],
    deaths: dict[int, int],
    queue: list[int],
    outcome: Outcome,
    on_done: Callable[[int, Any], None],
) -> None:
    """Put tasks whose worker died at the queue's end, to run alone; set aside those that died too often alone."""
    for rank in sorted(died):
        # The first death may be another task's fault (they share the pool); deaths alone are its own.
        deaths[rank] = deaths.get(rank, 0) + 1
        if deaths[rank] > _DEATHS_ALLOWED:
            outcome.set_aside[rank] = "its worker process died three times (killed, or out of memory)"
            on_done(rank, None)
        else:
            queue.append(rank)


def pool_executor(
    pool: WorkerPool, pipeline: list[Any], tasks: int, logging_dir: Path, on_done: Callable[[int], None]
) -> Any:
    """Datatrove's executor interface over our pool. (Imported late: datatrove costs what `--help` may not.)"""
    from datatrove.executor.base import PipelineExecutor

    class PoolExecutor(PipelineExecutor):  # type: ignore[misc]
        """Runs a pipeline's ranks in the worker pool. Completion is the artifact store's to know, not datatrove's."""

        def __init__(self) -> None:
            super().__init__(pipeline, str(logging_dir), skip_completed=False)

        @property
        def world_size(self) -> int:
            return tasks

        def get_distributed_env(self, node_rank: int = -1) -> Mapping[str, str]:
            return {
                "datatrove_node_ips": "localhost",
                "datatrove_cpus_per_task": "1",
                "datatrove_mem_per_cpu": "0",
                "datatrove_gpus_on_node": "0",
                "datatrove_executor": "gristmill",
            }

        def run(self, may_set_aside: Callable[[BaseException], str | None] = lambda error: None) -> Outcome:
            calls = [(_of_rank(self.pipeline, rank, tasks), str(logging_dir), rank, tasks) for rank in range(tasks)]
            spent: list[float] = []

            def done(rank: int, cpu_seconds: float | None) -> None:
                spent.append(cpu_seconds or 0.0)
                on_done(rank)

            outcome = run_tasks(pool, _run_rank, calls, done, may_set_aside)
            outcome.cpu_seconds = sum(spent)
            return outcome

    return PoolExecutor()


def _of_rank(pipeline: list[Any], rank: int, tasks: int) -> list[Any]:
    """A pipeline for one rank: stages with its own task alone, other steps as they are."""
    return [step.of_rank(rank, tasks) if hasattr(step, "of_rank") else step for step in pipeline]


def _run_rank(call: tuple[list[Any], str, int, int]) -> float:
    """In a worker: run one rank as datatrove would, with its log file and statistics, and nothing on the console.

    Returns:
        CPU seconds that it took, without those of compiling kernels, which no later run spends again.
    """
    from loguru import logger

    from curation.kernel_cache import compile_seconds

    logger.remove()  # its first sink is the console, where only the parent speaks
    pipeline, logging_dir, rank, tasks = call
    executor = pool_executor(_NO_POOL, pipeline, tasks, Path(logging_dir), lambda _: None)
    said = io.StringIO()
    try:
        # datatrove puts errors on the console too; they are in its log
        with contextlib.redirect_stderr(said), compile_seconds() as compiling:
            started = time.process_time()
            executor._run_for_rank(rank, local_rank=1)
            return max(0.0, time.process_time() - started - sum(compiling))
    finally:
        logger.remove()
        with contextlib.suppress(OSError):  # the task's own error matters more
            if told := said.getvalue():
                (Path(logging_dir) / "logs" / f"task_{rank:05d}.stderr").write_text(told, encoding="utf-8")


_NO_POOL = WorkerPool(1)
