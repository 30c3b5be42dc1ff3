"""Starting a training: a supervisor of the processes that train, and the processes' own entry.

    python -P -m training.launch --spec spec.json                  one process, or one of torchrun's
    launch("spec.json", processes=2)                               N processes on this machine, watched

The supervisor imports no torch. It ends all processes when one dies, when no train step comes for too long, and (by the
kernel, on Linux) when it dies itself. Exit codes: `training.exits.Exit`.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import json
import os
import platform
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
# The signal on which a process writes its stacks, and the time it has for it.
STACKS = signal.SIGUSR2
STACKS_S = 1.0
# Characters of a log's line that a cause repeats.
MOST_WORDS = 2000
RESERVED_END, RESERVED_BYTES = "ended.json.tmp", 8192
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
    say: Callable[[str], None] = lambda text: None,
) -> Exit:
    """Train on this machine and wait for the end.

    Args:
        spec_path: a `training.spec.TrainSpec` as JSON.
        processes: how many; one a GPU, or as many as share the CPU's cores.
        progress: called with status.json's content when it changes.
        stall_s: seconds without a train step, evaluation or checkpoint after which all are ended.
        restarts: how often in a row to start again, from the newest checkpoint, after a lost or stalled process; a new
            checkpoint begins the count anew.
        grace_s: seconds that processes have to save after SIGTERM or SIGINT.
        say: told when all are started again, and why.

    Returns:
        How it ended. Each process's output is in `<folder>/rank-00000.log` and so on.
    """
    spec = json.loads(Path(spec_path).read_text())
    folder = Path(spec["folder"])
    checkpoints = Path(spec.get("checkpoints_folder") or folder / "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(Path(spec_path), folder, processes, progress, stall_s, grace_s)
    with _told_to_stop() as told:
        ended, left, newest = _once(run, told), restarts, 0
        while ended in (Exit.RANK_LOST, Exit.STALLED) and not told:
            reached = _newest_step(checkpoints)
            left = restarts if reached > newest else left
            if left == 0:
                break
            left, newest = left - 1, reached
            where = f"the checkpoint of train step {reached}" if reached else "the beginning"
            say(f"{_cause_of_end(folder)}; started again from {where}, {left} restarts left without a new checkpoint")
            ended = _once(run, told)
    return ended


def _cause_of_end(folder: Path) -> str:
    try:
        return json.loads((folder / "ended.json").read_text())["cause"]
    except OSError:
        return "ended"


def _newest_step(checkpoints: Path) -> int:
    return max((int(path.parent.name.split("-")[1]) for path in checkpoints.glob("step-*/manifest.json")), default=0)


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
    for name in ("status.json", "ended.json", "preflight.json"):
        (run.folder / name).unlink(missing_ok=True)
    _reserve_end(run)
    with tempfile.TemporaryDirectory(prefix="gristmill-") as meeting:
        started = [_start(run, rank, Path(meeting) / "processes") for rank in range(run.processes)]
        ended, causes = Exit.ERROR, [""]
        try:
            ended = _watch(run, started, told)
            causes = [cause for rank, process in enumerate(started) if (cause := _cause(rank, process, ended))]
            failed = [rank for rank, one in enumerate(started) if (one.poll() or 0) not in (0, Exit.REQUEUE)]
            causes += _last_words(run, [rank for rank in failed if started[rank].returncode > 0])
            if ended is Exit.STALLED:
                _dump_stacks(started)
            return ended
        finally:
            _end(started)
            _note_end(run, ended, causes)


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
    for telling in (Exit.NO_SPACE, Exit.DIVERGED, Exit.SPIKED, Exit.UNFIT, Exit.RANK_LOST):
        if telling in codes:
            return telling
    return Exit.RANK_LOST if any(code is not None and code < 0 for code in codes) else Exit.ERROR


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


def _dump_stacks(started: list[subprocess.Popen[bytes]]) -> None:
    """Have every process write the stacks of its threads to its log; one that is stopped goes on for it."""
    for process in started:
        if process.poll() is None:
            process.send_signal(STACKS)
            process.send_signal(signal.SIGCONT)
    time.sleep(STACKS_S)


def _reserve_end(run: Run) -> None:
    """Take the room of ended.json beforehand: a full disk may be what it has to tell."""
    (run.folder / RESERVED_END).write_text(" " * RESERVED_BYTES)


def _note_end(run: Run, ended: Exit, causes: list[str]) -> None:
    """Write how it ended beside status.json, for whoever is on call."""
    found = {
        "exit": ended.name,
        "code": int(ended),
        "cause": "; ".join(causes),
        "host": platform.node(),
        "time_s": time.time(),
        "tokens": (_status(run.folder) or {}).get("tokens"),
    }
    try:
        reserved = run.folder / RESERVED_END
        with reserved.open("r+") as file:
            file.write(_within(found, RESERVED_BYTES))
            file.truncate()
        reserved.replace(run.folder / "ended.json")
    except OSError as error:
        sys.stderr.write(f"{run.folder / 'ended.json'}: {error}\n")


def _within(found: dict[str, Any], size_bytes: int) -> str:
    """JSON of how it ended, with as much of the cause as there is room for."""
    told = json.dumps(found, sort_keys=True)
    while len(told) > size_bytes:
        found = {**found, "cause": found["cause"][: len(found["cause"]) // 2].rstrip("…") + "…"}
        told = json.dumps(found, sort_keys=True)
    return told


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

    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    if "GRISTMILL_SUPERVISOR" in os.environ:
        end_with_parent(int(os.environ["GRISTMILL_SUPERVISOR"]))
    from training.spec import load

    spec = load(options.spec)
    # Before torch is imported: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(spec.execution.threads)
    from training.preflight_report import PreflightError
    from training.trainer import run_training

    try:
        return run_training(spec)
    except PreflightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit
    except DivergedError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.DIVERGED
    except SpikeError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.SPIKED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        sys.stderr.write(f"{error}\n")
        return Exit.NO_SPACE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's teardown: its order is not safe with process groups, and all is written.
    os._exit(code)
