"""Llama: RMSNorm before each part, rotary positions, grouped-query attention, SwiGLU.

Parameters map to Hugging Face's by renaming alone (`training/export.py`): query, key, value, gate and up are separate,
and rotary halves are split as Hugging Face splits them.

Shapes: B sequences, T tokens, D width, H query heads, K key heads, E width of a head, V vocabulary.
Sources: Touvron et al. 2023, arXiv:2302.13971; Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training import fused
from training.attention import Reach, Rotation, attend, reach_of
from training.documents import Documents
from training.loss import cross_entropy
from training.models.shape import ModelShape


class RMSNorm(nn.Module):
    """Scale by the root mean square, computed in float32 whatever comes in."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise the last dimension; the type stays."""
        if fused.serves(x_BTD):
            return fused.rms_norm(x_BTD, self.weight.float(), self.epsilon)
        normed_BTD = functional.rms_norm(x_BTD.float(), self.weight.shape, self.weight.float(), self.epsilon)
        return normed_BTD.to(x_BTD.dtype)


def rotary_tables(shape: ModelShape, length: int, device: torch.device) -> Rotation:
    """Cosine and sine of every position's angles, float32 (T, E), the two halves of a head alike."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float32, device=device) / shape.head_width
    angles_TE = torch.outer(torch.arange(length, dtype=torch.float32, device=device), shape.rope_base**-exponents)
    angles_TE = torch.cat([angles_TE, angles_TE], dim=-1)
    return angles_TE.cos(), angles_TE.sin()


class Attention(nn.Module):
    """Causal attention with rotary positions; K key heads serve H query heads."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.num_kv_heads * shape.head_width
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, kv_width, bias=False)
        self.value = nn.Linear(shape.width, kv_width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, rotation: Rotation, reach: Reach) -> Tensor:
        """Attend to the tokens within reach."""
        B, T, D = x_BTD.shape
        q_BTHE = self.query(x_BTD).view(B, T, -1, self.shape.head_width)
        k_BTKE = self.key(x_BTD).view(B, T, -1, self.shape.head_width)
        v_BTKE = self.value(x_BTD).view(B, T, -1, self.shape.head_width)
        return self.output(attend(q_BTHE, k_BTKE, v_BTKE, reach, rotation).reshape(B, T, D))


class FeedForward(nn.Module):
    """SwiGLU: a gate lets through what `up` computes."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.feedforward, bias=False)
        self.up = nn.Linear(shape.width, shape.feedforward, bias=False)
        self.down = nn.Linear(shape.feedforward, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply to every token alone."""
        gate, up = self.gate(x_BTD), self.up(x_BTD)
        return self.down(fused.swiglu(gate, up) if fused.serves(gate) else functional.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and feed-forward, each added to the residual stream."""

    def __init__(self, shape: ModelShape, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.attention_norm = RMSNorm(shape.width, shape.norm_epsilon)
        self.attention = Attention(shape)
        self.feed_forward_norm = RMSNorm(shape.width, shape.norm_epsilon)
        self.feed_forward = FeedForward(shape)

    def forward(self, x_BTD: Tensor, rotation: Rotation, reach: Reach) -> Tensor:
        """Apply the layer, keeping no activations inside it where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.layer, x_BTD, rotation, reach, use_reentrant=False)
        return self.layer(x_BTD, rotation, reach)

    def layer(self, x_BTD: Tensor, rotation: Rotation, reach: Reach) -> Tensor:
        """Apply the layer."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, reach)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class Model(nn.Module):
    """The whole decoder; `hidden` up to the last norm, `forward` to logits or to the loss."""

    def __init__(self, shape: ModelShape, recompute: bool = False, attention: str = "auto") -> None:
        super().__init__()
        self.shape, self.attention = shape, attention
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape, recompute) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.norm_epsilon)
        # A tied output has no parameter of its own: one name in checkpoints, nothing to tie again after a reload.
        self.output = None if shape.tied else nn.Linear(shape.width, shape.vocabulary, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """Weights of the output layer."""
        return self.embedding.weight if self.output is None else self.output.weight

    def hidden(self, tokens_BT: Tensor, documents: Documents | None = None) -> Tensor:
        """Token ids to the last layer's output, (B, T, D)."""
        x_BTD = in_compute_type(self.embedding(tokens_BT))
        reach = reach_of(x_BTD, documents, kernel=self.attention)
        rotation = rotary_tables(self.shape, tokens_BT.shape[1], tokens_BT.device)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation, reach)
        return self.norm(x_BTD)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        weights_BT: Tensor | None = None,
        documents: Documents | None = None,
        z_loss: float = 0.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, T, V), or with targets (loss, nats_BT) as `training.loss.cross_entropy` has them."""
        hidden_BTD = self.hidden(tokens_BT, documents)
        if targets_BT is None:
            return functional.linear(hidden_BTD, self.output_weight.to(hidden_BTD.dtype))
        # The loss is taken inside `forward`, where a sharded model has its output weights together.
        return cross_entropy(hidden_BTD, self.output_weight, targets_BT, weights_BT, z_loss)


def in_compute_type(x: Tensor) -> Tensor:
    """Cast to autocast's type where it is on, so that the residual stream has the type of the products."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
