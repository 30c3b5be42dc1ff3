"""Starting a training: a supervisor of the processes that train, and the processes' own entry.

    python -P -m training.launch --spec spec.json                  one process, or one of torchrun's
    launch("spec.json", processes=2)                               N processes on this machine, watched
    join("spec.json", place)                                       one process where torchrun put it, watched

The supervisor imports no torch. It ends all processes when one dies, when no sign of life comes for too long, and (by
the kernel, on Linux) when it dies itself. Exit codes: `training.exits.Exit`.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from training.exits import Exit
from training.processes import (
    GRACE_S,
    STACKS,
    Progress,
    Run,
    causes_of,
    dump_stacks,
    end_all,
    end_with_parent,
    note_end,
    place_of,
    read_status,
    reserve_end,
    start,
    told_to_stop,
    watch,
)

# What the connection to a lost process ends with: gloo's words, the store's, and those of torch's NCCL.
_LOST = re.compile(r"gloo|Connection (closed|reset|refused)|connection was (aborted|reset)|Broken pipe|recvValue|NCCL")


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
    run = Run(Path(spec_path), folder, range(processes), progress, stall_s, grace_s)
    with told_to_stop() as told:
        there = _manifests(checkpoints)  # others' lie beside this training's, also with more train steps
        ended, left, newest = _once(run, told), restarts, 0
        while ended in (Exit.RANK_LOST, Exit.STALLED) and not told:
            now = _manifests(checkpoints)
            saved, there = now - there, now
            left = restarts if saved else left
            if left == 0:
                break
            left, newest = left - 1, max((_step_of(path.parent.name) for path, _ in saved), default=newest)
            reached = newest or _resumed_step(folder)
            where = f"the checkpoint of train step {reached}" if reached else "the beginning"
            say(f"{_cause_of_end(folder)}; started again from {where}, {left} restarts left without a new checkpoint")
            ended = _once(run, told)
    return ended


def _cause_of_end(folder: Path) -> str:
    try:
        return json.loads((folder / "ended.json").read_text())["cause"]
    except OSError:
        return "ended"


def _manifests(checkpoints: Path) -> set[tuple[Path, int]]:
    """Manifests of whole checkpoints, and when they were written: a damaged one may be made anew in its place."""
    found = set()
    for path in checkpoints.glob("step-*/manifest.json"):
        with suppress(FileNotFoundError):  # another training's, pruned meanwhile
            found.add((path, path.stat().st_mtime_ns))
    return found


def _resumed_step(folder: Path) -> int:
    """Train step of the checkpoint that the processes said they continue from; 0 where there is none."""
    name = (read_status(folder) or {}).get("resumed")
    return _step_of(name) if name else 0


def _step_of(name: str) -> int:
    return int(name.split("-")[1])


def _once(run: Run, told: list[int]) -> Exit:
    _forget(run)
    with tempfile.TemporaryDirectory(prefix="gristmill-") as meeting:
        started = [start(run, rank, place_of(run, rank, Path(meeting) / "processes")) for rank in run.ranks]
        return _until_end(run, started, told)


def _forget(run: Run) -> None:
    """Remove what an earlier start of these processes said, and take the room for how they end."""
    said = ["status.json", "preflight.json", "ended*.json"] if run.ranks[0] == 0 else [run.end_path.name]
    for path in [path for pattern in said for path in run.folder.glob(pattern)]:
        path.unlink(missing_ok=True)
    reserve_end(run)


def _until_end(run: Run, started: list[subprocess.Popen[bytes]], told: list[int]) -> Exit:
    """Watch processes to their end, leave none behind, and write down how it came."""
    ended, causes = Exit.ERROR, [""]
    try:
        ended = watch(run, started, told)
        causes = causes_of(run, started, ended)
        if ended is Exit.STALLED:
            dump_stacks(started)
        return ended
    finally:
        end_all(started)
        note_end(run, ended, causes)


@dataclass(frozen=True)
class Place:
    """Where torchrun put this process.

    Attributes:
        rank: of it.
        world: processes in all.
        nodes: agents of torchrun.
        per_node: processes of this agent.
    """

    rank: int
    world: int
    nodes: int
    per_node: int


def place_under_torchrun() -> Place | None:
    """Where torchrun put this process; None where torchrun did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE")
    return Place(*(int(os.environ[name]) for name in names))


def join(spec_path: str | Path, place: Place, *, progress: Progress | None = None, grace_s: float = GRACE_S) -> Exit:
    """Train as one of torchrun's processes, in a process of its own, and wait for the end.

    The environment that torchrun made is the process's. It ends when this one does, and this one ends with its agent.

    Args:
        spec_path: a `training.spec.TrainSpec` as JSON, the same for all.
        place: from `place_under_torchrun`.
        progress: see `launch`; None everywhere but on the first process.
        grace_s: see `launch`; torchrun's agent grants 30 s of its own.

    Returns:
        How it ended here. RANK_LOST is another process's end, told by the broken connection.
    """
    folder = Path(json.loads(Path(spec_path).read_text())["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    end_with_parent(os.getppid())
    # No stall of its own: the process has a watchdog, and where nodes see the folder late it still knows itself.
    run = Run(Path(spec_path), folder, range(place.rank, place.rank + 1), progress, math.inf, grace_s)
    _forget(run)
    with told_to_stop() as told:
        return _until_end(run, [start(run, place.rank, {})], told)


def main(arguments: list[str] | None = None) -> int:
    """Be one process of a training; returns the exit code."""
    parser = argparse.ArgumentParser(prog="training.launch", description="One process of a training.")
    parser.add_argument("--spec", required=True, help="training.spec.TrainSpec as JSON")
    options = parser.parse_args(arguments)
    from training.watch import DivergedError, SpikeError

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
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", 1)) == 1 or not _LOST.search(str(error)):
            raise
        sys.stderr.write(f"another process was lost: {str(error).splitlines()[0].split('. ')[0]}\n")
        return Exit.RANK_LOST


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's teardown: its order is not safe with process groups, and all is written.
    os._exit(code)
