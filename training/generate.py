"""A look at what a model writes, from a checkpoint of any number of processes. Slow and simple: nothing is cached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from training.checkpoint import load_model, open_checkpoint


@torch.no_grad()
def continuations(
    checkpoint: Path, prompt: list[int], num_tokens: int, temperature: float, seed: int, stop: int | None = None
) -> Iterator[int]:
    """Continue a prompt, token by token.

    Args:
        checkpoint: its folder.
        prompt: token ids, at least one.
        num_tokens: most new tokens.
        temperature: 0 takes the likeliest token; 1 draws as the model says.
        seed: of the draws.
        stop: id after which nothing follows.
    """
    model = load_model(open_checkpoint(checkpoint))
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    for _ in range(num_tokens):
        tokens_BT = torch.tensor([ids[-model.shape.context :]])
        logits_V = model(tokens_BT)[0, -1].float()
        if temperature == 0:
            token = int(logits_V.argmax())
        else:
            token = int(torch.multinomial((logits_V / temperature).softmax(-1), 1, generator=generator))
        if token == stop:
            return
        ids.append(token)
        yield token
