"""How long it takes to open an order, seek in it and read it: 3 T tokens with 100 domains, 10,000 domains, a ramp.

Run: `python -m benchmarks.order_speed [case]`; a fresh process per case, so that its memory is its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

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


def measure(name: str) -> None:
    """Print one case's times; kernels are compiled on a small plan first."""
    open_order(make_plan([DomainSupply("a", 9000)], [Phase("p", Amount(9), {"a": 1}, 2)], [BatchLine(0, 2)])).locate(
        [0]
    )
    start = time.perf_counter()
    text = case(name).to_json()
    planned = time.perf_counter() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    order = open_order(Plan.from_json(text))
    opened = time.perf_counter() - start
    last = order.plan.num_positions
    start = time.perf_counter()
    order.locate([last - 1])
    sought = time.perf_counter() - start
    start = time.perf_counter()
    order.locate(np.arange(last // 2, last // 2 + 1024))
    step = time.perf_counter() - start
    start = time.perf_counter()
    many = order.locate(np.arange(last // 3, last // 3 + 1_000_000))
    each = (time.perf_counter() - start) / 1e6
    start = time.perf_counter()
    order.positions_of_draws(order.names[int(many.domain[0])], many.draw[:1])
    inverse = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{name}: plan {planned:.2f} s ({len(text) / 1e6:.2f} MB), open {opened * 1e3:.0f} ms, seek {sought * 1e3:.2f} ms, "
        f"train step {step * 1e3:.2f} ms, {each * 1e9:.0f} ns a position, back {inverse * 1e3:.2f} ms, "
        f"memory {before // 1024} -> {peak // 1024} MB"
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
