"""Causal attention, inside documents or a window where asked, by the kernel that serves.

A model makes a `Reach` once per micro-batch, and every layer calls `attend` with it. The kernels:

* `ours` goes document by document on a CPU (`training.fused_attention`);
* `sdpa` is torch's scaled_dot_product_attention, with a dense mask where there are documents or a window;
* `flex` and `varlen` are torch's flex_attention and varlen_attn, for a GPU (`training.gpu_attention`).

`auto` takes ours on a CPU (sdpa where a window cuts a document). On a GPU it takes sdpa, which is flash attention,
where all earlier tokens are seen; else varlen in 16 bits, and flex in float32.

Shapes: B sequences, T tokens, H query heads, K key heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training import fused, fused_attention
from training.documents import Documents, Group, whole_sequences
from training.fused_attention import Rotation


@dataclass(frozen=True)
class Reach:
    """Which tokens the queries of a layer see: earlier ones, of the same document, inside the window.

    Attributes:
        kernel: ours, sdpa, flex or varlen.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
        groups: of `ours`, the documents as it takes them.
        mask: of `sdpa`, bool (B, 1, T, T) or (T, T); None where all earlier tokens are seen.
        blocks: of `flex`, its BlockMask.
        cuts: of `varlen`, where documents begin among all tokens, int32.
    """

    kernel: str
    documents: Documents | None = None
    window: int | None = None
    groups: tuple[Group, ...] = ()
    mask: Tensor | None = None
    blocks: Any = None
    cuts: Tensor | None = None


def reach_of(x_BTD: Tensor, documents: Documents | None, window: int | None = None, kernel: str = "auto") -> Reach:
    """Say what the queries of a micro-batch see, as the kernel that serves takes it.

    Args:
        x_BTD: what enters the first layer.
        documents: where they lie, if attention stays inside them.
        window: tokens that are seen back, the query's own included; None: all.
        kernel: auto, sdpa, flex or varlen.
    """
    B, T, _ = x_BTD.shape
    kernel = chosen(kernel, x_BTD, documents is not None or window is not None)
    if kernel == "ours":
        groups = whole_sequences(B, T) if documents is None else documents.groups
        if window is None or groups[0].longest <= window:
            return Reach("ours", documents, groups=groups)
    if kernel in ("ours", "sdpa"):
        return Reach("sdpa", documents, window, mask=dense_mask(T, documents, window, x_BTD.device))
    from training import gpu_attention  # takes a second to import, and a CPU does without

    if kernel == "varlen":
        return Reach("varlen", documents, window, cuts=gpu_attention.cuts(x_BTD, documents))
    return Reach("flex", documents, window, blocks=gpu_attention.block_mask(x_BTD, documents, window))


def chosen(kernel: str, x_BTD: Tensor, bounded: bool) -> str:
    """The kernel that `auto` takes for this input; others are taken at their word.

    Args:
        kernel: auto, sdpa, flex or varlen.
        x_BTD: what enters the first layer.
        bounded: whether documents or a window keep queries from earlier tokens.
    """
    if kernel != "auto":
        return kernel
    if fused.serves(x_BTD):
        return "ours"
    if not bounded or x_BTD.device.type != "cuda" or torch._C._are_functorch_transforms_active():
        return "sdpa"
    from training import gpu_attention

    return "varlen" if gpu_attention.varlen_serves(x_BTD) else "flex"


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
    if reach.kernel in ("flex", "varlen"):
        return _attend_on_gpu(q_BHTE, k_BKTE, v_BKTE, reach, scale)
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


def _attend_on_gpu(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, reach: Reach, scale: float | None) -> Tensor:
    """Attention by flex or varlen, (B, T, H, E)."""
    from training import gpu_attention

    if reach.kernel == "flex":
        return gpu_attention.flex(q_BHTE, k_BKTE, v_BKTE, reach.blocks, scale).transpose(1, 2)
    parts = (x.transpose(1, 2) for x in (q_BHTE, k_BKTE, v_BKTE))
    return gpu_attention.varlen(*parts, reach.cuts, reach.window, scale)
