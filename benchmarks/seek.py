"""Open a plan and locate a train step, in this process: seconds, and the peak memory of the process in MiB.

    python -m benchmarks.seek PLAN POSITION

Kernels are loaded (or compiled) on a small plan first. `benchmarks/loader.py` runs it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from mixing.order import open_order
from mixing.plan import DomainSupply, Plan, make_plan
from mixing.schedule import Amount, BatchLine, Phase


def peak_mib() -> float:
    """Peak memory of this process. `getrusage` would count what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Measure and print."""
    small = make_plan([DomainSupply("a", 9000)], [Phase("p", Amount(9), {"a": 1}, 2)], [BatchLine(0, 2)])
    open_order(Plan.from_json(small.to_json())).locate([0])
    position = int(sys.argv[2])
    start = time.perf_counter()
    order = open_order(Plan.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
    order.locate(np.arange(position, position + 1024))
    elapsed = time.perf_counter() - start
    print(json.dumps({"seek_3t_seconds": elapsed, "seek_3t_mib": peak_mib()}))


if __name__ == "__main__":
    main()
