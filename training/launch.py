"""Starting a training: a supervisor of the processes that train, and the processes' own entry.

    python -P -m training.launch --spec spec.json                  one process, or one of torchrun's
    launch("spec.json", processes=2)                               N processes on this machine, watched

The supervisor imports no torch. It ends all processes when one dies, when no train step comes for too long, and (by the
kernel, on Linux) when it dies itself. Exit codes: `training.exits.Exit`.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.exits import Exit

Progress = Callable[[Mapping[str, Any]], None]
# Grace between SIGTERM and SIGKILL: a train step and a checkpoint have to fit.
GRACE_S = 120.0
POLL_S = 0.1
# glibc gives large tensors back to the kernel and faults them in again, page by page, a quarter of a train step on a
# CPU (1.25 times the tokens a second at 15M parameters). A training asks for the same sizes every step: it keeps them.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": os.environ.get("MALLOC_MMAP_MAX_", "0"),
    "MALLOC_TRIM_THRESHOLD_": os.environ.get("MALLOC_TRIM_THRESHOLD_", str(1 << 40)),
}


def launch(
    spec_path: str | Path,
    processes: int = 1,
    *,
    progress: Progress | None = None,
    stall_s: float = 900.0,
    restarts: int = 0,
    grace_s: float = GRACE_S,
) -> Exit:
    """Train on this machine and wait for the end.

    Args:
        spec_path: a `training.spec.TrainSpec` as JSON.
        processes: how many; one a GPU, or as many as share the CPU's cores.
        progress: called with status.json's content when it changes.
        stall_s: seconds without a train step, evaluation or checkpoint after which all are ended.
        restarts: how often to start again, from the newest checkpoint, after a lost or stalled process.
        grace_s: seconds that processes have to save after SIGTERM or SIGINT.

    Returns:
        How it ended. Each process's output is in `<folder>/rank-00000.log` and so on.
    """
    folder = Path(json.loads(Path(spec_path).read_text())["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(Path(spec_path), folder, processes, progress, stall_s, grace_s)
    with _told_to_stop() as told:
        ended = _once(run, told)
        while ended in (Exit.RANK_LOST, Exit.STALLED) and restarts > 0 and not told:
            restarts -= 1
            ended = _once(run, told)
    return ended


@dataclass(frozen=True)
class Run:
    """What `launch` was asked for."""

    spec_path: Path
    folder: Path
    processes: int
    progress: Progress | None
    stall_s: float
    grace_s: float


def _once(run: Run, told: list[int]) -> Exit:
    (run.folder / "status.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gristmill-") as meeting:
        started = [_start(run, rank, Path(meeting) / "processes") for rank in range(run.processes)]
        try:
            return _watch(run, started, told)
        finally:
            _end(started)


def _start(run: Run, rank: int, meeting: Path) -> subprocess.Popen[bytes]:
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": run.processes,
        "LOCAL_WORLD_SIZE": run.processes,
        "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
        "GRISTMILL_MEETING_FILE": meeting,
        "GRISTMILL_SUPERVISOR": os.getpid(),
        # Waiting threads that spin slow a shared machine down sixfold.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        **KEEP_MEMORY,
    }
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    # The package may lie in no site folder (a checkout): children find what the parent found.
    root = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "training.launch", "--spec", str(run.spec_path)]
    with (run.folder / f"rank-{rank:05d}.log").open("ab") as log:
        # Their own session: Ctrl-C reaches the supervisor alone, which passes it on once.
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT while the processes run (in the main thread; elsewhere nothing is collected)."""
    told: list[int] = []
    try:
        before = {
            number: signal.signal(number, lambda n, _: told.append(n)) for number in (signal.SIGTERM, signal.SIGINT)
        }
    except ValueError:
        yield told
        return
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(run: Run, started: list[subprocess.Popen[bytes]], told: list[int]) -> Exit:
    last, alive_since, passed_on = None, time.monotonic(), None
    while True:
        codes = [process.poll() for process in started]
        status = _status(run.folder)
        if status is not None and status != last:
            last, alive_since = status, time.monotonic()
            if run.progress is not None:
                run.progress(status)
        failed = [code for code in codes if code not in (None, Exit.DONE, Exit.REQUEUE)]
        if failed:
            return _reason(started, failed)
        if all(code is not None for code in codes):
            return Exit(max(codes))
        if told and passed_on is None:
            passed_on = time.monotonic()
            for process in started:
                process.send_signal(signal.SIGTERM)
        if passed_on is not None and (time.monotonic() - passed_on > run.grace_s or len(told) > 1):
            return Exit.RANK_LOST
        if time.monotonic() - alive_since > run.stall_s:
            return Exit.STALLED
        time.sleep(POLL_S)


def _reason(started: list[subprocess.Popen[bytes]], failed: list[int]) -> Exit:
    """Why it failed: the most telling code of all processes; the others are given a moment to fail as well."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and any(process.poll() is None for process in started):
        time.sleep(POLL_S)
    codes = {process.poll() for process in started}
    for telling in (Exit.NO_SPACE, Exit.DIVERGED, Exit.SPIKED):
        if telling in codes:
            return telling
    return Exit.RANK_LOST if any(code is not None and code < 0 for code in codes) else Exit.ERROR


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            process.kill()
    for process in started:
        process.wait()


def _status(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Be one process of a training; returns the exit code."""
    parser = argparse.ArgumentParser(prog="training.launch", description="One process of a training.")
    parser.add_argument("--spec", required=True, help="training.spec.TrainSpec as JSON")
    options = parser.parse_args(arguments)
    from training.watch import DivergedError, SpikeError, end_with_parent

    if "GRISTMILL_SUPERVISOR" in os.environ:
        end_with_parent(int(os.environ["GRISTMILL_SUPERVISOR"]))
    from training.spec import load

    spec = load(options.spec)
    # Before torch is imported: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(spec.execution.threads)
    from training.trainer import run_training

    try:
        return run_training(spec)
    except DivergedError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.DIVERGED
    except SpikeError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.SPIKED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"{error}\n")
        return Exit.NO_SPACE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's teardown: its order is not safe with process groups, and all is written.
    os._exit(code)
