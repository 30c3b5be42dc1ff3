"""Attention kernels of a GPU that know where documents lie: torch's flex_attention and varlen_attn.

Both are given what they need once per micro-batch and run for all layers. Nothing here has run on a GPU: flex runs
eagerly on a CPU for the tests (torch has no backward of it there), varlen has no CPU kernel at all and is tested by a
plain twin with its signature.

Shapes: B sequences, T tokens, N = B * T, H query heads, K key heads, E width of a head, C blocks of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from training.documents import Documents

# Queries, and keys, of a block of flex_attention: its default.
BLOCK = 128


def block_mask(x_BTD: Tensor, documents: Documents | None, window: int | None) -> BlockMask:
    """Which blocks of keys flex_attention reads for each block of queries, and which of those are seen in part.

    torch's `create_block_mask` asks for every pair of tokens, (B, T, T). Documents and windows lie in a row, so the
    ends of two blocks tell of all their pairs: this takes (B, C, C).

    Args:
        x_BTD: gives sizes and device.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
    """
    T, device = x_BTD.shape[1], x_BTD.device
    numbers_BT = torch.zeros(1, T, dtype=torch.int64, device=device) if documents is None else documents.numbers
    firsts_C = torch.arange(0, T, BLOCK, device=device)
    lasts_C = (firsts_C + BLOCK - 1).clamp(max=T - 1)
    begins_BC, ends_BC = numbers_BT[:, firsts_C], numbers_BT[:, lasts_C]
    # Of an earlier and a later block, the last and the first token are nearest, the first and the last farthest.
    seen_BCC = ends_BC[:, None, :] == begins_BC[:, :, None]
    whole_BCC = begins_BC[:, None, :] == ends_BC[:, :, None]
    if window is not None:
        seen_BCC = seen_BCC & (firsts_C[:, None] - lasts_C[None, :] < window)
        whole_BCC = whole_BCC & (lasts_C[:, None] - firsts_C[None, :] < window)
    full_C = firsts_C + BLOCK <= T
    whole_BCC = (whole_BCC & full_C[:, None]).tril(-1)
    partly_BCC = (seen_BCC.tril(-1) & ~whole_BCC) | torch.eye(len(firsts_C), dtype=torch.bool, device=device)

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= key
        if documents is not None:
            seen = seen & (numbers_BT[b, query] == numbers_BT[b, key])
        return seen if window is None else seen & (query - key < window)

    parts = [part for blocks_BCC in (partly_BCC, whole_BCC) for part in _in_order(blocks_BCC.unsqueeze(1))]
    return BlockMask.from_kv_blocks(*parts, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(T, T))


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and their places before all others, int32."""
    places = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).int(), places.int()


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def flex(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, blocks: BlockMask, scale: float | None) -> Tensor:
    """Attention by flex_attention, (B, H, T, E); compiled on a GPU, where the plain one would make (T, T) scores."""
    alone = q_BHTE.device.type == "cuda" and not torch.compiler.is_compiling()
    run = _compiled_flex() if alone else flex_attention
    repeated = q_BHTE.shape[1] != k_BKTE.shape[1]
    return run(q_BHTE, k_BKTE, v_BKTE, block_mask=blocks, scale=scale, enable_gqa=repeated)


def cuts(x_BTD: Tensor, documents: Documents | None) -> Tensor:
    """Where documents, or without them sequences, begin among all N tokens, and N at the end, int32.

    The number of documents is asked of the device, which is therefore waited for once per micro-batch.
    """
    if documents is not None:
        return documents.cuts
    B, T, _ = x_BTD.shape
    return torch.arange(0, B * T + 1, T, dtype=torch.int32, device=x_BTD.device)


def varlen(
    q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, cut: Tensor, window: int | None, scale: float | None
) -> Tensor:
    """Attention by varlen_attn, (B, T, H, E).

    The longest document is said to have T tokens: what is longer than needed costs blocks that end at once, and is the
    same in every micro-batch, while the true number would be waited for and compiled for.
    """
    T = q_BTHE.shape[1]
    y_NHE = varlen_attn(
        *(x.flatten(0, 1) for x in (q_BTHE, k_BTKE, v_BTKE)),
        cut,
        cut,
        T,
        T,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q_BTHE.shape[2] != k_BTKE.shape[2],
    )
    return y_NHE.view(q_BTHE.shape)


def varlen_serves(x_BTD: Tensor) -> bool:
    """Whether varlen_attn has a kernel for this device and type: 16 bits, from NVIDIA's Ampere on."""
    short = x_BTD.dtype in (torch.bfloat16, torch.float16)
    return short and x_BTD.device.type == "cuda" and torch.cuda.get_device_capability(x_BTD.device) >= (8, 0)
