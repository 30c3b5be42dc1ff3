"""Parts of a train step on a CPU as single operations with gradients of their own: norm and SwiGLU.

Each is the same function as the plain operations of torch that the models write beside it, computed by
`training.kernels`; attention is in `training.fused_attention`. `serves` says where they are taken: float32 and bfloat16
on a CPU, not under `torch.compile` (which fuses by itself) nor under `torch.func`. Everything else runs the plain
operations.

Shapes: N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import kernels

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
