"""What a training leaves beside its metrics for whoever looks on: where it stands, and how it ended."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from training.exits import MOST_TELLING

PINNED = "trained_on"  # the note beside a run of what its training began with (recipes/pretraining/pinned.py)


def log_folder(folder: Path, run_name: str) -> Path:
    """Where a run of this name keeps its own files of a training."""
    return folder / "runs" / run_name


def read_status(log: Path) -> dict[str, Any] | None:
    """What a training last said of itself, from its log's folder."""
    found: dict[str, Any] | None = read_json(log / "status.json")
    return found


def steps_logged(log: Path) -> int:
    """Train steps that a training's log tells of; a process that was just started has not said yet where it stands."""
    lines = _last_rows(log / "metrics.csv")
    said = (read_status(log) or {}).get("step") or 0
    return max(int(said), int(lines[-1]["step"]) if lines else 0)


def read_end(log: Path) -> dict[str, Any] | None:
    """How a training ended, with cause and host; None while it runs, and where its supervisor was killed.

    Under torchrun each process says how it ended, and the one that tells most is told.
    """
    ends = [found for path in sorted(log.glob("ended*.json")) if (found := read_json(path)) is not None]
    order = {one.name: place for place, one in enumerate(MOST_TELLING)}
    return min(ends, key=lambda end: order.get(end.get("exit", ""), len(order)), default=None)


def is_held(folder: Path) -> bool | None:
    """Whether a run holds a training's folder now; None where there is no lock to ask."""
    import fcntl

    try:
        with (folder / ".run.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def domain_losses(log: Path) -> list[dict[str, Any]]:
    """Each domain's newest training loss, held-out loss (nats a token) and bits per byte; None where not measured."""
    lines, measured = _last_rows(log / "metrics.csv"), _last_rows(log / "held_out.csv")
    newest = lines[-1] if lines else {}
    held_out = {row["domain"]: row for row in measured if row["step"] == measured[-1]["step"]}
    names = [key.removeprefix("loss/") for key in newest if key.startswith("loss/")]
    return [
        {
            "domain": name,
            "loss": _number(newest.get(f"loss/{name}")),
            "held_out": _number(held_out.get(name, {}).get("loss")),
            "bits_per_byte": _number(held_out.get(name, {}).get("bits_per_byte")),
        }
        for name in [*names, *(name for name in held_out if name not in names)]
    ]


def _last_rows(path: Path, size_bytes: int = 1 << 20) -> list[dict[str, str]]:
    """The whole lines of a table's last part."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        columns = next(csv.reader([file.readline().decode("utf-8")]))
        begin = file.tell()
        start = max(begin, path.stat().st_size - size_bytes)
        file.seek(start)
        content = file.read()
    lines = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
    rows = csv.reader(lines[1:] if start > begin else lines)
    return [dict(zip(columns, row)) for row in rows if len(row) == len(columns)]


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def read_json(path: Path) -> Any:
    """What a small file beside a run holds; None where it is not there, or only half written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
