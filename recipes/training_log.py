"""What a training leaves beside its metrics for whoever looks on: where it stands, and how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def log_folder(folder: Path, run_name: str) -> Path:
    """Where a run of this name keeps its own files of a training."""
    return folder / "runs" / run_name


def read_status(log: Path) -> dict[str, Any] | None:
    """What a training last said of itself, from its log's folder."""
    return _read_json(log / "status.json")


def read_end(log: Path) -> dict[str, Any] | None:
    """How a training ended, with cause and host; None while it runs, and where its supervisor was killed."""
    return _read_json(log / "ended.json")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found
