"""Causal attention, inside documents or a window where asked, by the kernel that serves.

A model makes a `Reach` once per micro-batch, and every layer calls `attend` with it. `sdpa` is torch's
scaled_dot_product_attention, with a dense mask where there are documents or a window; `ours` are the kernels of
`training.fused`, on a CPU.

Shapes: B sequences, T tokens, H query heads, K key heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training import fused
from training.documents import Documents

Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Reach:
    """Which tokens the queries of a layer see: earlier ones, of the same document, inside the window.

    Attributes:
        kernel: ours or sdpa.
        mask: of `sdpa`, bool (B, 1, T, T) or (T, T); None where all earlier tokens are seen.
    """

    kernel: str
    mask: Tensor | None = None


def reach_of(x_BTD: Tensor, documents: Documents | None, window: int | None = None) -> Reach:
    """Say what the queries of a micro-batch see.

    Args:
        x_BTD: what enters the first layer.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
    """
    T = x_BTD.shape[1]
    if documents is None and window is None:
        return Reach("ours" if fused.serves(x_BTD) else "sdpa")
    mask = None if documents is None else documents.mask()
    if window is not None:
        near_TT = near(T, window, x_BTD.device)
        mask = near_TT if mask is None else near_TT & mask
    return Reach("sdpa", mask)


def near(length: int, window: int, device: torch.device) -> Tensor:
    """Which keys a query sees inside a window: key j from query i where i - window < j <= i; bool (T, T)."""
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal_TT & ~causal_TT.tril(-window)


def rotate(heads_BHTE: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (e, e + E/2) of a head by its position's angle."""
    cos_TE, sin_TE = rotation
    first, second = heads_BHTE.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (heads_BHTE.float() * cos_TE + turned * sin_TE).to(heads_BHTE.dtype)


def attend(
    q_BTHE: Tensor,
    k_BTKE: Tensor,
    v_BTKE: Tensor,
    reach: Reach,
    rotation: Rotation | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attend to the tokens within reach; K key heads serve H query heads.

    Args:
        q_BTHE: queries, not rotated.
        k_BTKE: keys, not rotated.
        v_BTKE: values.
        reach: what is seen.
        rotation: tables of rotary positions; None for a model without.
        scale: what scores are multiplied with; None: one over the root of E.

    Returns:
        (B, T, H, E).
    """
    if reach.kernel == "ours" and rotation is not None and scale is None and fused.serves(q_BTHE):
        return fused.rotary_attention(q_BTHE, k_BTKE, v_BTKE, rotation)
    q_BHTE, k_BKTE, v_BKTE = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    if rotation is not None:
        q_BHTE, k_BKTE = rotate(q_BHTE, rotation), rotate(k_BKTE, rotation)
    y_BHTE = functional.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=reach.mask,
        is_causal=reach.mask is None,
        scale=scale,
        enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
    )
    return y_BHTE.transpose(1, 2)
