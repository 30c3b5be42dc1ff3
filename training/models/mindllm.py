"""MindLLM: DeepNorm with RMSNorm, rotary positions, GeGLU.

DeepNorm normalises the sum x * alpha + part(x) with alpha = (2 layers)^(1/4), so the stream leaves each part normalised
and there is no last norm. No class of Hugging Face holds it; the export brings its own code.

Shapes: B sequences, T tokens, D width, V vocabulary.
Sources: Yang et al. 2023, MindLLM, arXiv:2310.15777; Wang et al. 2022, DeepNet, arXiv:2203.00555 (table 2, decoders).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.attention import Reach, Rotation, reach_of
from training.documents import Documents
from training.loss import cross_entropy
from training.models.llama import Attention, RMSNorm, in_compute_type, rotary_tables
from training.models.shape import ModelShape


class FeedForward(nn.Module):
    """GeGLU: a GELU gate lets through what `up` computes."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.feedforward, bias=False)
        self.up = nn.Linear(shape.width, shape.feedforward, bias=False)
        self.down = nn.Linear(shape.feedforward, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply to every token alone."""
        return self.down(functional.gelu(self.gate(x_BTD)) * self.up(x_BTD))


class Block(nn.Module):
    """One layer: the norm stands behind each sum, and the stream weighs `alpha`."""

    def __init__(self, shape: ModelShape, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.alpha = (2 * shape.layers) ** 0.25
        self.attention = Attention(shape)
        self.attention_norm = RMSNorm(shape.width, shape.norm_epsilon)
        self.feed_forward = FeedForward(shape)
        self.feed_forward_norm = RMSNorm(shape.width, shape.norm_epsilon)

    def forward(self, x_BTD: Tensor, rotation: Rotation, reach: Reach) -> Tensor:
        """Apply the layer, keeping no activations inside it where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.layer, x_BTD, rotation, reach, use_reentrant=False)
        return self.layer(x_BTD, rotation, reach)

    def layer(self, x_BTD: Tensor, rotation: Rotation, reach: Reach) -> Tensor:
        """Apply the layer."""
        x_BTD = self.attention_norm(self.alpha * x_BTD + self.attention(x_BTD, rotation, reach))
        return self.feed_forward_norm(self.alpha * x_BTD + self.feed_forward(x_BTD))


class Model(nn.Module):
    """The whole decoder."""

    def __init__(self, shape: ModelShape, recompute: bool = False, attention: str = "auto") -> None:
        super().__init__()
        self.shape, self.attention = shape, attention
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape, recompute) for _ in range(shape.layers))
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
        return x_BTD

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
        return cross_entropy(hidden_BTD, self.output_weight, targets_BT, weights_BT, z_loss)
