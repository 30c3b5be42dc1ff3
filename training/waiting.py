"""How long each process waits for the others, and who lets them wait.

Processes that train together are as fast as the slowest: it alone never waits. Whoever waits least, while the others
wait long, is the one to look at, whatever holds it up: a throttled core, a neighbour, a slow disk, a stop.

Waiting is measured where it happens on the host: in `Work.wait` of torch.distributed, which every collective of gloo
goes through. A GPU waits on its stream, where the host sees nothing: there the preflight's rates are what tells.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch.distributed as dist

# A rank is named if the others waited for it in more than this share of the time, over so many seconds.
WAITED_SHARE = 0.2
WINDOW_S = 20.0


class WaitingClock:
    """Seconds that this process spent in waits for collectives, all in all."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def start(self) -> None:
        """Measure from now on. A process has one such clock: the last one started."""
        plain = getattr(dist.Work.wait, "plain", dist.Work.wait)

        def wait(work: Any, *arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return plain(work, *arguments, **options)
            finally:
                self.waited_s += time.perf_counter() - started

        wait.plain = plain
        dist.Work.wait = wait


class SlowRank:
    """Finds the process that the others wait for, over windows of some seconds.

    Args:
        hosts: of the processes, in order of ranks.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = list(hosts)
        self._waited = [0.0] * len(self.hosts)
        self._spent = [0.0] * len(self.hosts)

    def add(self, waited_s: Sequence[float], spent_s: Sequence[float]) -> str | None:
        """Take in some train steps.

        Args:
            waited_s: seconds that each rank waited in them.
            spent_s: seconds that they took on each rank.

        Returns:
            None while a window is not over; then what is to be said of it, empty where no rank stands out.
        """
        self._waited = [sum(pair) for pair in zip(self._waited, waited_s)]
        self._spent = [sum(pair) for pair in zip(self._spent, spent_s)]
        window = median(self._spent)
        if window < WINDOW_S:
            return None
        said = self._judge(window)
        self._waited, self._spent = [0.0] * len(self.hosts), [0.0] * len(self.hosts)
        return said

    def _judge(self, window_s: float) -> str:
        slow = min(range(len(self.hosts)), key=self._waited.__getitem__)
        others = [waited for rank, waited in enumerate(self._waited) if rank != slow]
        share = (median(others) - self._waited[slow]) / window_s
        if share < WAITED_SHARE:
            return ""
        where = f"rank {slow} on {self.hosts[slow]}"
        return f"{where} is slow: the others waited for it {share:.0%} of the last {window_s:.0f} s"
