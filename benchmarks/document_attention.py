"""Attention inside documents on a CPU: ours beside torch's with a dense mask, in one run.

    python -m benchmarks.document_attention [--quick] [--json] [--precision bf16|fp32]

A layer's attention of the 15M proxy (6 heads of 48, 4 sequences of 1,024 tokens), forward and backward, and a whole
train step of it, where documents have about 20, 200 and 1,000 tokens and where they are not told apart. Both sides take
turns; the figure is the median of CPU time of one thread, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.signals_text import alternated
from recipes.pretraining.shapes import shape_of
from training.attention import attend, reach_of
from training.batches import Batch
from training.config import Model
from training.documents import documents_of
from training.models import ModelShape, build
from training.models.initial import initialise
from training.models.llama import rotary_tables
from training.spec import Optimizer
from training.step import StepOptions, make_optimizer, train_step

SEPARATOR, SEQUENCES, CONTEXT = 0, 4, 1024
SIDES = {"ours": "auto", "dense": "sdpa"}


def made_tokens(shape: ModelShape, mean_length: int | None) -> Tensor:
    """Random ids in which documents end, on average after so many tokens (a geometric law); None: nowhere."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, shape.vocabulary, (SEQUENCES, CONTEXT + 1))
    if mean_length is not None:
        tokens[draw.random(tokens.shape) < 1 / mean_length] = SEPARATOR
    return torch.from_numpy(tokens)


def layer(shape: ModelShape, mean_length: int | None, kind: torch.dtype) -> dict[str, Callable[[], Any]]:
    """One layer's attention, forward and backward, by each side."""
    tokens = made_tokens(shape, mean_length)[:, :-1]
    documents = None if mean_length is None else documents_of(tokens, SEPARATOR)
    rotation = rotary_tables(shape, CONTEXT, torch.device("cpu"))
    parts = [
        torch.randn(SEQUENCES, CONTEXT, heads, shape.head_width).to(kind).requires_grad_()
        for heads in (shape.heads, shape.num_kv_heads, shape.num_kv_heads)
    ]
    upstream = torch.randn_like(parts[0])

    def work(kernel: str) -> None:
        # What is made once for all layers is counted here once a layer.
        reach = reach_of(parts[0].flatten(2), documents, kernel=kernel)
        torch.autograd.grad(attend(*parts, reach, rotation), parts, upstream)

    return {name: lambda kernel=kernel: work(kernel) for name, kernel in SIDES.items()}


def whole_step(shape: ModelShape, mean_length: int | None, precision: str) -> dict[str, Callable[[], Any]]:
    """A train step by each side."""
    batch = Batch(0, 0, SEQUENCES, np.zeros(SEQUENCES, dtype=np.int64), made_tokens(shape, mean_length))
    options = StepOptions(SEQUENCES, precision=precision, separator=None if mean_length is None else SEPARATOR)

    def side(kernel: str) -> Callable[[], Any]:
        with torch.device("meta"):
            model = build(shape, attention=kernel)
        model.to_empty(device="cpu")
        initialise(model, shape, 0)
        optimizer = make_optimizer(model, Optimizer())
        return lambda: train_step(model, optimizer, batch, 1e-4, options)

    return {name: side(kernel) for name, kernel in SIDES.items()}


def measure(precision: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each part and length of documents."""
    shape = shape_of(Model.model_validate("llama_15m"), 32_000)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = []
    for mean_length in (20, 200, 1000, None):
        for part, sides, turns in (
            ("layer", layer(shape, mean_length, kind), 3 * rounds),
            ("train step", whole_step(shape, mean_length, precision), rounds),
        ):
            took = {name: 1e3 * seconds for name, seconds in alternated(sides, turns).items()}  # ms of CPU
            rows.append({"part": part, "tokens_a_document": mean_length, "precision": precision, **took})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn instead of five")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    wanted = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = measure(wanted.precision, 1 if wanted.quick else 5)
    if wanted.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for row in rows:
        length = row["tokens_a_document"] or "not told apart"
        sys.stdout.write(
            f"{row['part']:10} {length!s:>14}  dense {row['dense']:9.1f} ms  ours {row['ours']:9.1f} ms  "
            f"{row['dense'] / row['ours']:.2f} times\n"
        )


if __name__ == "__main__":
    main()
