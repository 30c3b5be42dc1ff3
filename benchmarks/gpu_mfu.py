"""How well one GPU is used: tokens a second, MFU and memory of the 15M, 120M and 1B models.

    python -m benchmarks.gpu_mfu [--quick] [--json] [--profile FOLDER] [--only llama_15m ...]
        [--documents TOKENS] [--attention auto|sdpa|flex|varlen]

Each model trains with `training.step.train_step` as `gristmill train` does on a GPU: bf16, compiled blocks, fused
AdamW, the micro-batch found by trial (`training.fitting`). Batches are random ids that lie on the device, so that
reading is no part of it (`benchmarks.training` measures the loader). With `--documents` one ends after so many tokens
on average and attention stays inside them; MFU still counts the whole context. Timed are train steps after those that
compile, between two waits for the device. Targets on one H100: 25 %, 45 % and 55 %. `--profile` writes the kernels of
two train steps as a table beside a trace. Where no GPU is, it says so and ends with 2; `--device cpu --shape tiny` runs
the same lines on a CPU with a shape of a few thousand parameters, for the test.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.pretraining.shapes import shape_of
from training.batches import Batch
from training.config import Model
from training.fitting import step_fits
from training.footprint import tried_micro_batch
from training.models import ModelShape, build, num_parameters
from training.models.initial import initialise
from training.peak import peak_of, utilisation
from training.spec import ATTENTIONS, Optimizer, attention_problem
from training.step import StepOptions, make_optimizer, train_step

# Preset, and tokens of a train step: with fewer the update weighs more than it does in training.
MODELS = {"llama_15m": 1 << 19, "llammlein_120m": 1 << 19, "llammlein_1b": 1 << 19}
TARGETS = {"llama_15m": 0.25, "llammlein_120m": 0.45, "llammlein_1b": 0.55}
VOCABULARY = 32_000
MOST_SEQUENCES, SEPARATOR = 256, 0
TINY = ModelShape("llama", 64, 16, 2, 2, 32, 32, tied=True)


@dataclass(frozen=True)
class Figures:
    """One model's: speed, share of the device's peak (None where that is unknown), and memory."""

    model: str
    attention: str
    tokens_a_document: int | None
    parameters: int
    context: int
    micro_batch: int
    tokens_per_s: float
    mfu: float | None
    target: float | None
    peak_bytes: int
    device: str


@dataclass(frozen=True)
class Asked:
    """What is measured beside the model: the kernel of attention, and tokens of a document (None: one a sequence)."""

    attention: str = "auto"
    tokens_a_document: int | None = None


def network_of(shape: ModelShape, device: torch.device, compiled: bool, attention: str) -> torch.nn.Module:
    """A fresh model on the device, its blocks compiled as training compiles them."""
    with torch.device("meta"):
        network = build(shape, attention=attention)
    if compiled:
        for block in network.blocks:
            block.compile()
    network.to_empty(device=device)
    initialise(network, shape, 0)
    return network


def random_batch(shape: ModelShape, sequences: int, device: torch.device, tokens_a_document: int | None) -> Batch:
    """Sequences of random ids that lie on the device, in which documents end where that is asked for."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, shape.vocabulary, (sequences, shape.context + 1), generator=draw)
    if tokens_a_document is not None:
        tokens[torch.rand(tokens.shape, generator=draw) < 1 / tokens_a_document] = SEPARATOR
    return Batch(0, 0, sequences, np.zeros(sequences, dtype=np.int64), tokens.to(device))


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest(network: torch.nn.Module, shape: ModelShape, options: StepOptions, device: torch.device) -> int:
    """Sequences at once, by trial; a power of two or the most, so that every micro-batch has one compiled shape."""
    room = 8 * num_parameters(shape)

    def fits(size: int) -> bool:
        tokens = torch.ones(size, shape.context + 1, dtype=torch.int64, device=device)
        return step_fits(network, tokens, options, room)

    found = tried_micro_batch(fits, options.micro_batch, MOST_SEQUENCES)
    return 1 << (found.bit_length() - 1)


def measure(name: str, shape: ModelShape, batch_tokens: int, device: torch.device, steps: int, asked: Asked) -> Figures:
    """Train a few steps of one model and time them."""
    options = options_of(16, asked)
    trial = network_of(shape, device, False, asked.attention)  # what fits plain fits compiled, which keeps less
    options = replace(options, micro_batch=largest(trial, shape, options, device))
    del trial
    network = network_of(shape, device, device.type == "cuda", asked.attention)
    optimizer = make_optimizer(network, Optimizer())
    sequences = max(options.micro_batch, batch_tokens // shape.context // options.micro_batch * options.micro_batch)
    batch = random_batch(shape, sequences, device, asked.tokens_a_document)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):  # compiles, and makes the moments
        train_step(network, optimizer, batch, 1e-4, options)
    wait_for(device)
    since = time.perf_counter()
    for _ in range(steps):
        train_step(network, optimizer, batch, 1e-4, options)
    wait_for(device)
    speed = steps * sequences * shape.context / (time.perf_counter() - since)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Figures(
        model=name,
        attention=asked.attention,
        tokens_a_document=asked.tokens_a_document,
        parameters=num_parameters(shape),
        context=shape.context,
        micro_batch=options.micro_batch,
        tokens_per_s=speed,
        mfu=utilisation(shape, shape.context, speed, 1, peak_of(device_name, "bf16")),
        target=TARGETS.get(name),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        device=device_name,
    )


def options_of(micro_batch: int, asked: Asked) -> StepOptions:
    """Of a train step in bf16."""
    return StepOptions(micro_batch, precision="bf16", separator=SEPARATOR if asked.tokens_a_document else None)


def profile(name: str, shape: ModelShape, micro_batch: int, device: torch.device, folder: Path, asked: Asked) -> Path:
    """Write the kernels of two train steps of one micro-batch, most time first, and their trace."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watching

    network = network_of(shape, device, device.type == "cuda", asked.attention)
    batch = random_batch(shape, micro_batch, device, asked.tokens_a_document)
    optimizer, options = make_optimizer(network, Optimizer()), options_of(micro_batch, asked)
    train_step(network, optimizer, batch, 1e-4, options)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with watching(activities=kinds) as seen:
        for _ in range(2):
            train_step(network, optimizer, batch, 1e-4, options)
        wait_for(device)
    folder.mkdir(parents=True, exist_ok=True)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = folder / f"{name}.txt"
    table.write_text(seen.key_averages().table(sort_by=order, row_limit=40))
    seen.export_chrome_trace(str(folder / f"{name}.json"))
    return table


def shapes(only: list[str], tiny: bool) -> dict[str, tuple[ModelShape, int]]:
    """Shape and tokens of a train step by name."""
    if tiny:
        return {"tiny": (TINY, 8 * TINY.context)}
    named = {name: size for name, size in MODELS.items() if not only or name in only}
    return {name: (shape_of(Model.model_validate({"preset": name}), VOCABULARY), size) for name, size in named.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 timed train steps instead of 20")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", type=Path, help="folder of profiles")
    parser.add_argument("--only", nargs="*", default=[], choices=list(MODELS), help="some of the models")
    parser.add_argument("--attention", default="auto", choices=list(ATTENTIONS))
    parser.add_argument("--documents", type=int, metavar="TOKENS", help="documents of so many tokens, kept apart")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--shape", choices=["tiny"], help="instead of the models")
    wanted = parser.parse_args(arguments)
    if wanted.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device is here; run it where one is (docs/training.md, Speed)\n")
        return 2
    if problem := attention_problem(wanted.attention, wanted.device, "bf16"):
        parser.error(f"--attention {wanted.attention}: {problem}")
    device, asked = torch.device(wanted.device), Asked(wanted.attention, wanted.documents)
    found: list[dict[str, Any]] = []
    for name, (shape, batch_tokens) in shapes(wanted.only, wanted.shape == "tiny").items():
        figures = measure(name, shape, batch_tokens, device, 5 if wanted.quick else 20, asked)
        found.append(asdict(figures))
        if wanted.profile is not None:
            profile(name, shape, figures.micro_batch, device, wanted.profile, asked)
        if not wanted.json:
            target = "" if figures.target is None else f" (target {figures.target:.0%})"
            share = "peak unknown" if figures.mfu is None else f"MFU {figures.mfu:.1%}{target}"
            sys.stdout.write(
                f"{name:16} {figures.tokens_per_s:12,.0f} tokens/s  {share}  micro-batch {figures.micro_batch}  "
                f"{figures.peak_bytes / 2**30:.1f} GiB on {figures.device}\n"
            )
    if wanted.json:
        sys.stdout.write(json.dumps({"models": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
