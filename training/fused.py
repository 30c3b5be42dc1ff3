"""Parts of a train step on a CPU as single operations with gradients of their own: norm, SwiGLU, attention.

Each is the same function as the plain operations of torch that the models write beside it, computed by
`training.kernels`. `serves` says where they are taken: float32 and bfloat16 on a CPU, not under `torch.compile` (which
fuses by itself) nor under `torch.func`. Everything else runs the plain operations.

Shapes: B sequences, T tokens, N = B * T, D width, H query heads, K key heads, E width of a head, P = B * H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import kernels

# Keys at once in attention's backward, and scores at once: 1 MiB of bfloat16, and as much for their gradients, stay in
# a core's cache of the second level.
KEYS_AT_ONCE = 256
SCORES_AT_ONCE = 1 << 20
# Fewer values than this are not worth waking another thread.
VALUES_A_THREAD = 1 << 14


def serves(x: Tensor) -> bool:
    """Whether the kernels serve this tensor here."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def array(x: Tensor) -> np.ndarray:
    """A tensor's memory for a kernel, in order: float32, or the bits of bfloat16."""
    assert x.is_contiguous(), x.stride()  # a copy would take what the kernel writes
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="kernel")


def over_rows(kernel: Callable[..., None], rows: int, values: int, *arguments: Any) -> None:
    """Run a kernel over rows 0 to `rows`, shared by torch's number of threads.

    Args:
        kernel: of `training.kernels`.
        rows: how many rows there are.
        values: how many values it passes over, which tells whether threads pay.
        arguments: the kernel's own.
    """
    number = min(torch.get_num_threads(), rows, values // VALUES_A_THREAD)
    if number <= 1:
        kernel(0, rows, *arguments)
        return
    cuts = [rows * place // number for place in range(number + 1)]
    waiting = [_threads(number).submit(kernel, *cut, *arguments) for cut in pairwise(cuts[1:])]
    kernel(cuts[0], cuts[1], *arguments)
    for one in waiting:
        one.result()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        out_ND, inverse_N = torch.empty_like(x_ND), torch.empty(x_ND.shape[0])
        # A tensor that numpy has seen is never resized, and sharding resizes gathered weights.
        weight_D = weight_D.clone()
        parts = (array(x_ND), array(weight_D), np.float32(epsilon), array(out_ND), array(inverse_N))
        over_rows(kernels.norm_forward, x_ND.shape[0], x_ND.numel(), *parts)
        ctx.save_for_backward(x_ND, weight_D, inverse_N)
        return out_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_D, inverse_N = ctx.saved_tensors
        grad_x_ND = torch.empty_like(x_ND)
        sums_SD = torch.empty(-(-x_ND.shape[0] // kernels.NORM_ROWS), x_ND.shape[1])
        parts = (x_ND, weight_D, inverse_N, grad_ND.contiguous(), grad_x_ND, sums_SD)
        over_rows(kernels.norm_backward, sums_SD.shape[0], x_ND.numel(), *map(array, parts))
        return grad_x_ND, sums_SD.sum(0), None


def rms_norm(x: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """Divide the last dimension by its root mean square and multiply by float32 weights; the type stays."""
    return _Norm.apply(x.contiguous().view(-1, x.shape[-1]), weight_D, epsilon).view(x.shape)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_ND: Tensor, up_ND: Tensor) -> Tensor:
        out_ND = torch.empty_like(gate_ND)
        parts = (gate_ND, up_ND, out_ND)
        over_rows(kernels.swiglu_forward, gate_ND.shape[0], gate_ND.numel(), *map(array, parts))
        ctx.save_for_backward(gate_ND, up_ND)
        return out_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor]:
        gate_ND, up_ND = ctx.saved_tensors
        grad_gate_ND, grad_up_ND = torch.empty_like(gate_ND), torch.empty_like(up_ND)
        parts = (gate_ND, up_ND, grad_ND.contiguous(), grad_gate_ND, grad_up_ND)
        over_rows(kernels.swiglu_backward, gate_ND.shape[0], gate_ND.numel(), *map(array, parts))
        return grad_gate_ND, grad_up_ND


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, rounded once."""
    width = gate.shape[-1]
    return _SwiGLU.apply(gate.contiguous().view(-1, width), up.contiguous().view(-1, width)).view(gate.shape)


def _rotated(x_BTHE: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    B, T, H, E = x_BTHE.shape
    out_PTE = x_BTHE.new_empty(B * H, T, E)
    over_rows(kernels.rotate, B * H, x_BTHE.numel(), *map(array, (x_BTHE, *rotation, out_PTE)))
    return out_PTE.view(B, H, T, E)


def _rotated_back(x_PTE: Tensor, rotation: tuple[Tensor, Tensor], out_BTHE: Tensor) -> Tensor:
    pairs = x_PTE.shape[0]
    over_rows(kernels.rotate_back, pairs, out_BTHE.numel(), *map(array, (x_PTE, *rotation, out_BTHE)))
    return out_BTHE


class _RotaryAttention(torch.autograd.Function):
    """Forward is torch's flash attention; backward is ours, which takes about half the time of torch's."""

    @staticmethod
    def forward(ctx: Any, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        rotation, served = (cos_TE, sin_TE), q_BTHE.shape[2] // k_BTKE.shape[2]
        q_BHTE, k_BKTE = (_rotated(x.contiguous(), rotation) for x in (q_BTHE, k_BTKE))
        v_BKTE = v_BTKE.transpose(1, 2).contiguous()
        k_BHTE, v_BHTE = (x.repeat_interleave(served, 1) if served > 1 else x for x in (k_BKTE, v_BKTE))
        y_BHTE, log_z_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHTE, k_BHTE, v_BHTE, 0.0, True
        )
        y_BTHE = y_BHTE.transpose(1, 2).contiguous()
        ctx.save_for_backward(q_BHTE, k_BKTE, v_BKTE, y_BTHE, log_z_BHT, cos_TE, sin_TE)
        return y_BTHE

    @staticmethod
    def backward(ctx: Any, grad_BTHE: Tensor) -> tuple[Tensor | None, ...]:
        q_BHTE, k_BKTE, v_BKTE, y_BTHE, log_z_BHT, *rotation = ctx.saved_tensors
        B, T, H, E = y_BTHE.shape
        K = k_BKTE.shape[1]
        grad_PTE, delta_PT = y_BTHE.new_empty(B * H, T, E), torch.empty(B * H, T)
        over_rows(
            kernels.gather_heads,
            B * H,
            y_BTHE.numel(),
            *map(array, (y_BTHE, grad_BTHE.contiguous(), grad_PTE, delta_PT)),
        )
        q_PTE, k_PTE, v_PTE = (
            x.repeat_interleave(H // x.shape[1], 1).flatten(0, 1) if x.shape[1] < H else x.flatten(0, 1)
            for x in (q_BHTE, k_BKTE, v_BKTE)
        )
        log_z_PT = log_z_BHT.contiguous().view(B * H, T)
        grad_q_PTE, grad_k_PTE, grad_v_PTE = attention_backward(
            q_PTE, k_PTE, v_PTE, grad_PTE, log_z_PT, delta_PT, 1 / math.sqrt(E)
        )
        if K < H:
            grad_k_PTE, grad_v_PTE = (
                x.view(B * K, H // K, T, E).float().sum(1).to(q_PTE.dtype) for x in (grad_k_PTE, grad_v_PTE)
            )
        grad_q = _rotated_back(grad_q_PTE, rotation, torch.empty_like(y_BTHE))
        grad_k = _rotated_back(grad_k_PTE, rotation, y_BTHE.new_empty(B, T, K, E))
        return grad_q, grad_k, grad_v_PTE.view(B, K, T, E).transpose(1, 2), None, None


def attention_backward(
    q_PTE: Tensor, k_PTE: Tensor, v_PTE: Tensor, grad_PTE: Tensor, log_z_PT: Tensor, delta_PT: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of causal attention's queries (float32), keys and values.

    Probabilities are computed again from log(Z), a block of keys of some pairs at a time, with keys as rows, so that
    what belongs to a block of keys is whole after it; queries before the block are left out.
    Source: Dao et al. 2022, arXiv:2205.14135, appendix B.4.

    Args:
        q_PTE: queries of every pair of sequence and head.
        k_PTE: keys.
        v_PTE: values.
        grad_PTE: gradient of the output.
        log_z_PT: logarithm of each query's sum of exponentials, float32.
        delta_PT: output times its gradient, summed over a head's width, float32.
        scale: what scores are multiplied with.
    """
    P, T, E = q_PTE.shape
    R = min(T, KEYS_AT_ONCE)
    G = max(1, min(P, SCORES_AT_ONCE // (R * T)))
    grad_q_PTE = torch.zeros(P, T, E)
    grad_k_PTE, grad_v_PTE = torch.empty_like(k_PTE), torch.empty_like(v_PTE)
    scores, grads = q_PTE.new_empty(G * R * T), q_PTE.new_empty(G * R * T)
    log_z, delta, factor = array(log_z_PT), array(delta_PT), np.float32(scale)
    for pair in range(0, P, G):
        pairs = slice(pair, min(P, pair + G))
        g = pairs.stop - pair
        for first in range(0, T, R):
            keys, queries = slice(first, min(T, first + R)), slice(first, T)
            r, q = keys.stop - first, T - first
            weights_GRQ, slopes_GRQ = (buffer[: g * r * q].view(g, r, q) for buffer in (scores, grads))
            torch.bmm(k_PTE[pairs, keys], q_PTE[pairs, queries].transpose(1, 2), out=weights_GRQ)
            torch.bmm(v_PTE[pairs, keys], grad_PTE[pairs, queries].transpose(1, 2), out=slopes_GRQ)
            numbers = (np.ascontiguousarray(log_z[pairs, queries]), np.ascontiguousarray(delta[pairs, queries]), factor)
            over_rows(kernels.softmax_backward, g * r, g * r * q, array(weights_GRQ), array(slopes_GRQ), *numbers)
            grad_v_PTE[pairs, keys] = torch.bmm(weights_GRQ, grad_PTE[pairs, queries])
            grad_k_PTE[pairs, keys] = torch.bmm(slopes_GRQ, q_PTE[pairs, queries])
            part_GQE = torch.bmm(slopes_GRQ.transpose(1, 2), k_PTE[pairs, keys])
            for place in range(g):
                sums = array(grad_q_PTE[pair + place, queries])
                over_rows(kernels.add_into, q, sums.size, sums, array(part_GQE[place]))
    return grad_q_PTE, grad_k_PTE, grad_v_PTE


def rotary_attention(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Causal attention of rotated queries and keys, (B, T, H, E); K key heads serve H query heads."""
    return _RotaryAttention.apply(q_BTHE, k_BTKE, v_BTKE, *rotation)
