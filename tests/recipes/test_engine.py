"""The process pool: tasks whose worker is killed, errors, children that end with their parent."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from curation.stage import StageStep, Task
from recipes.engine import SINGLE_THREAD, TaskFailed, WorkerPool, pool_executor, run_tasks


def square(number):
    return number * number


def die_once(place):
    path = Path(place)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def die_if_odd(number):
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number):
    if number == 3:
        raise ValueError("three is refused")
    return number


def thread_limits(_):
    return {name: os.environ.get(name) for name in SINGLE_THREAD}


def large_pages(_):
    return os.environ.get("GLIBC_TUNABLES")


def results_of(function, arguments, workers=2, **options):
    results = {}
    with WorkerPool(workers) as pool:
        outcome = run_tasks(pool, function, arguments, results.__setitem__, **options)
    return outcome, results


class SentPool:
    """Stands for a pool: notes how many bytes each call is, and does it here."""

    workers = 4

    def __init__(self):
        self.sizes_bytes, self.tasks = [], []

    def submit(self, function, call):
        stored = pickle.dumps(call)
        (step,), _, rank, tasks = pickle.loads(stored)
        self.sizes_bytes.append(len(stored))
        list(step.run(None, rank, tasks))
        future = Future()
        future.set_result(0.0)
        return future


class Kept:
    """Where a task writes, in a test: nowhere."""

    def held(self):
        return contextlib.nullcontext()

    def commit(self, counts):
        pass


def note(inputs, options, output):
    with Path(options).open("a") as noted:
        noted.write(f"{inputs}\n")
    return {}


def test_worker_is_sent_its_own_task_however_many_there_are(tmp_path):
    sizes_bytes = []
    for number in (3, 300):
        pool, noted = SentPool(), tmp_path / f"noted{number}"
        tasks = [Task(f"task {n:03}", f"shard {n:03}", Kept()) for n in range(number)]
        step = StageStep("a stage", note, str(noted), tasks)
        pool_executor(pool, [step], number, tmp_path / "logs", lambda _: None).run()
        assert sorted(noted.read_text().splitlines()) == [task.inputs for task in tasks]
        sizes_bytes.append(max(pool.sizes_bytes))
    assert sizes_bytes[1] < sizes_bytes[0] + 20


def test_all_tasks_are_done_and_told_once():
    outcome, results = results_of(square, range(20))
    assert sorted(outcome.done) == list(range(20))
    assert results == {n: n * n for n in range(20)}


def test_task_whose_worker_was_killed_is_tried_again(tmp_path):
    outcome, results = results_of(die_once, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert sorted(outcome.done) == [0, 1]
    assert results == {0: "a", 1: "b"}


def test_task_that_always_kills_its_worker_is_set_aside_and_the_others_are_done():
    outcome, _ = results_of(die_if_odd, [0, 2, 5, 4, 6])
    assert sorted(outcome.done) == [0, 1, 3, 4]
    assert list(outcome.set_aside) == [2]
    assert "died three times" in outcome.set_aside[2]


def test_error_in_a_task_stops_with_its_message():
    with pytest.raises(TaskFailed, match="three is refused"):
        results_of(refuse, range(5), workers=1)


def test_error_that_may_be_set_aside_does_not_stop():
    outcome, _ = results_of(refuse, range(5), may_set_aside=lambda error: str(error))
    assert outcome.set_aside == {3: "three is refused"}
    assert sorted(outcome.done) == [0, 1, 2, 4]


def test_workers_have_one_thread_in_every_library():
    _, results = results_of(thread_limits, [0])
    assert results[0] == SINGLE_THREAD


def test_workers_ask_for_large_pages():
    _, results = results_of(large_pages, [0])
    assert results == {0: os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}


SLEEPER = """
import sys, time
from pathlib import Path
from recipes.engine import WorkerPool, run_tasks
def write_for_ever(path):
    for n in range(600):
        Path(path).write_text(str(n)); time.sleep(0.05)
if __name__ == "__main__":
    with WorkerPool(1) as pool:
        run_tasks(pool, write_for_ever, [sys.argv[1]], lambda *_: None)
"""


def test_worker_ends_when_its_parent_is_killed(tmp_path):
    script, written = tmp_path / "sleeper.py", tmp_path / "written"
    script.write_text(SLEEPER)
    parent = subprocess.Popen([sys.executable, str(script), str(written)])
    deadline = time.monotonic() + 20
    while not written.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    time.sleep(0.5)
    last = written.read_text()
    time.sleep(0.5)
    assert written.read_text() == last


class BreaksOnSubmit(WorkerPool):
    """A pool of which a worker died unseen: the n-th call to it is refused, as a broken pool refuses."""

    def __init__(self, refuses: int) -> None:
        super().__init__(1)
        self.calls, self.refuses, self.restarts = 0, refuses, 0

    def submit(self, function, *arguments):
        self.calls += 1
        if self.calls == self.refuses:
            raise BrokenProcessPool("a worker died while the pool was idle")
        return super().submit(function, *arguments)

    def restart(self) -> None:
        self.restarts += 1
        super().restart()


@pytest.mark.parametrize("refuses", [1, 2])
def test_pool_that_breaks_between_two_calls_loses_no_task(refuses):
    results = {}
    with BreaksOnSubmit(refuses) as pool:
        outcome = run_tasks(pool, square, range(4), results.__setitem__)
    assert results == {n: n * n for n in range(4)}
    assert outcome.set_aside == {}
    assert pool.restarts == (1 if refuses == 1 else 0)
