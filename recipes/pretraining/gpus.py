"""The NVIDIA GPUs that a training here may use, told without importing torch."""

from __future__ import annotations

import os
from pathlib import Path


def visible_gpus(
    devices: Path = Path("/dev"), drivers: Path = Path("/proc/driver/nvidia/gpus"), asked: str | None = None
) -> tuple[str, ...]:
    """Names of the GPUs that CUDA will show to this process's children, in its order; "" where no driver tells one.

    Args:
        devices: folder of the device files `nvidia0`, `nvidia1` …
        drivers: the driver's folder, with a file `information` for each GPU of the machine, also of those that this
            container was not given.
        asked: `CUDA_VISIBLE_DEVICES`, from the environment where it is None: places in the list of all, or beginnings
            of UUIDs; what follows the first that names no GPU is not visible, as CUDA has it.
    """
    there = sorted(int(path.name[6:]) for path in devices.glob("nvidia*") if path.name[6:].isdigit())
    told = {gpu["minor"]: gpu for gpu in map(_information, sorted(drivers.glob("*/information"))) if "minor" in gpu}
    gpus = [told.get(str(minor), {"minor": str(minor)}) for minor in there]
    asked = os.environ.get("CUDA_VISIBLE_DEVICES") if asked is None else asked
    chosen = gpus if asked is None else _chosen(asked, gpus)
    return tuple(gpu.get("model", "") for gpu in chosen)


def _information(path: Path) -> dict[str, str]:
    """What a driver's file says of one GPU."""
    keys = {"Model": "model", "Device Minor": "minor", "GPU UUID": "uuid"}
    lines = [line.partition(":") for line in path.read_text().splitlines()]
    return {keys[key.strip()]: value.strip() for key, _, value in lines if key.strip() in keys}


def _chosen(asked: str, gpus: list[dict[str, str]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for word in filter(None, (part.strip() for part in asked.split(","))):
        if word.isdigit():
            named = gpus[int(word) : int(word) + 1]
        else:
            named = [gpu for gpu in gpus if word.startswith("GPU-") and gpu.get("uuid", "").startswith(word)]
        if len(named) != 1 or named[0] in found:
            break
        found += named
    return found
