"""How long it takes to open an order, seek in it and read it: 3 T tokens with 100 domains, 10,000 domains, a ramp.

Run: `python -m benchmarks.order_speed [case]`; a fresh process per case, so that its memory is its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from mixing.order import open_order
from mixing.plan import DomainSupply, Plan, make_plan
from mixing.schedule import Amount, BatchLine, Phase

SEQUENCES_3T = 1_464_843_750
CONTEXT = 2048


def supplies(num_domains: int, total: int, seed: int) -> tuple[list[DomainSupply], dict[str, float]]:
    """Make domains with Dirichlet weights; each has two epochs' worth of what it is asked for."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(num_domains))
    names = [f"domain_{g:05d}" for g in range(num_domains)]
    domains = [
        DomainSupply(name, max(2, int(share * total / 2)) * CONTEXT + 1)
        for name, share in zip(names, shares, strict=True)
    ]
    return domains, dict(zip(names, shares.tolist(), strict=True))


def case(name: str) -> Plan:
    """Make the plan of a case."""
    if name == "100 domains, 3 T":
        domains, weights = supplies(100, SEQUENCES_3T, 1)
        phases = [Phase("all", Amount(SEQUENCES_3T, "sequences"), weights, CONTEXT)]
    elif name == "10,000 domains, 3 T":
        domains, weights = supplies(10_000, SEQUENCES_3T, 1)
        phases = [Phase("all", Amount(SEQUENCES_3T, "sequences"), weights, CONTEXT)]
    else:
        domains, weights = supplies(100, SEQUENCES_3T, 1)
        turned = dict(zip(weights, reversed(weights.values()), strict=True))
        half = Amount(SEQUENCES_3T // 2, "sequences")
        phases = [Phase("first", half, weights, CONTEXT), Phase("second", half, turned, CONTEXT, ramp=half)]
    return make_plan(domains, phases, [BatchLine(0, 1024 * CONTEXT)], max_epochs=1e9)


def best_ms(call: Callable[[], object], times: int = 5) -> float:
    """Return the least processor time of some calls, in ms: other programs on the machine do not count."""
    elapsed = []
    for _ in range(times):
        start = time.process_time()
        call()
        elapsed.append(time.process_time() - start)
    return min(elapsed) * 1e3


def measure(name: str) -> None:
    """Print one case's times and memory; kernels are loaded on a small plan first."""
    small = make_plan([DomainSupply("a", 9000)], [Phase("p", Amount(9), {"a": 1}, 2)], [BatchLine(0, 2)])
    open_order(small).positions_of_draws("a", open_order(small).locate([0]).draw)
    start = time.process_time()
    text = case(name).to_json()
    planned = time.process_time() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    opened = best_ms(lambda: open_order(Plan.from_json(text)), 3)
    order = open_order(Plan.from_json(text))
    last = order.plan.num_positions
    sought = best_ms(lambda: order.locate([last - 1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    step = best_ms(lambda: order.locate(np.arange(last // 2, last // 2 + 1024)))
    located = order.locate([last // 3])
    inverse = best_ms(lambda: order.positions_of_draws(order.names[int(located.domain[0])], located.draw))
    each = best_ms(lambda: order.locate(np.arange(last // 3, last // 3 + 1_000_000)), 3)
    print(
        f"{name}: plan {planned:.2f} s ({len(text) / 1e6:.2f} MB), open {opened:.0f} ms, seek {sought:.2f} ms, "
        f"train step {step:.2f} ms, {each:.0f} ns a position, back {inverse:.2f} ms, "
        f"peak memory {before} MB with the kernels loaded, {peak} MB with the order open"
    )


def main() -> None:
    """Measure one case, or each in a process of its own."""
    if sys.argv[1:]:
        measure(sys.argv[1])
        return
    for name in ("100 domains, 3 T", "10,000 domains, 3 T", "100 domains, 3 T, half a ramp"):
        subprocess.run([sys.executable, "-m", "benchmarks.order_speed", name], check=True)


if __name__ == "__main__":
    main()
