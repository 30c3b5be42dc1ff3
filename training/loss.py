"""The loss: weighted cross-entropy of a vocabulary too large for all logits at once.

Logits of 64k tokens over a vocabulary of 32k fill 8 GB in float32. So the output layer and the loss are computed
together, a chunk of tokens at a time, and the gradients with them while the chunk is at hand.

Shapes: B sequences, T tokens, N = B * T, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import fused, kernels
from training.fused import array, over_rows

# Logits at once, in elements: 64 MiB of float32 on a CPU, 1 GiB on a GPU.
CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
# Gradients of the output's weights that a CPU adds at once.
CPU_PART_ELEMENTS = 1 << 21


def cross_entropy(
    hidden_BTD: Tensor,
    output_weight_VD: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor | None = None,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the tokens' losses, and each token's nats.

    Args:
        hidden_BTD: the model's last layer.
        output_weight_VD: weights of the output layer.
        targets_BT: ids of the tokens to predict, int64.
        weights_BT: each token's weight in the sum, float32; 1 / (tokens of the train step) makes the sum over all
            micro-batches and ranks the mean. None weighs each 1.
        z_loss: coefficient of log(Z)^2, which keeps logits from drifting (PaLM, arXiv:2204.02311, section 5).

    Returns:
        The loss, a float32 scalar with gradients, and nats_BT (float32, without z-loss and without gradients).
    """
    targets_N = targets_BT.reshape(-1)
    weights_N = torch.ones_like(targets_N, dtype=torch.float32) if weights_BT is None else weights_BT.reshape(-1)
    hidden_ND = hidden_BTD.reshape(targets_N.shape[0], -1)
    wants_gradients = torch.is_grad_enabled() and (hidden_ND.requires_grad or output_weight_VD.requires_grad)
    loss, nats_N = _ChunkedCrossEntropy.apply(
        hidden_ND, output_weight_VD, targets_N, weights_N, z_loss, wants_gradients
    )
    return loss, nats_N.view(targets_BT.shape)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over chunks; backward only scales what forward has computed."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor, z_loss: float, grads: bool
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss and, where wanted, the gradients; that of frozen weights (low-rank updates) is left out."""
        kind = hidden_ND.device.type
        grads_weight = grads and ctx.needs_input_grad[1]
        with torch.autocast(kind, enabled=False):
            cast_VD = weight_VD.to(hidden_ND.dtype)
            told_N2 = weights_N.new_empty(weights_N.shape[0], 2)  # nats and log(Z)
            loss = weights_N.new_zeros(())
            grad_hidden_ND = torch.empty_like(hidden_ND) if grads else None
            sums = _OutputGradient(weight_VD, hidden_ND) if grads_weight else None
            rows = max(1, CHUNK_ELEMENTS.get(kind, 1 << 26) // weight_VD.shape[0])
            # One buffer for all chunks: fresh memory costs a page fault for every 4 KiB.
            buffer_CV = hidden_ND.new_empty(min(rows, hidden_ND.shape[0]), weight_VD.shape[0])
            for start in range(0, hidden_ND.shape[0], rows):
                chunk = slice(start, start + rows)
                scores_CV = buffer_CV[: hidden_ND[chunk].shape[0]]
                torch.mm(hidden_ND[chunk], cast_VD.T, out=scores_CV)
                _cross_entropy_chunk(scores_CV, targets_N[chunk], weights_N[chunk], told_N2[chunk], z_loss, grads)
                nats_C, log_z_C = told_N2[chunk].unbind(1)
                loss = loss + (weights_N[chunk] * (nats_C + z_loss * log_z_C.square())).sum()
                if grads:
                    torch.mm(scores_CV, cast_VD, out=grad_hidden_ND[chunk])
                if sums is not None:
                    sums.add(scores_CV, hidden_ND[chunk])
        if grads:
            ctx.gradients = grad_hidden_ND, None if sums is None else sums.whole().to(weight_VD.dtype)
        nats_N = told_N2[:, 0].contiguous()
        ctx.mark_non_differentiable(nats_N)
        return loss, nats_N

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients by the loss's own gradient; they are given away, so this works once."""
        grad_hidden_ND, grad_weight_VD = ctx.gradients
        del ctx.gradients
        if grad_loss.device.type == "cpu" and grad_loss == 1:  # no pass over the largest weights to change nothing
            return grad_hidden_ND, grad_weight_VD, None, None, None, None
        hidden_ND = grad_hidden_ND * grad_loss.to(grad_hidden_ND.dtype)
        weight_VD = None if grad_weight_VD is None else grad_weight_VD * grad_loss.to(grad_weight_VD.dtype)
        return hidden_ND, weight_VD, None, None, None, None


class _OutputGradient:
    """The gradient of the output's weights, added up over chunks in float32.

    In bfloat16 on a CPU it is added up transposed, a part of the vocabulary at a time, which is still in the core's
    cache: that product reads the scores as they lie and takes half the time (docs/training.md), with the same bits.
    """

    def __init__(self, weight_VD: Tensor, hidden_ND: Tensor) -> None:
        self.transposed = fused.serves(hidden_ND) and hidden_ND.dtype == torch.bfloat16
        shape = weight_VD.T.shape if self.transposed else weight_VD.shape
        self.sums = weight_VD.new_zeros(shape, dtype=torch.float32)

    def add(self, scores_CV: Tensor, hidden_CD: Tensor) -> None:
        """Add a chunk's products."""
        if not fused.serves(scores_CV):
            self.sums += scores_CV.T @ hidden_CD
        elif not self.transposed:  # the product itself adds to what is there: no part, and no pass over it
            self.sums.addmm_(scores_CV.T, hidden_CD)
        else:
            self._add_parts(scores_CV, hidden_CD.T.contiguous())

    def _add_parts(self, scores_CV: Tensor, hidden_DC: Tensor) -> None:
        columns = max(1, CPU_PART_ELEMENTS // hidden_DC.shape[0])
        for start in range(0, scores_CV.shape[1], columns):
            part_DP = hidden_DC @ scores_CV[:, start : start + columns]
            over_rows(kernels.add_into, part_DP.shape[0], part_DP.numel(), array(self.sums), start, array(part_DP))

    def whole(self) -> Tensor:
        """The sums, float32 (V, D)."""
        return self.sums.T.contiguous() if self.transposed else self.sums


def _cross_entropy_chunk(
    scores_CV: Tensor,
    targets_C: Tensor,
    weights_C: Tensor,
    told_C2: Tensor,
    z_loss: float,
    grads: bool,
) -> None:
    """Write nats and log(Z) of some tokens, and put the gradients of their logits in place of the logits.

    One exponential a logit: exp(logit - maximum) gives log(Z) and then the gradient.
    """
    if fused.serves(scores_CV):
        parts = map(array, (scores_CV, targets_C, weights_C, told_C2))
        over_rows(kernels.cross_entropy, scores_CV.shape[0], scores_CV.numel(), *parts, np.float32(z_loss), grads)
        return
    nats_C, log_z_C = told_C2.unbind(1)
    exact_CV = scores_CV.float()  # the same memory in float32
    maximum_C = exact_CV.amax(dim=-1)
    exact_CV.sub_(maximum_C[:, None])
    target_C = exact_CV.gather(1, targets_C[:, None]).squeeze(1)
    sum_C = exact_CV.exp_().sum(dim=-1)
    torch.sub(sum_C.log(), target_C, out=nats_C)
    torch.add(maximum_C, sum_C.log(), out=log_z_C)
    if not grads:
        return
    scale_C = weights_C * (1 + 2 * z_loss * log_z_C)
    exact_CV.mul_((scale_C / sum_C)[:, None])
    exact_CV.scatter_add_(1, targets_C[:, None], -weights_C[:, None])
    if exact_CV is not scores_CV:
        scores_CV.copy_(exact_CV)
