"""Our trainer beside litgpt's and Hugging Face's: same model, same initial weights, same sequences, one run.

    python -m benchmarks.training [--quick] [--json] [--peers PYTHON] [--threads N]

Every side is a process of its own (`benchmarks.training_sides`); they take turns of a few train steps each, so that
whatever else the machine does falls on all alike. Reported are medians of tokens a second, and medians over rounds of
ours divided by theirs in the same round. `--peers` names the Python of an environment with litgpt and accelerate:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 transformers accelerate litgpt lightning jsonargparse numpy xxhash

A peer that is not installed there is left out and named. `--quick` leaves out everyone's best settings, and saves the
15M model instead of the 120M one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEERS = ("hf", "litgpt")
PACKAGES = {"ours": "lightning", "hf": "accelerate", "litgpt": "litgpt"}


@dataclass
class Side:
    """A trainer's process and what it told."""

    name: str
    process: subprocess.Popen[str]
    hello: dict[str, float]
    turns: list[dict[str, Any]] = field(default_factory=list)

    def turn(self) -> dict[str, Any]:
        """Have it take a turn and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.turns.append(_answer(self.process, self.name))
        return self.turns[-1]

    def end(self) -> None:
        """Let it go."""
        self.process.kill()
        self.process.wait()


def start(name: str, python: str, options: dict[str, Any]) -> Side:
    """Start a side; ours as `gristmill train` starts its processes, and with everyone's best settings all so."""
    from training.processes import KEEP_MEMORY

    keep = KEEP_MEMORY if name == "ours" or options["tuned"] else {}
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, **keep, "PYTHONPATH": root, "OMP_NUM_THREADS": str(options["threads"])}
    command = [python, "-P", "-m", "benchmarks.training_sides", name, json.dumps(options)]
    log = Path(tempfile.gettempdir()) / f"gristmill-benchmark-{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    return Side(name, process, _answer(process, name))


def _answer(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        log = Path(tempfile.gettempdir()) / f"gristmill-benchmark-{name}.log"
        raise SystemExit(f"{name} ended: {log.read_text()[-2000:]}")
    found: dict[str, Any] = json.loads(line)
    return found


def installed(name: str, python: str) -> bool:
    """Whether the package of a side can be imported there."""
    finds = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({PACKAGES[name]!r}) is None)"
    return subprocess.run([python, "-P", "-c", finds], check=False).returncode == 0


def race(names: list[str], python: dict[str, str], options: dict[str, Any], rounds: int) -> dict[str, Any]:
    """All sides, in turns: tokens a second of each, and of ours divided by each peer's; the first turn compiles."""
    sides = [start(name, python[name], options) for name in names]
    try:
        for side in sides:
            side.turn()
        for round_ in range(rounds):
            for side in sides if round_ % 2 else sides[::-1]:
                side.turn()
    finally:
        for side in sides:
            side.end()
    tokens = options["steps"] * options["sequences"] * options["context"]
    speeds = {side.name: [tokens / turn["seconds"] for turn in side.turns[1:]] for side in sides}
    ratios = {
        name: statistics.median(our / their for our, their in zip(speeds["ours"], speeds[name], strict=True))
        for name in names
        if name != "ours"
    }
    ours = next(side for side in sides if side.name == "ours")
    counted = ours.turns[1:]
    achieved = statistics.median(speeds["ours"]) * ours.hello["flops_per_token"]
    return {
        "tokens_per_s": {name: statistics.median(values) for name, values in speeds.items()},
        "ratios": ratios,
        "tokens_per_cpu_s": {
            side.name: statistics.median(tokens / turn["cpu_s"] for turn in side.turns[1:]) for side in sides
        },
        "matmul_fraction": achieved / ours.hello["matmul_rate"],
        "loader_stall_share": sum(t["waited_s"] for t in counted) / sum(t["seconds"] for t in counted),
        "loss_difference": _loss_difference(sides),
    }


def _loss_difference(sides: list[Side]) -> dict[str, float]:
    """Largest relative difference of a turn's mean loss between ours and each peer."""
    means = {side.name: [statistics.mean(turn["losses"]) for turn in side.turns] for side in sides}
    return {
        name: max(abs(a - b) / b for a, b in zip(means["ours"], values, strict=True))
        for name, values in means.items()
        if name != "ours"
    }


def checkpoint_figures(preset: str, rounds: int) -> dict[str, float]:
    """What a checkpoint (weights and moments, checksummed) costs.

    `checkpoint_vs_raw_write` is the time to save one over the time to write its bytes to a file. The others are about
    one written in the background, over the time to save it at once: `checkpoint_blocked_share` the time that the
    training waits for it, `checkpoint_beside_share` how much longer the train step beside it takes in all, this
    waiting and the cores and memory that the thread takes included. The first round is not counted: it also gets the
    memory of the copy.
    """
    import torch

    from recipes.pretraining.shapes import shape_of
    from training import checkpoint
    from training.background import BackgroundSaver
    from training.batches import read_batch, synthetic_stream
    from training.config import Model
    from training.models import build
    from training.models.initial import initialise
    from training.spec import Optimizer, Span
    from training.step import ALONE, Hooks, StepOptions, make_optimizer, train_step

    shape = shape_of(Model.model_validate(preset), 32_000)
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    initialise(model, shape, 0)
    optimizer = make_optimizer(model, Optimizer())
    batch = read_batch(synthetic_stream(32_000, ["a"], 256), (Span(0, 0, 0, 8, 256),), 0, 0, 1)
    options = StepOptions(4, precision="bf16")

    def timed_step(hooks: Hooks) -> float:
        since = time.perf_counter()
        train_step(model, optimizer, batch, 1e-6, options, hooks=hooks)
        return time.perf_counter() - since

    timed_step(ALONE)
    manifest = {"position": 0, "tokens": 0, "prefix": {}, "shape": {}, "state": {}}
    ratios, blocked, beside = [], [], []
    saver = BackgroundSaver(0, checkpoint.alone)
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(rounds):
            since = time.perf_counter()
            saved = checkpoint.save(Path(folder), model, optimizer, {"step": round_, **manifest})
            took = time.perf_counter() - since
            content = (saved / "rank-00000.safetensors").read_bytes()
            since = time.perf_counter()
            with (Path(folder) / "raw").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            ratios.append(took / (time.perf_counter() - since))
            shutil.rmtree(saved)
            plain = timed_step(ALONE)
            since, waited = time.perf_counter(), saver.blocked_s
            saver.begin(Path(folder), model, optimizer, {"step": round_, **manifest})
            timed_step(Hooks(before_update=saver.wait_for_copy))
            blocked.append((saver.blocked_s - waited) / took)
            beside.append((time.perf_counter() - since - plain) / took)
            saver.finish()
            shutil.rmtree(saved)
    return {
        "checkpoint_vs_raw_write": statistics.median(ratios),
        "checkpoint_blocked_share": statistics.median(blocked[1:]),
        "checkpoint_beside_share": statistics.median(beside[1:]),
    }


def measure(quick: bool, peers: str, threads: int) -> dict[str, Any]:
    """All figures; None for what was left out."""
    python = {"ours": sys.executable, **dict.fromkeys(PEERS, peers)}
    names = ["ours", *(name for name in PEERS if installed(name, python[name]))]
    options = {"threads": threads, "steps": 2, "tuned": False}
    defaults = {"sequences": 8, "context": 256}
    found: dict[str, Any] = {"left_out": [name for name in PEERS if name not in names]}
    best: dict[str, list[float]] = {}
    for precision in ("bf16", "fp32"):
        told = race(names, python, {**options, **defaults, "precision": precision}, 3 if quick else 10)
        for name in PEERS:
            found[f"proxy_vs_{name}_{precision}"] = told["ratios"].get(name)
        found[f"details_{precision}"] = told
        if precision == "bf16":
            found |= {key: told[key] for key in ("matmul_fraction", "loader_stall_share")}
            best = {name: [speed] for name, speed in told["tokens_per_s"].items()}
    found["proxy_vs_best_tuned_bf16"] = None
    if not quick:
        tuned = race(names, python, {**options, **defaults, "precision": "bf16", "tuned": True}, 10)
        found["details_tuned_bf16"] = tuned
        speeds = {name: max(*values, tuned["tokens_per_s"][name]) for name, values in best.items()}
        theirs = [speed for name, speed in speeds.items() if name != "ours"]
        found["proxy_vs_best_tuned_bf16"] = speeds["ours"] / max(theirs) if theirs else None
    return found | checkpoint_figures("llama_15m" if quick else "llammlein_120m", 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", default=sys.executable, help="Python of the environment of the peers")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    found = measure(wanted.quick, wanted.peers, wanted.threads)
    if wanted.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:28} {value:.3f}" if isinstance(value, float) else f"{name:28} {value or 'left out'}")
        else:
            print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
