"""Before the first train step: every process says where it runs and what with; all read it, and refuse what differs.

The reports travel through a key-value store with a deadline, so that a process that never comes is named instead of
waited for. Only then is the process group made. Then all measure at once: a product of matrices, and an all-reduce.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import xxhash

from training import preflight_report as reports
from training.batches import TokenStream
from training.checkpoint import canonical
from training.meeting import POLL_S, Meeting
from training.models.shape import num_parameters
from training.preflight_report import Folder, PreflightError, RankReport
from training.resume import num_staying
from training.spec import TrainSpec, missing_packages, to_json

# float32 weights and AdamW's two moments.
BYTES_PER_PARAMETER = 12
MEASURE_S = 0.25
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
REDUCED_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
# How long another machine may take to see a file of the first one.
SHARED_S = 10.0
# Characters of a value that is shown where processes differ in it.
MOST_SHOWN = 200


def agree(spec: TrainSpec, stream: TokenStream, device: torch.device, meeting: Meeting) -> list[RankReport]:
    """Report, read all reports, refuse what differs, and measure matrix products on all processes at once.

    Raises:
        PreflightError: on every process alike; the first one has written preflight.json before.
    """
    mine = report_of(spec, stream, device, meeting)
    with _left_in_folders(spec, meeting) as left:
        own_disks = tuple(_own_disks(left, meeting))
        mine = replace(mine, errors=(*mine.errors, *own_disks))
        meeting.exchange("looked into the folders", "")
    found = [reports.from_json(text) for text in meeting.exchange("report", reports.to_json(mine))]
    try:
        reports.refuse(found)
    except PreflightError as error:
        if meeting.rank == 0:
            _keep(spec, found, None, [str(error)])
        raise
    meeting.exchange("ready to measure", "")  # else a rank that came early measures an idle machine
    rate = matmul_rate(device, spec.precision)
    rates = meeting.exchange("measured rate", repr(rate))
    return [replace(report, matmul_flops=float(one)) for report, one in zip(found, rates)]


def conclude(spec: TrainSpec, found: list[RankReport], device: torch.device, rank: int) -> dict[str, Any]:
    """Measure the all-reduce in the process group, write preflight.json and give its content."""
    rate = all_reduce_rate(device) if len(found) > 1 else None
    room = room_for_checkpoints(spec)
    return _keep(spec, found, rate, reports.notes(found, room), room, write=rank == 0)


def _keep(
    spec: TrainSpec,
    found: list[RankReport],
    rate: float | None,
    notes: list[str],
    room: dict[str, int] | None = None,
    write: bool = True,
) -> dict[str, Any]:
    kept = {
        "ranks": [vars(report) | {"folders": [vars(folder) for folder in report.folders]} for report in found],
        "all_reduce_bytes_per_s": rate,
        "room": room,
        "notes": notes,
        "time_s": time.time(),
    }
    if write:
        try:
            reports.write(Path(spec.folder) / "preflight.json", kept)
        except OSError as error:  # an unwritable folder may be what is refused
            kept["notes"] = [*notes, f"preflight.json was not written: {error}"]
    return kept


def report_of(spec: TrainSpec, stream: TokenStream, device: torch.device, meeting: Meeting) -> RankReport:
    """What this process has to say."""
    needed = BYTES_PER_PARAMETER * num_parameters(spec.shape) + spec.execution.min_free_bytes
    folders = (
        probe("run", Path(spec.folder)),
        probe("checkpoints", spec.checkpoints_root, needed),
        probe("temporary", Path(tempfile.gettempdir())),
    )
    text, errors = {}, missing_packages(spec.execution.loggers) if meeting.rank == 0 else []
    try:
        text = stream.checksums(sorted({span.context for span in spec.spans}))
    except (OSError, ValueError) as error:
        errors.append(f"its text cannot be read: {error}")
    parts = json.loads(to_json(spec))
    alike = {
        **versions(),
        "world size": meeting.world,
        "specification": xxhash.xxh3_64_hexdigest(canonical(to_json(spec))),
        **{f"specification's {name}": _short(value) for name, value in parts.items() if name != "seed"},
        "seed": spec.seed,
        "device type": device.type,
        **{f"text of {name}": value for name, value in text.items()},
    }
    return RankReport(meeting.rank, platform.node(), _device_name(device), folders, alike, tuple(errors))


def _short(value: Any) -> Any:
    """A value of the specification as it is compared: itself where it is short, else its hash."""
    written = canonical(value)
    return value if len(written) <= MOST_SHOWN else xxhash.xxh3_64_hexdigest(written)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def _left_in_folders(spec: TrainSpec, meeting: Meeting) -> Iterator[list[str]]:
    """Files that the first process leaves in the folders that all must share; every process is told their paths.

    Those that an earlier start of this training left, killed in its preflight, are removed.
    """
    left: list[str] = []
    mine = f".gristmill-{xxhash.xxh3_64_hexdigest(spec.folder)}"  # trainings may share a folder of checkpoints
    for folder in {Path(spec.folder), spec.checkpoints_root} if meeting.rank == 0 and meeting.world > 1 else ():
        path = folder / f"{mine}-{uuid.uuid4().hex[:8]}.tmp"
        with suppress(OSError):  # a folder that cannot be written is told by `probe`
            for stale in folder.glob(f"{mine}-*.tmp"):
                stale.unlink(missing_ok=True)
            path.write_bytes(b"")
            left.append(str(path))
    try:
        yield json.loads(meeting.exchange("left", json.dumps(left))[0])
    finally:
        for path in left:
            Path(path).unlink(missing_ok=True)


def _own_disks(left: list[str], meeting: Meeting) -> Iterator[str]:
    """A sentence for each folder that is not the first process's, but another of the same name."""
    deadline = time.monotonic() + min(SHARED_S, meeting.wait_s / 4)
    for path in map(Path, sorted(left)):
        while not path.exists():  # a network's file system may take a moment
            if time.monotonic() > deadline:
                yield f"{path.parent} is not the folder that rank 0 has there; all nodes must share execution.workdir"
                break
            time.sleep(POLL_S)


def probe(role: str, path: Path, needed_bytes: int = 0) -> Folder:
    """Write a file into a folder and remove it; say what is free there."""
    trial = path / f".gristmill-{uuid.uuid4().hex[:8]}.tmp"
    error = None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with trial.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as failed:
        # A full disk is told by its free bytes below, and ends with another exit code.
        error = failed.strerror if failed.errno not in NO_ROOM else None
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        free = None
    return Folder(role, str(path), free, needed_bytes, error)


def versions() -> dict[str, str]:
    """Versions of what computes, and a hash of our own code, which may differ under one version."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("lightning", "gristmill"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    root = Path(__file__).parent.parent
    digest = xxhash.xxh3_64()
    for path in sorted(path for part in ("training", "mixing") for path in (root / part).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return {**found, "code": digest.hexdigest()}


def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second of a product of square matrices in the run's precision, the median of what fits in 0.25 s."""
    side = 8192 if device.type == "cuda" else 512 if torch.get_num_threads() < 4 else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.ones(side, side, dtype=kind, device=device) for _ in range(2))
    return 2 * side**3 / _median_s(lambda: torch.mm(left, right), device)


def all_reduce_rate(device: torch.device) -> float:
    """Bytes a second of summing a tensor over all processes: its size by the time, whatever the algorithm sends."""
    numbers = torch.zeros(REDUCED_BYTES[device.type] // 4, device=device)
    # As often on all processes: no clock may decide.
    elapsed = _median_s(lambda: dist.all_reduce(numbers), device, times=5)
    return numbers.nbytes / elapsed


def _median_s(work: Callable[[], Any], device: torch.device, times: int | None = None) -> float:
    """Median seconds of a piece of work after a first one, done `times` or as often as fits in `MEASURE_S`."""
    spent: list[float] = []
    for place in _turns(times):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if place:
            spent.append(time.perf_counter() - started)
    return median(spent)


def _turns(times: int | None) -> Iterable[int]:
    started, place = time.perf_counter(), 0
    while place < 3 or (time.perf_counter() - started < MEASURE_S if times is None else place <= times):
        yield place
        place += 1


def room_for_checkpoints(spec: TrainSpec) -> dict[str, int]:
    """Bytes of a checkpoint, how many more of this run will stay at once, and how many fit on the disk."""
    size = BYTES_PER_PARAMETER * num_parameters(spec.shape)
    there = sum(1 for _ in spec.checkpoints_root.glob("step-*/manifest.json"))
    free = shutil.disk_usage(spec.checkpoints_root).free - spec.execution.min_free_bytes
    step_tokens = min(span.sequences * span.context for span in spec.spans)
    staying = num_staying(spec.checkpoints, spec.num_steps, step_tokens)
    return {"bytes": size, "staying": max(0, staying - there), "fitting": max(0, free // size)}
