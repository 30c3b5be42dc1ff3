"""Causal attention, inside documents or a window where asked, by the kernel that serves.

A model makes a `Reach` once per micro-batch, and every layer calls `attend` with it. `sdpa` is torch's
scaled_dot_product_attention, with a dense mask where there are documents or a window; `ours` goes document by document
on a CPU (`training.fused_attention`). Where a window cuts a document, `sdpa` serves.

Shapes: B sequences, T tokens, H query heads, K key heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training import fused, fused_attention
from training.documents import Documents, Group, whole_sequences

Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Reach:
    """Which tokens the queries of a layer see: earlier ones, of the same document, inside the window.

    Attributes:
        kernel: ours or sdpa.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
        groups: of `ours`, the documents as it takes them.
        mask: of `sdpa`, bool (B, 1, T, T) or (T, T); None where all earlier tokens are seen.
    """

    kernel: str
    documents: Documents | None = None
    window: int | None = None
    groups: tuple[Group, ...] = ()
    mask: Tensor | None = None


def reach_of(x_BTD: Tensor, documents: Documents | None, window: int | None = None, kernel: str = "auto") -> Reach:
    """Say what the queries of a micro-batch see.

    Args:
        x_BTD: what enters the first layer.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
        kernel: auto or sdpa.
    """
    B, T, _ = x_BTD.shape
    if kernel == "auto" and fused.serves(x_BTD):
        groups = whole_sequences(B, T) if documents is None else documents.groups
        if window is None or groups[0].longest <= window:
            return Reach("ours", documents, groups=groups)
    return Reach("sdpa", documents, window, mask=dense_mask(T, documents, window, x_BTD.device))


def dense_mask(length: int, documents: Documents | None, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys each query sees, bool (B, 1, T, T) or (T, T); None: all earlier ones."""
    mask = None if documents is None else documents.mask()
    if window is None:
        return mask
    near_TT = near(length, window, device)
    return near_TT if mask is None else near_TT & mask


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
    mask = reach.mask
    if reach.kernel == "ours":
        if fused.serves(q_BTHE):
            return fused_attention.attention(q_BTHE, k_BTKE, v_BTKE, reach.groups, rotation, scale)
        # A compiled block: only inside it is it known to be one.
        mask = dense_mask(q_BTHE.shape[1], reach.documents, reach.window, q_BTHE.device)
    q_BHTE, k_BKTE, v_BKTE = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    if rotation is not None:
        q_BHTE, k_BKTE = rotate(q_BHTE, rotation), rotate(k_BKTE, rotation)
    y_BHTE = functional.scaled_dot_product_attention(
        q_BHTE,
        k_BKTE,
        v_BKTE,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q_BHTE.shape[1] != k_BKTE.shape[1],
    )
    return y_BHTE.transpose(1, 2)
