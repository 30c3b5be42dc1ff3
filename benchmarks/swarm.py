"""How fast proxies train: K stacked as one model against K in turn, and small micro-batches against large ones.

    python -m benchmarks.swarm [--quick] [--json] [--device cpu|cuda] [--threads N]

Train steps on made text, A and B alternating in one process, medians. `stacked_vs_single` is tokens a second of K
stacked proxies over those of K single runs in turn, for the 15M preset; `_tiny` and `_1m` are the same for smaller
shapes, where starting an operation costs more of the whole. `micro_batch_4_vs_16` compares one 15M proxy. `--quick`
takes shorter sequences and fewer repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from training import stacked
from training.batches import Batch
from training.models import ModelShape, build
from training.models.initial import initialise
from training.presets import MODEL_PRESETS
from training.spec import Optimizer
from training.step import StepOptions, make_optimizer, train_step

RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A shape, how many proxies, sequences of a train step, their context, and sequences at once."""

    shape: ModelShape
    number: int
    batch: int
    context: int
    micro_batch: int
    device: str
    precision: str = "bf16"


def shape_of(preset: str, vocabulary: int) -> ModelShape:
    """A preset's shape."""
    return ModelShape(vocabulary=vocabulary, **{k: v for k, v in MODEL_PRESETS[preset].items() if k != "training"})


def made_tokens(case: Case) -> torch.Tensor:
    """Random ids (K, B, T + 1)."""
    chance = torch.Generator().manual_seed(0)
    size = (case.number, case.batch, case.context + 1)
    return torch.randint(0, case.shape.vocabulary, size, generator=chance).to(case.device)


def single_steps(case: Case) -> Callable[[], None]:
    """One train step of every proxy, one proxy after another."""
    options, tokens = StepOptions(case.micro_batch, precision=case.precision), made_tokens(case)
    runs = []
    for seed in range(case.number):
        with torch.device("meta"):
            model = build(case.shape)
        model.to_empty(device=case.device)
        initialise(model, case.shape, seed)
        runs.append((model, make_optimizer(model, Optimizer())))

    def step() -> None:
        for place, (model, optimizer) in enumerate(runs):
            batch = Batch(0, 0, case.batch, np.zeros(case.batch, int), tokens[place])
            train_step(model, optimizer, batch, RATE, options)
        _wait(case)

    return step


def stacked_steps(case: Case) -> Callable[[], None]:
    """One train step of all proxies at once."""
    options, tokens = StepOptions(case.micro_batch, precision=case.precision), made_tokens(case)
    stack = stacked.make_stack(case.shape, range(case.number), case.device)
    optimizer = stacked.make_optimizer(stack, Optimizer())

    def step() -> None:
        stacked.stacked_step(stack, optimizer, tokens, RATE, options)
        _wait(case)

    return step


def _wait(case: Case) -> None:
    if case.device == "cuda":
        torch.cuda.synchronize()


def speeds(case: Case, ways: list[Callable[[], None]], repeats: int) -> list[float]:
    """Tokens a second of each way, alternating, by the median of its times; the first of each is warm-up."""
    times: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for way, spent in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            if repeat:
                spent.append(time.perf_counter() - start)
    tokens = case.number * case.batch * case.context
    return [tokens / statistics.median(spent) for spent in times]


def measure(quick: bool, device: str) -> dict[str, float]:
    """All numbers."""
    context = 256 if quick else 1024
    cases = {
        "_tiny": Case(shape_of("llama_tiny", 1000), 8, 8, 64, 8, device),
        "_1m": Case(shape_of("llama_1m", 4096), 8, 8, 128, 8, device),
        "": Case(shape_of("llama_15m", 32000), 2 if quick else 4, 4, context, 4, device),
    }
    found: dict[str, float] = {}
    for name, case in cases.items():
        repeats = 3 if quick and not name else 5
        alone, together = speeds(case, [single_steps(case), stacked_steps(case)], repeats)
        found[f"single_tokens_per_s{name}"] = round(alone)
        found[f"stacked_tokens_per_s{name}"] = round(together)
        found[f"stacked_vs_single{name}"] = round(together / alone, 3)
    large = Case(shape_of("llama_15m", 32000), 1, 8 if quick else 16, context, 16, device)
    small = Case(large.shape, 1, large.batch, context, 4, device)
    at_16, at_4 = speeds(large, [single_steps(large), single_steps(small)], 3)
    found["micro_batch_4_vs_16"] = round(at_4 / at_16, 3)
    return found


def main() -> None:
    """Print the numbers, as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.quick, arguments.device)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
