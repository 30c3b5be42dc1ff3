"""How long whole commands take: `--help`, `validate`, the smallest recipe, and in full the quickstart with its memory.

    python -m benchmarks.end_to_end [--quick] [--json]

The smallest recipe runs in a fresh work directory with a warm kernel cache (if need be, a run before it fills it). The
quickstart needs its fetched text below raw/ (`make quickstart`, or `gristmill fetch recipes/quickstart.yaml`); without
it the figures of the quickstart are listed under `skipped`. Memory is the largest sum of resident memory over the
command and all processes below it, looked at ten times a second; pages that processes share count for each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).absolute().parents[1]
RECIPES = ROOT / "recipes"
LOOK_EVERY_S = 0.1


def command(*arguments: object) -> list[str]:
    """A gristmill command of this checkout."""
    return [sys.executable, "-P", "-m", "recipes.cli.main", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment in which commands run: this checkout's code."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def seconds_of(*arguments: object) -> float:
    """Seconds that a command takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(command(*arguments), check=True, capture_output=True, env=environment())
    return time.perf_counter() - started


def median_seconds(rounds: int, *arguments: object) -> float:
    """Median of several calls, after one that is not counted."""
    seconds_of(*arguments)
    return statistics.median(seconds_of(*arguments) for _ in range(rounds))


def measured_run(*arguments: object) -> tuple[float, float]:
    """Seconds, and the peak of resident memory (GiB) of a command with all processes below it."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command(*arguments), stdout=said, stderr=said, env=environment())
        while process.poll() is None:
            peak = max(peak, sum(resident_bytes(pid) for pid in tree_of(process.pid)))
            time.sleep(LOOK_EVERY_S)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(
                f"{' '.join(map(str, arguments))}: exit {process.returncode}\n{said.read().decode()[-2000:]}"
            )
    return time.perf_counter() - started, peak / 2**30


def tree_of(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in listed.read_text().split()]
        except OSError:
            continue
        found += [below for child in children for below in tree_of(child)]
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def places(folder: Path, raw: Path) -> list[str]:
    """Options that put a run's raw text and work directory somewhere."""
    return ["--set", f"execution.raw={raw}", "--set", f"execution.workdir={folder}"]


def measure_smallest(folder: Path, quick: bool) -> dict[str, float]:
    """The smallest recipe in fresh work directories, with its text there and the kernels compiled.

    The quick run takes kernels as compiled where a run of this checkout has left any.
    """
    recipe, raw = RECIPES / "smallest.yaml", folder / "raw"
    if not quick:
        seconds_of("run", recipe, *places(folder / "warm", raw))
    elif not compiled():
        seconds_of("run", recipe, *places(folder / "warm", raw), "--until", "tokenize")
    rounds = 1 if quick else 3
    took = [seconds_of("run", recipe, *places(folder / f"work{n}", raw)) for n in range(rounds)]
    again = seconds_of("run", recipe, *places(folder / "work0", raw))
    return {"smallest_seconds": statistics.median(took), "smallest_again_seconds": again}


def compiled() -> bool:
    """Whether the cache has compiled kernels of this checkout's sources."""
    code = "import curation.kernels, numba; print(numba.config.CACHE_DIR)"
    python = [sys.executable, "-P", "-c", code]
    done = subprocess.run(python, capture_output=True, text=True, check=True, env=environment())
    return any(Path(done.stdout.strip()).rglob("*.nbc"))


def measure_quickstart(folder: Path, raw: Path) -> dict[str, float]:
    """The quickstart from its fetched text."""
    took, peak = measured_run("run", RECIPES / "quickstart.yaml", *places(folder / "quickstart", raw))
    return {"quickstart_seconds": took, "quickstart_peak_gib": peak}


def is_fetched(raw: Path) -> bool:
    """Whether the quickstart's text is there."""
    done = subprocess.run(
        command("fetch", RECIPES / "quickstart.yaml", "--dry-run", "--set", f"execution.raw={raw}"),
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    return done.returncode == 0 and "everything is here" in done.stdout


def measure(quick: bool, raw: Path) -> dict[str, object]:
    """All figures, and under `skipped` the names of those that were not measured."""
    found: dict[str, object] = {
        "help_seconds": median_seconds(3 if quick else 9, "--help"),
        "validate_seconds": median_seconds(3 if quick else 9, "validate", RECIPES / "quickstart.yaml"),
    }
    skipped = ["quickstart_seconds", "quickstart_peak_gib"]
    with tempfile.TemporaryDirectory() as folder:
        found |= measure_smallest(Path(folder), quick)
        if not quick and is_fetched(raw):
            found |= measure_quickstart(Path(folder), raw)
            skipped = []
    return {**found, "skipped": skipped}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long whole commands take.")
    parser.add_argument("--quick", action="store_true", help="one run of the smallest recipe, no quickstart")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--raw", type=Path, default=ROOT / "raw", help="where the quickstart's text lies")
    given = parser.parse_args()
    found = measure(given.quick, given.raw.absolute())
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:26} {f'{value:.3g}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
