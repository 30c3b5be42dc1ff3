"""Runs that are killed at random moments and run again leave the bytes of a run that nobody killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest


def records(workdir):
    """How many tasks are whole."""
    return sum(1 for path in workdir.glob("*-*/*.json") if path.name != "run.json")


def children_of(pid):
    """Processes below a process, by the kernel's list."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *children_of(child)]
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers_of(pid):
    """The pool's processes: those that multiprocessing spawned to work."""
    return [child for child in children_of(pid) if "spawn_main" in command_line(child)]


def wait_until(true, seconds=120.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_when(process, reached, delay_s=0.0):
    """Kill a run's parent once something is reached; return the processes it had. A run that ends before is left."""
    wait_until(lambda: reached() or process.poll() is not None)
    time.sleep(delay_s)
    below = children_of(process.pid)
    process.kill()
    process.communicate()
    return below


def written(workdir):
    """Sizes and times of all files."""
    stats = [(path, path.stat()) for path in sorted(workdir.rglob("*")) if path.is_file()]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def leftovers(workdir):
    """Files under private names, beside those of a manifest that was being written."""
    return [path.name for path in workdir.glob("*-*/*.tmp") if not path.name.startswith("manifest-")]


def assert_resumed(workdir, wanted, contents):
    found = contents(workdir)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert leftovers(workdir) == []


def test_parent_killed_five_times_leaves_the_same_bytes(gristmill, start, finished, small, tmp_path, contents):
    """Five kills and a Ctrl-C in one work directory, by one worker; the run that nobody stopped had two."""
    recipe, workdir, chance = small(), tmp_path / "work", random.Random(20_11)
    total = records(finished.workdir)
    for number in sorted(chance.sample(range(1, total - 12), 5)):
        process = start("run", recipe, "--until", "plan")
        below = kill_when(process, lambda n=number: records(workdir) >= n, chance.random() * 0.2)
        assert_all_ended(below, workdir)
    process = start("run", recipe, "--until", "plan", start_new_session=True)
    wait_until(lambda: records(workdir) > number + 1)
    below = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the parent and to the workers
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "the same command continues" in said
    assert_all_ended(below, workdir)
    gristmill("run", recipe, "--until", "plan")
    assert_resumed(workdir, contents(finished.workdir), contents)


def assert_all_ended(pids, workdir):
    """Processes end by themselves, and nobody writes on."""
    wait_until(lambda: not any(map(is_alive, pids)), 10)
    before = written(workdir)
    time.sleep(0.2)
    assert written(workdir) == before


def test_killed_worker_is_replaced(start, finished, small, tmp_path, contents):
    workdir = tmp_path / "work"
    process = start("run", small(workers=2), "--until", "gopher")
    kill_worker(process, lambda: records(workdir) >= 5)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_begun(workdir, finished, contents)


def kill_worker(process, reached, delay_s=0.0):
    """Kill one of a run's workers once something is reached."""
    wait_until(lambda: (reached() and workers_of(process.pid)) or process.poll() is not None)
    time.sleep(delay_s)
    for pid in workers_of(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)


def test_two_runs_at_once_wait_for_each_other(start, finished, small, tmp_path, contents):
    recipe = small(workers=1)
    first, second = (start("run", recipe, "--until", "gopher") for _ in range(2))
    said = [process.communicate(timeout=300)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert_begun(tmp_path / "work", finished, contents)


def assert_begun(workdir, finished, contents):
    """A run up to the decisions has made the bytes that the finished run has of them, and left nothing else."""
    found, wanted = contents(workdir), contents(finished.workdir)
    assert any(name.startswith("en.decisions-") for name in found)
    assert found.items() <= wanted.items()
    assert leftovers(workdir) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_small_run_killed_at_any_moment_leaves_the_same_bytes(
    gristmill, start, finished, small, tmp_path, contents, seed
):
    recipe, chance = small(workers=2), random.Random(seed)
    process, moment = start("run", recipe, "--until", "plan"), time.monotonic() + chance.random() * 8
    kill_when(process, lambda: time.monotonic() > moment)
    gristmill("run", recipe, "--until", "plan")
    assert_resumed(tmp_path / "work", contents(finished.workdir), contents)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_again_and_again_are_replaced(start, finished, small, tmp_path, contents, seed):
    workdir, chance = tmp_path / "work", random.Random(seed)
    process = start("run", small(workers=2), "--until", "plan")
    for number in sorted(chance.sample(range(records(finished.workdir) - 8), 4)):
        kill_worker(process, lambda n=number: records(workdir) >= n, chance.random() * 0.1)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_resumed(workdir, contents(finished.workdir), contents)
