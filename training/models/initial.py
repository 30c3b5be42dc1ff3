"""Initial values: each parameter is a pure function of (seed, its name), whatever the sharding or world size.

Building on the meta device and drawing with a default generator would give other weights for other world sizes. Here a
rank draws a whole parameter with a generator of that parameter's own and keeps its rows, so memory grows with the
largest parameter, not with the model.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from training.models.shape import ModelShape
from training.sharding import local_rows


def initialise(model: nn.Module, shape: ModelShape, seed: int) -> None:
    """Set every parameter of a model, sharded or not, in place.

    Args:
        model: a model of this shape whose parameters have memory (not on the meta device).
        shape: its shape; the family decides the distribution.
        seed: the run's seed.
    """
    for name, parameter in model.named_parameters():
        rows = local_rows(parameter)
        values = initial_values(shape, name, tuple(parameter.shape), seed)
        with torch.no_grad():
            rows.tensor.copy_(values[rows.first : rows.first + rows.count])


def initial_values(shape: ModelShape, name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """The initial value of one parameter, float32 on the CPU.

    Sources:
        llama: TinyLlama's and LLäMmlein's training code, N(0, sqrt(2 / (5 width))) for embeddings and linear layers,
        N(0, 1 / (sqrt(width) layers)) for the layers that write into the residual stream.
        gpt_neo: N(0, 0.02), biases 0 (Hugging Face's GPT-Neo, after GPT-2).
        mindllm: DeepNet (arXiv:2203.00555, figure 2): Xavier normal, with gain (8 layers)^(-1/4) on value, output and
        feed-forward, gain 1 on query and key; embedding N(0, width^(-1/2)).
    """
    if name.endswith("norm.weight"):
        return torch.ones(size)
    if name.endswith("bias"):
        return torch.zeros(size)
    generator = torch.Generator().manual_seed(_seed_of(name, seed))
    return torch.empty(size).normal_(0.0, _deviation(shape, name, size), generator=generator)


def _seed_of(name: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _deviation(shape: ModelShape, name: str, size: tuple[int, ...]) -> float:
    if shape.family == "gpt_neo":
        return 0.02
    if shape.family == "llama":
        writes_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
        return 1 / (math.sqrt(shape.width) * shape.layers) if writes_residual else math.sqrt(2 / (5 * shape.width))
    if name == "embedding.weight":
        return shape.width**-0.5
    plain = name.endswith(("query.weight", "key.weight")) or name == "output.weight"
    gain = 1.0 if plain else (8 * shape.layers) ** -0.25
    return gain * math.sqrt(2 / (size[0] + size[1]))
