"""Watching a training: spikes and divergence, the journal, requests to stop. No Lightning.

metrics.csv has a line every so many train steps, held_out.csv one a domain and evaluation, status.json the newest
state. They are logs: times and speeds in them differ between runs; all else in them repeats.
"""

from __future__ import annotations

import csv
import faulthandler
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.exits import Exit

# Steps that a spike is judged by, as in OLMo-core's SkipStepOptimizer.
SPIKE_WINDOW = 128


class DivergedError(RuntimeError):
    """Loss or gradient is no number, or every update is dropped; the weights of the last checkpoint are good."""


class SpikeError(RuntimeError):
    """A spike, in a run that goes back before it."""


class SpikeWatch:
    """Remembers losses and gradient norms and tells a spike; `state` makes a resume judge alike."""

    def __init__(self, sigma: float, state: Sequence[Sequence[float]] = ()) -> None:
        self.sigma = sigma
        self.history: deque[tuple[float, float]] = deque((tuple(pair) for pair in state), maxlen=SPIKE_WINDOW)

    @property
    def state(self) -> list[list[float]]:
        """The remembered (loss, norm) pairs."""
        return [list(pair) for pair in self.history]

    def sees_spike(self, loss: float, norm: float) -> bool:
        """Whether loss or norm stands out; remembers them either way, after half a window of silence."""
        values = np.array([loss, norm])
        spike = False
        if not np.isfinite(values).all():
            return True
        if len(self.history) >= SPIKE_WINDOW // 2:
            past = np.array(self.history)
            spike = bool((values > past.mean(0) + self.sigma * past.std(0)).any())
        self.history.append((loss, norm))
        return spike


def check_finite(step: int, loss: float, norm: float) -> None:
    """Raise DivergedError where a train step's loss or gradient norm is no number."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"train step {step}: loss {loss}, gradient norm {norm}; lower learning_rate.peak, lengthen its warmup, or "
            "train in fp32; the newest checkpoint is from before"
        )


class StopRequest:
    """Remembers SIGTERM and SIGINT until the train step is done; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take the signals over, also from Lightning, whose own handler waits for the other processes inside it."""
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def rows_of(path: Path) -> list[dict[str, str]]:
    """The whole lines of a table, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # A kill can leave half a line.
        return [row for row in csv.DictReader(file) if row["step"].isdigit() and None not in row.values()]


def set_aside(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write lines that a table is about to lose beside it, in `cut/`, under the train steps that they tell of."""
    folder, steps = path.parent / "cut", [int(row["step"]) for row in rows]
    folder.mkdir(exist_ok=True)
    name = f"{path.stem}-{steps[0]:08d}-{steps[-1]:08d}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (folder / f"{name}{ending}.csv" for ending in endings)
    with next(place for place in places if not place.exists()).open("x", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(file.name)


class Table:
    """A CSV file that continues after a resume: lines behind the resumed step are cut off first."""

    def __init__(self, path: Path, columns: Sequence[str], resumed_step: int) -> None:
        self.path, self.columns = path, list(columns)
        kept = [row for row in rows_of(path) if int(row["step"]) <= resumed_step] if resumed_step else []
        unfinished = path.with_suffix(".csv.tmp")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        unfinished.replace(path)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with one write."""
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writerows(rows)


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Put the newest state in place by one rename."""
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps(status, sort_keys=True))
    unfinished.replace(path)


class Speed:
    """Tokens a second since the last reading."""

    def __init__(self) -> None:
        self.tokens, self.since = 0, time.perf_counter()

    def read(self, tokens: int) -> float:
        """Tokens a second, given all tokens so far."""
        now = time.perf_counter()
        speed = (tokens - self.tokens) / max(now - self.since, 1e-9)
        self.tokens, self.since = tokens, now
        return speed


class Watchdog(threading.Thread):
    """Ends this process with Exit.STALLED, and all stacks in its log, when nothing is done for too long.

    For processes that no supervisor of ours watches, such as torchrun's: whatever one of them hangs in, the others wait
    for it, and each finds by itself that no train step comes. A new status.json, where the folder is shared, is a sign
    of the first process, for which others wait while it measures or saves longer than they do.
    """

    def __init__(self, stall_s: float, status: Path | None = None) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.stall_s, self.alive_since = stall_s, time.monotonic()
        self.status, self.seen_ns = status, _changed_ns(status)
        self.over = threading.Event()

    def beat(self) -> None:
        """Something was done."""
        self.alive_since = time.monotonic()

    def stop(self) -> None:
        """Watch no more."""
        self.over.set()

    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        changed_ns = _changed_ns(self.status)
        if changed_ns != self.seen_ns:
            self.seen_ns = changed_ns
            self.beat()
        return time.monotonic() - self.alive_since

    def run(self) -> None:
        """Look a few times in each stall."""
        while not self.over.wait(min(5.0, self.stall_s / 4)):
            if (silent_s := self.silent_s()) > self.stall_s:
                sys.stderr.write(f"no train step, evaluation or checkpoint for {silent_s:.0f} s; stacks follow\n")
                sys.stderr.flush()
                faulthandler.dump_traceback(all_threads=True)
                os._exit(Exit.STALLED)


def _changed_ns(path: Path | None) -> int:
    """When a file was written last; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0


def domain_means(nats: np.ndarray, domains: np.ndarray, tokens: np.ndarray, num_domains: int) -> list[float | None]:
    """Mean loss of each domain in nats a token; None for a domain without sequences.

    Args:
        nats: summed nats of each sequence, float64.
        domains: its domain.
        tokens: its predicted tokens.
        num_domains: length of the result.
    """
    sums = np.bincount(domains, weights=nats, minlength=num_domains)
    counts = np.bincount(domains, weights=tokens, minlength=num_domains)
    return [float(total / count) if count else None for total, count in zip(sums, counts)]
