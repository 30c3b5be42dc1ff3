"""What goes wrong at night: processes that are told, stopped or slow, full disks, folders that cannot be written.

Every training here runs in processes of its own, and is looked at from outside.
"""

import csv
import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from training.checkpoint import CheckpointError, open_checkpoint  # noqa: E402
from training.exits import Exit  # noqa: E402
from training.launch import launch  # noqa: E402
from training.processes import RESERVED_BYTES, Run, note_end, read_status, reserve_end  # noqa: E402
from training.spec import Checkpoints  # noqa: E402


def rows(spec):
    """A run's log without its times."""
    path = Path(spec.folder) / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in csv.DictReader(file)]


def logs(spec):
    return "".join(path.read_text() for path in sorted(Path(spec.folder).glob("rank-*.log")))


def ended(spec):
    return json.loads((Path(spec.folder) / "ended.json").read_text())


def whole(root):
    """Train steps of the whole checkpoints below a folder."""
    found = []
    for folder in sorted(Path(root).glob("step-*")):
        try:
            found.append(open_checkpoint(folder).step)
        except CheckpointError:
            continue
    return found


def process_of(spec, rank):
    """The id of the process that trains as a rank."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        mine = b"training.launch" in command and str(spec.folder).encode() in command
        if mine and f"RANK={rank}".encode() in environment.split(b"\0"):
            return int(place.name)
    raise AssertionError(f"no process of rank {rank}")


@contextmanager
def once_trained(spec, steps, act):
    """Do something, in a thread, when so many train steps are logged."""

    def wait():
        while len(rows(spec)) < steps:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_process_stops_all_at_the_same_step_with_a_checkpoint(make_spec, write_spec, rank):
    spec = make_spec(num_steps=100_000, checkpoints=Checkpoints(10**6))
    with once_trained(spec, 3, lambda: os.kill(process_of(spec, rank), signal.SIGTERM)):
        assert launch(write_spec(spec), 2) == Exit.REQUEUE, logs(spec)
    last = int(rows(spec)[-1]["step"])
    assert whole(spec.checkpoints_root) == [last]
    status = json.loads((Path(spec.folder) / "status.json").read_text())
    assert (status["state"], status["step"], status["tokens"]) == ("saved", last, last * 7 * 16)
    assert (ended(spec)["exit"], ended(spec)["code"], ended(spec)["cause"]) == ("REQUEUE", 10, "")
    # And the next command goes on right there.
    assert launch(write_spec(dataclasses.replace(spec, num_steps=last + 2)), 2) == Exit.DONE
    assert [int(row["step"]) for row in rows(spec)] == list(range(1, last + 3))


@pytest.fixture
def small_disk(tmp_path):
    """Mount file systems of some size in memory; skips where that is not allowed."""
    mounted = []

    def mount(size, options=""):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this machine lets nobody mount a small disk (needs root)")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.slow
def test_disk_that_fills_up_ends_with_no_space_and_the_next_run_resumes(make_spec, write_spec, small_disk):
    """A checkpoint is 272 KB: three lie on a disk of 1 MB, the fourth does not fit."""
    disk = small_disk("1m")
    spec = make_spec(num_steps=40, checkpoints=Checkpoints(5))
    spec = dataclasses.replace(spec, checkpoints_folder=str(disk / "checkpoints"))
    assert launch(write_spec(spec), 2) == Exit.NO_SPACE, logs(spec)
    assert "make room" in ended(spec)["cause"]
    assert whole(disk / "checkpoints") == [5, 10, 15]
    assert not list(disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    assert launch(write_spec(spec), 2) == Exit.DONE, logs(spec)
    assert whole(disk / "checkpoints") == list(range(5, 45, 5))
    assert [int(row["step"]) for row in rows(spec)] == list(range(1, 41))


@pytest.mark.slow
def test_log_on_a_full_disk_still_tells_how_it_ended(make_spec, write_spec, small_disk):
    disk = small_disk("200k")
    spec = make_spec(num_steps=100_000, checkpoints=Checkpoints(10**6))
    elsewhere = str(Path(spec.folder) / "checkpoints")
    spec = dataclasses.replace(spec, folder=str(disk / "run"), checkpoints_folder=elsewhere)

    def fill():
        with (disk / "others").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 512)

    with once_trained(spec, 2, fill):
        assert launch(write_spec(spec), 1) == Exit.NO_SPACE
    assert ended(spec)["exit"] == "NO_SPACE"
    assert "No space left" in ended(spec)["cause"]


@pytest.mark.slow
def test_folder_that_cannot_be_written_is_refused_before_training(make_spec, write_spec, small_disk):
    disk = small_disk("1m", ",ro")
    spec = make_spec()
    spec = dataclasses.replace(spec, checkpoints_folder=str(disk))
    assert launch(write_spec(spec), 2) == Exit.UNFIT
    assert f"the checkpoints folder {disk} cannot be written (Read-only file system)" in ended(spec)["cause"]
    assert rows(spec) == []


@pytest.mark.slow
def test_slow_process_is_named_with_its_host_and_the_share_that_others_waited(make_spec, write_spec):
    """Stopped nine tenths of the time, from outside."""
    spec = make_spec(num_steps=10**6, checkpoints=Checkpoints(10**7), log_every=10)
    supervised = threading.Event()

    def hold_up():
        slow = process_of(spec, 1)
        with suppress(ProcessLookupError):
            while not supervised.is_set():
                os.kill(slow, signal.SIGSTOP)
                time.sleep(0.9)
                os.kill(slow, signal.SIGCONT)
                time.sleep(0.1)

    told = []

    def see(status):
        told.append(status)
        if status.get("slow") and not supervised.is_set():
            supervised.set()
            os.kill(os.getpid(), signal.SIGTERM)

    with once_trained(spec, 2, hold_up):
        assert launch(write_spec(spec), 2, progress=see, stall_s=120) == Exit.REQUEUE, logs(spec)
    found = re.match(rf"rank 1 on {platform.node()} is slow: the others waited for it (\d+)% of", told[-1]["slow"])
    assert found, told[-1]
    assert 20 <= int(found[1]) <= 100
    assert told[-1]["slow"] in logs(spec)


def test_end_that_has_more_to_say_than_there_is_room_for_is_still_json(tmp_path):
    run = Run(tmp_path / "spec.json", tmp_path, range(1), None, 1.0, 1.0)
    reserve_end(run)
    note_end(run, Exit.ERROR, ["rank 0 ended with ERROR", "\u591a" * 2000, "rank 1 was killed by SIGKILL" * 300])
    told = json.loads((tmp_path / "ended.json").read_text())
    assert told["exit"] == "ERROR"
    assert told["cause"].startswith("rank 0 ended with ERROR; \u591a")
    assert (tmp_path / "ended.json").stat().st_size <= RESERVED_BYTES


@pytest.mark.parametrize("content", [None, "", '{"step": 3'])
def test_status_that_cannot_be_read_now_is_no_status(tmp_path, content):
    if content is not None:
        (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None
