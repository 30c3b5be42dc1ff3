"""Processes that train, seen from outside: started, watched, asked to stop, ended, and how they ended. No torch."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.exits import MOST_TELLING, Exit
from training.memory import HUGE_PAGES

Progress = Callable[[Mapping[str, Any]], None]
# Grace between SIGTERM and SIGKILL: a train step and a checkpoint have to fit.
GRACE_S = 120.0
POLL_S = 0.1
# The signal on which a process writes its stacks, and the time it has for it.
STACKS = signal.SIGUSR2
STACKS_S = 1.0
# Characters of a log's line that a cause repeats.
MOST_WORDS = 2000
RESERVED_BYTES = 8192
# glibc gives large tensors back to the kernel and faults them in again, page by page, a quarter of a train step on a
# CPU (1.25 times the tokens a second at 15M parameters). A training asks for the same sizes every step: it keeps them.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": os.environ.get("MALLOC_MMAP_MAX_", "0"),
    "MALLOC_TRIM_THRESHOLD_": os.environ.get("MALLOC_TRIM_THRESHOLD_", str(1 << 40)),
    **HUGE_PAGES,
}


@dataclass(frozen=True)
class Run:
    """Processes of a training that one supervisor starts.

    Attributes:
        spec_path: what they train.
        folder: where it is logged.
        ranks: theirs.
        progress: called with status.json's content when it changes.
        stall_s: seconds without a sign of life after which all are ended; infinite where they watch themselves.
        grace_s: seconds that they have to save when they are told to stop.
    """

    spec_path: Path
    folder: Path
    ranks: range
    progress: Progress | None
    stall_s: float
    grace_s: float

    @property
    def end_path(self) -> Path:
        """Where it is told how they ended; each supervisor of a training has a file of its own."""
        first = self.ranks[0]
        return self.folder / (f"ended-{first:05d}.json" if first else "ended.json")


def place_of(run: Run, rank: int, meeting: Path) -> dict[str, Any]:
    """The environment that tells a process of one machine its place; `meeting` is the file they meet in."""
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": len(run.ranks),
        "LOCAL_WORLD_SIZE": len(run.ranks),
        "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
        "GRISTMILL_MEETING_FILE": meeting,
        "GRISTMILL_WATCHED": 1,
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }


def start(run: Run, rank: int, place: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to `rank-*.log`; `place` is what its environment tells it of its place."""
    own = {
        "GRISTMILL_SUPERVISOR": os.getpid(),
        # Waiting threads that spin slow a shared machine down sixfold.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        **KEEP_MEMORY,
    }
    environment = {**os.environ, **{name: str(value) for name, value in {**own, **place}.items()}}
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
def told_to_stop() -> Iterator[list[int]]:
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


def watch(run: Run, started: list[subprocess.Popen[bytes]], told: list[int]) -> Exit:
    """Wait for processes to end, and tell how they did; `told` collects signals, which are passed on once."""
    last, alive_since, passed_on = None, time.monotonic(), None
    while True:
        codes = [process.poll() for process in started]
        status = None if run.progress is None and math.isinf(run.stall_s) else read_status(run.folder)
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
    if any(code is not None and code < 0 for code in codes):  # killed; what it does to the others tells nothing
        codes = codes - {Exit.STALLED, Exit.ERROR} | {Exit.RANK_LOST}
    return next((telling for telling in MOST_TELLING if telling in codes), Exit.ERROR)


def causes_of(run: Run, started: list[subprocess.Popen[bytes]], ended: Exit) -> list[str]:
    """What the processes have to do with a bad end, and the last words of one that failed by itself."""
    causes = [cause for rank, process in zip(run.ranks, started) if (cause := _cause(rank, process, ended))]
    failed = [rank for rank, one in zip(run.ranks, started) if (one.poll() or 0) > 0 and one.poll() != Exit.REQUEUE]
    return causes + _last_words(run, failed)


def _cause(rank: int, process: subprocess.Popen[bytes], ended: Exit) -> str | None:
    """What a process has to do with a bad end, or None."""
    code = process.poll()
    if code is None:
        if ended is Exit.STALLED and _state(process.pid) in ("T", "t"):
            return f"rank {rank} (process {process.pid}) was stopped by a signal (SIGSTOP)"
        return None
    if code < 0:
        name = signal.Signals(-code).name
        return f"rank {rank} was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"rank {rank} ended with {_named(code)}" if code not in (Exit.DONE, Exit.REQUEUE) else None


def _last_words(run: Run, ranks: list[int]) -> list[str]:
    """The last line of the first log that has one, of processes that failed by themselves."""
    for rank in ranks:
        lines = (run.folder / f"rank-{rank:05d}.log").read_text(errors="replace").strip().splitlines()
        if lines:
            return [lines[-1][:MOST_WORDS]]
    return []


def _named(code: int) -> str:
    return Exit(code).name if code in {int(one) for one in Exit} else f"exit code {code}"


def _state(process: int) -> str:
    """A process's state letter (Linux; elsewhere empty)."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return ""


def dump_stacks(started: list[subprocess.Popen[bytes]]) -> None:
    """Have every process write the stacks of its threads to its log; one that is stopped goes on for it."""
    for process in started:
        if process.poll() is None:
            process.send_signal(STACKS)
            process.send_signal(signal.SIGCONT)
    time.sleep(STACKS_S)


def reserve_end(run: Run) -> None:
    """Take the room of ended.json beforehand: a full disk may be what it has to tell."""
    run.end_path.with_suffix(".json.tmp").write_text(" " * RESERVED_BYTES)


def note_end(run: Run, ended: Exit, causes: list[str]) -> None:
    """Write how it ended beside status.json, for whoever is on call."""
    found = {
        "exit": ended.name,
        "code": int(ended),
        "cause": "; ".join(causes),
        "host": platform.node(),
        "time_s": time.time(),
        "tokens": (read_status(run.folder) or {}).get("tokens"),
    }
    try:
        reserved = run.end_path.with_suffix(".json.tmp")
        with reserved.open("r+") as file:
            file.write(_within(found, RESERVED_BYTES))
            file.truncate()
        reserved.replace(run.end_path)
    except OSError as error:
        sys.stderr.write(f"{run.end_path}: {error}\n")


def _within(found: dict[str, Any], size_bytes: int) -> str:
    """JSON of how it ended, with as much of the cause as there is room for."""
    told = json.dumps(found, sort_keys=True)
    while len(told) > size_bytes:
        found = {**found, "cause": found["cause"][: len(found["cause"]) // 2].rstrip("…") + "…"}
        told = json.dumps(found, sort_keys=True)
    return told


def end_all(started: list[subprocess.Popen[bytes]]) -> None:
    """Kill what still runs, and wait for it."""
    for process in started:
        if process.poll() is None:
            process.kill()
    for process in started:
        process.wait()


def read_status(folder: Path) -> dict[str, Any] | None:
    """What a training last said of itself; None before it has, and where a network's file system loses sight of it."""
    try:
        return json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return None


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, dies (Linux; elsewhere a no-op)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)
