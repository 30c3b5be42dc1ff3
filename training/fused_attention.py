"""Causal attention inside documents on a CPU, as one operation with a gradient of its own (see `training.fused`).

Documents are attended to in groups of like lengths (`training.documents`), so that work grows with the squares of their
lengths and not with the square of the context. A shorter document is filled up with zeros behind its end: no real query
sees them, and what they contribute to gradients is zero. Forward is torch's flash attention; backward is ours, which
takes about half the time of torch's.

Shapes: B sequences, T tokens, N = B * T, H query heads, K key heads, E width of a head, S documents of a group, L
tokens of its longest, P = S * H pairs of document and head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import kernels
from training.documents import Group
from training.fused import array, over_rows

Rotation = tuple[Tensor, Tensor]

# Keys at once in attention's backward, and scores at once: 1 MiB of bfloat16, and as much for their gradients, stay in
# a core's cache of the second level.
KEYS_AT_ONCE = 256
SCORES_AT_ONCE = 1 << 20


def _gathered(x_NHE: Tensor, group: Group, rotation: Rotation | None) -> Tensor:
    """A group's documents, rotated, (S, H, L, E)."""
    H, E = x_NHE.shape[1:]
    S, L = len(group.starts), group.longest
    out_PLE = x_NHE.new_empty(S * H, L, E)
    parts = (array(x_NHE), group.starts, group.lengths, *map(array, rotation or ()), array(out_PLE))
    over_rows(kernels.gather if rotation is None else kernels.rotate, S * H, out_PLE.numel(), *parts)
    return out_PLE.view(S, H, L, E)


def _scatter(x_PLE: Tensor, group: Group, rotation: Rotation | None, out_NHE: Tensor) -> None:
    """Write a group's documents to where they stand, rotated back."""
    parts = (array(x_PLE), group.starts, group.lengths, *map(array, rotation or ()), array(out_NHE))
    kernel = kernels.scatter if rotation is None else kernels.rotate_back
    over_rows(kernel, x_PLE.shape[0], x_PLE.numel(), *parts)


def _repeated(x_SKLE: Tensor, heads: int) -> Tensor:
    """Keys or values for every query head, (S, H, L, E)."""
    served = heads // x_SKLE.shape[1]
    return x_SKLE.repeat_interleave(served, 1) if served > 1 else x_SKLE


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, groups: Sequence[Group], scale: float, *rotation: Tensor
    ) -> Tensor:
        turned = rotation or None
        y_NHE, H = torch.empty_like(q_NHE), q_NHE.shape[1]
        saved: list[Tensor] = []
        for group in groups:
            q_SHLE, k_SKLE = _gathered(q_NHE, group, turned), _gathered(k_NKE, group, turned)
            v_SKLE = _gathered(v_NKE, group, None)
            y_SHLE, log_z_SHL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_SHLE, _repeated(k_SKLE, H), _repeated(v_SKLE, H), 0.0, True, scale=scale
            )
            # torch leaves heads beside each other: what is brought back is tokens, of one head as wide as all.
            y_SLHE = y_SHLE.transpose(1, 2).contiguous()
            if len(groups) == 1 and y_SLHE.numel() == y_NHE.numel():  # nothing was filled up: they stand in order
                y_NHE = y_SLHE.view(q_NHE.shape)
            else:
                _scatter(y_SLHE.flatten(2), group, None, y_NHE.view(y_NHE.shape[0], 1, -1))
            saved += [q_SHLE, k_SKLE, v_SKLE, log_z_SHL.contiguous()]
        ctx.groups, ctx.scale = groups, scale
        ctx.save_for_backward(y_NHE, *rotation, *saved)
        return y_NHE

    @staticmethod
    def backward(ctx: Any, grad_NHE: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        y_NHE, saved = tensors[0], tensors[-4 * len(ctx.groups) :]
        rotation = tuple(tensors[1 : -4 * len(ctx.groups)])
        K, E = saved[1].shape[1], y_NHE.shape[2]
        grad_NHE, grad_q_NHE = grad_NHE.contiguous(), torch.empty_like(y_NHE)
        grad_k_NKE, grad_v_NKE = (y_NHE.new_empty(y_NHE.shape[0], K, E) for _ in range(2))
        for place, group in enumerate(ctx.groups):
            found = _group_backward(group, *saved[4 * place : 4 * place + 4], y_NHE, grad_NHE, ctx.scale)
            _scatter(found[0], group, rotation or None, grad_q_NHE)
            _scatter(found[1], group, rotation or None, grad_k_NKE)
            _scatter(found[2], group, None, grad_v_NKE)
        return grad_q_NHE, grad_k_NKE, grad_v_NKE, None, None, *(None for _ in rotation)


def _group_backward(
    group: Group,
    q_SHLE: Tensor,
    k_SKLE: Tensor,
    v_SKLE: Tensor,
    log_z_SHL: Tensor,
    y_NHE: Tensor,
    grad_NHE: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a group's queries (float32, (P, L, E)), keys and values (of S * K pairs)."""
    S, H, L, E = q_SHLE.shape
    K = k_SKLE.shape[1]
    grad_PLE, delta_PL = q_SHLE.new_empty(S * H, L, E), torch.empty(S * H, L)
    parts = (array(y_NHE), array(grad_NHE), group.starts, group.lengths, array(grad_PLE), array(delta_PL))
    over_rows(kernels.gather_heads, S * H, grad_PLE.numel(), *parts)
    q_PLE, k_PLE, v_PLE = (_repeated(x, H).flatten(0, 1) for x in (q_SHLE, k_SKLE, v_SKLE))
    log_z_PL = log_z_SHL.view(S * H, L)
    grad_q, grad_k, grad_v = attention_backward(q_PLE, k_PLE, v_PLE, grad_PLE, log_z_PL, delta_PL, scale)
    if K < H:
        grad_k, grad_v = (x.view(S * K, H // K, L, E).float().sum(1).to(q_PLE.dtype) for x in (grad_k, grad_v))
    return grad_q, grad_k, grad_v


def attention_backward(
    q_PLE: Tensor, k_PLE: Tensor, v_PLE: Tensor, grad_PLE: Tensor, log_z_PL: Tensor, delta_PL: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of causal attention's queries (float32), keys and values.

    Probabilities are computed again from log(Z), a block of keys of some pairs at a time, with keys as rows, so that
    what belongs to a block of keys is whole after it; queries before the block are left out.
    Source: Dao et al. 2022, arXiv:2205.14135, appendix B.4.

    Args:
        q_PLE: queries of every pair of document and head.
        k_PLE: keys.
        v_PLE: values.
        grad_PLE: gradient of the output.
        log_z_PL: logarithm of each query's sum of exponentials, float32.
        delta_PL: output times its gradient, summed over a head's width, float32.
        scale: what scores are multiplied with.
    """
    P, L, E = q_PLE.shape
    R = min(L, KEYS_AT_ONCE)
    G = max(1, min(P, SCORES_AT_ONCE // (R * L)))
    grad_q_PLE = torch.empty(P, L, E)
    grad_k_PLE, grad_v_PLE = torch.empty_like(k_PLE), torch.empty_like(v_PLE)
    scores, grads = q_PLE.new_empty(G * R * L), q_PLE.new_empty(G * R * L)
    log_z, delta, factor = array(log_z_PL), array(delta_PL), np.float32(scale)
    for pair in range(0, P, G):
        pairs = slice(pair, min(P, pair + G))
        g = pairs.stop - pair
        for first in range(0, L, R):
            keys, queries = slice(first, min(L, first + R)), slice(first, L)
            r, q = keys.stop - first, L - first
            weights_GRQ, slopes_GRQ = (buffer[: g * r * q].view(g, r, q) for buffer in (scores, grads))
            torch.bmm(k_PLE[pairs, keys], q_PLE[pairs, queries].transpose(1, 2), out=weights_GRQ)
            torch.bmm(v_PLE[pairs, keys], grad_PLE[pairs, queries].transpose(1, 2), out=slopes_GRQ)
            numbers = (np.ascontiguousarray(log_z[pairs, queries]), np.ascontiguousarray(delta[pairs, queries]), factor)
            over_rows(kernels.softmax_backward, g * r, g * r * q, array(weights_GRQ), array(slopes_GRQ), *numbers)
            grad_v_PLE[pairs, keys] = torch.bmm(weights_GRQ, grad_PLE[pairs, queries])
            grad_k_PLE[pairs, keys] = torch.bmm(slopes_GRQ, q_PLE[pairs, queries])
            part_GQE = torch.bmm(slopes_GRQ.transpose(1, 2), k_PLE[pairs, keys])
            if first == 0:  # all queries see the first block
                grad_q_PLE[pairs] = part_GQE
                continue
            for place in range(g):
                sums = array(grad_q_PLE[pair + place, queries])
                over_rows(kernels.add_into, q, sums.size, sums, 0, array(part_GQE[place]))
    return grad_q_PLE, grad_k_PLE, grad_v_PLE


def attention(
    q_BTHE: Tensor,
    k_BTKE: Tensor,
    v_BTKE: Tensor,
    groups: Sequence[Group],
    rotation: Rotation | None = None,
    scale: float | None = None,
) -> Tensor:
    """Causal attention inside documents, (B, T, H, E); K key heads serve H query heads.

    Args:
        q_BTHE: queries.
        k_BTKE: keys.
        v_BTKE: values.
        groups: of documents, which hold each token once.
        rotation: cosine and sine of every position's angles, float32 (T, E), if queries and keys are to be rotated.
        scale: what scores are multiplied with; None: one over the root of E.
    """
    parts = (x.contiguous().flatten(0, 1) for x in (q_BTHE, k_BTKE, v_BTKE))
    factor = 1 / math.sqrt(q_BTHE.shape[3]) if scale is None else scale
    return _Attention.apply(*parts, groups, factor, *(rotation or ())).view(q_BTHE.shape)
