"""What the processes found before a training: what they differ in, who is slow, and all of it as one table. No torch.

A report a process is written by `training.preflight`; here stands what follows from all of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from training.exits import Exit

# Below this share of the median a rank is named: ranks alike differ by some hundredths, one on shared cores by half.
SLOW = 0.7
MOST_ROWS = 32


@dataclass(frozen=True)
class Folder:
    """A folder that a process writes into.

    Attributes:
        role: run, checkpoints or temporary.
        path: where.
        free_bytes: of its file system; None where it could not be asked.
        needed_bytes: below this nothing can be trained.
        error: why it cannot be written; None if it can.
    """

    role: str
    path: str
    free_bytes: int | None
    needed_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class RankReport:
    """One process's line.

    Attributes:
        rank: its number.
        host: its machine.
        device: cpu with threads, or the GPU's name.
        folders: what it writes into.
        alike: what has to be the same on all: versions, code, specification, seed, text.
        errors: what else keeps it from training.
        matmul_flops: operations a second of a product of matrices in the run's precision, all measuring at once; None
            before it is measured.
    """

    rank: int
    host: str
    device: str
    folders: tuple[Folder, ...] = ()
    alike: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    matmul_flops: float | None = None

    @property
    def place(self) -> str:
        """How it is named."""
        return f"rank {self.rank} on {self.host}"


class PreflightError(RuntimeError):
    """What keeps the processes from training together; `exit` says how they end."""

    def __init__(self, reasons: Sequence[str], ended: Exit = Exit.UNFIT) -> None:
        super().__init__("preflight: " + "; ".join(reasons))
        self.exit = ended


def from_json(text: str | bytes) -> RankReport:
    """Read a report back."""
    found = json.loads(text)
    folders = tuple(Folder(**folder) for folder in found.pop("folders"))
    return RankReport(**{**found, "folders": folders, "errors": tuple(found["errors"])})


def to_json(report: RankReport) -> str:
    """Write a report."""
    return json.dumps(dataclasses.asdict(report), sort_keys=True)


def refuse(reports: Sequence[RankReport]) -> None:
    """Refuse processes that differ, and those that cannot read their text or write their folders.

    Raises:
        PreflightError: with everything that is wrong; UNFIT, or NO_SPACE where it is room alone.
    """
    wrong = [(report, error) for report in reports for error in report.errors]
    wrong += [
        (report, f"the {folder.role} folder {folder.path} cannot be written ({folder.error})")
        for report in reports
        for folder in report.folders
        if folder.error
    ]
    reasons = [*_by_reason(wrong), *differences(reports)]
    if reasons:
        raise PreflightError(reasons)
    if short := _by_reason(_short_of_room(reports)):
        raise PreflightError(short, Exit.NO_SPACE)


def _by_reason(wrong: Sequence[tuple[RankReport, str]]) -> list[str]:
    """Each reason once, with the processes that have it."""
    having: dict[str, list[str]] = {}
    for report, reason in wrong:
        having.setdefault(reason, []).append(report.place)
    return [f"{_first_of(places)}: {reason}" for reason, places in having.items()]


def _first_of(named: Sequence[str], most: int = 4) -> str:
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")


def differences(reports: Sequence[RankReport]) -> list[str]:
    """What is not the same on all processes: the value of most, and who has another."""
    found = []
    names = sorted({name for report in reports for name in report.alike})
    if any(name.startswith("specification's") for name in names):  # which say what the whole one only shows to differ
        names.remove("specification")
    for name in names:
        values = [json.dumps(report.alike.get(name)) for report in reports]
        if len(set(values)) == 1:
            continue
        # Of two values as frequent, the lower rank's is called the usual one.
        usual = max(Counter(values).items(), key=lambda pair: (pair[1], -values.index(pair[0])))[0]
        others = [f"{report.place} ({value})" for report, value in zip(reports, values) if value != usual]
        found.append(f"{name} is {usual} on {values.count(usual)} of {len(values)} but not on {_first_of(others)}")
    return found


def _short_of_room(reports: Sequence[RankReport]) -> list[tuple[RankReport, str]]:
    return [
        (
            report,
            f"{size(folder.needed_bytes)} are needed for a checkpoint at {folder.path} and {size(folder.free_bytes)} "
            "are free; make room, or set execution.workdir to another disk",
        )
        for report in reports
        for folder in report.folders
        if folder.free_bytes is not None and folder.free_bytes < folder.needed_bytes
    ]


def slow_ranks(reports: Sequence[RankReport]) -> list[tuple[RankReport, float]]:
    """Processes whose matrix products run below `SLOW` of the median, with their share of it."""
    rates = [report.matmul_flops for report in reports if report.matmul_flops]
    if len(rates) < 2:
        return []
    usual = median(rates)
    return [(r, r.matmul_flops / usual) for r in reports if r.matmul_flops and r.matmul_flops < SLOW * usual]


def notes(reports: Sequence[RankReport], room: Mapping[str, Any] | None = None) -> list[str]:
    """What does not keep a training from beginning but should be known: slow ranks, a disk that will not hold all."""
    said = [
        f"{report.place} is slow: {share:.2f} of the median rate; all others wait for it every train step"
        for report, share in slow_ranks(reports)
    ]
    if room and room["fitting"] < room["staying"]:
        said.append(
            f"{room['staying']} checkpoints of {size(room['bytes'])} will stay and {room['fitting']} more fit: the "
            "disk will be full before the end; keep fewer (checkpoints.keep) or make room"
        )
    return said


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Put preflight.json in place by one rename."""
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps(found, sort_keys=True, indent=1))
    unfinished.replace(path)


def size(num_bytes: int | None) -> str:
    """Bytes as a person reads them."""
    if num_bytes is None:
        return "?"
    for unit, letter in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {letter}"
    return f"{num_bytes / 1e3:.1f} kB"


def table(found: Mapping[str, Any]) -> str:
    """The table of preflight.json's content; of many ranks the slow ones and the first."""
    reports = [from_json(json.dumps(report)) for report in found["ranks"]]
    slow = {report.rank for report, _ in slow_ranks(reports)}
    # Those that something is said of stand first, so that they are never among those left out.
    ordered = sorted(reports, key=lambda report: (report.rank not in slow and not _bad(report), report.rank))
    rows = [("rank", "host", "device", "matmul", "run folder", "checkpoints", "temporary", "")]
    rows += [_row(report, report.rank in slow) for report in ordered[:MOST_ROWS]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    if len(ordered) > MOST_ROWS:
        lines.append(f"… and {len(ordered) - MOST_ROWS} more ranks in preflight.json")
    return "\n".join([*lines, *_shared(found, reports), *found["notes"]])


def _bad(report: RankReport) -> bool:
    return bool(report.errors) or any(folder.error for folder in report.folders)


def _row(report: RankReport, slow: bool) -> tuple[str, ...]:
    rate = "" if report.matmul_flops is None else f"{report.matmul_flops / 1e9:,.0f} GFLOP/s"
    folders = {folder.role: "NOT WRITABLE" if folder.error else size(folder.free_bytes) for folder in report.folders}
    cells = [folders.get(role, "") for role in ("run", "checkpoints", "temporary")]
    return (str(report.rank), report.host, report.device, rate, *cells, "SLOW" if slow else "")


def _shared(found: Mapping[str, Any], reports: Sequence[RankReport]) -> list[str]:
    """What all have in common, and what they reach together."""
    alike = dict(reports[0].alike)
    versions = [f"{name} {alike[name]}" for name in VERSIONS if alike.get(name)]
    lines = [", ".join(versions)]
    named = [f"{name} {alike[name]}" for name in ("specification", "seed", "code") if name in alike]
    lines.append(", ".join(named))
    if found.get("all_reduce_bytes_per_s"):
        lines.append(f"all-reduce {size(int(found['all_reduce_bytes_per_s']))}/s over {len(reports)} ranks")
    if room := found.get("room"):
        lines.append(
            f"a checkpoint takes {size(room['bytes'])}; {room['staying']} more will stay, {room['fitting']} fit"
        )
    return [line for line in lines if line]


VERSIONS = ("python", "torch", "lightning", "gristmill", "cuda", "nccl")
