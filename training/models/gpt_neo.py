"""GPT-Neo: LayerNorm before each part, learned positions, GELU, local attention on every odd layer.

Three habits of GPT-Neo decide parity with Hugging Face: scores are not divided by the root of the head width; queries,
keys and values have no bias while all other layers have one; a local layer sees the last `window` tokens, itself
included.

Shapes: B sequences, T tokens, D width, H heads, E width of a head, V vocabulary.
Source: Black et al. 2021, GPT-Neo, doi:10.5281/zenodo.5297715.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.loss import cross_entropy
from training.models.llama import in_compute_type
from training.models.shape import ModelShape


class Attention(nn.Module):
    """Causal attention with unscaled scores."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_width = shape.head_width
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Attend to earlier tokens, or to those that the mask allows."""
        B, T, D = x_BTD.shape
        q_BHTE, k_BHTE, v_BHTE = (
            layer(x_BTD).view(B, T, -1, self.head_width).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        y_BHTE = functional.scaled_dot_product_attention(
            q_BHTE, k_BHTE, v_BHTE, attn_mask=mask, is_causal=mask is None, scale=1.0
        )
        return self.output(y_BHTE.transpose(1, 2).reshape(B, T, D))


class FeedForward(nn.Module):
    """Two layers with GELU (its tanh form) between."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.feedforward)
        self.down = nn.Linear(shape.feedforward, shape.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply to every token alone."""
        return self.down(functional.gelu(self.up(x_BTD), approximate="tanh"))


class Block(nn.Module):
    """One layer: attention and feed-forward, each added to the residual stream."""

    def __init__(self, shape: ModelShape, local: bool, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.local = local
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.attention = Attention(shape)
        self.feed_forward_norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.feed_forward = FeedForward(shape)

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Apply the layer, keeping no activations inside it where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.layer, x_BTD, mask, use_reentrant=False)
        return self.layer(x_BTD, mask)

    def layer(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """Apply the layer."""
        x_BTD = x_BTD + self.attention(normed(self.attention_norm, x_BTD), mask)
        return x_BTD + self.feed_forward(normed(self.feed_forward_norm, x_BTD))


class Model(nn.Module):
    """The whole decoder; the output layer is the embedding."""

    def __init__(self, shape: ModelShape, recompute: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape, layer % 2 == 1, recompute) for layer in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    @property
    def output_weight(self) -> Tensor:
        """Weights of the output layer."""
        return self.embedding.weight

    def hidden(self, tokens_BT: Tensor, mask_B1TT: Tensor | None = None) -> Tensor:
        """Token ids to the last layer's output, (B, T, D)."""
        T = tokens_BT.shape[1]
        positions_T = torch.arange(T, device=tokens_BT.device)
        if mask_B1TT is not None:  # a position is the number of earlier tokens of the same document
            positions_T = mask_B1TT[:, 0].sum(-1) - 1
        x_BTD = in_compute_type(self.embedding(tokens_BT) + self.positions(positions_T))
        local_mask = near(T, self.shape.window, tokens_BT.device)
        if mask_B1TT is not None:
            local_mask = local_mask & mask_B1TT
        for block in self.blocks:
            x_BTD = block(x_BTD, local_mask if block.local else mask_B1TT)
        return normed(self.norm, x_BTD)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        weights_BT: Tensor | None = None,
        mask_B1TT: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, T, V), or with targets (loss, nats_BT) as `training.loss.cross_entropy` has them."""
        hidden_BTD = self.hidden(tokens_BT, mask_B1TT)
        if targets_BT is None:
            return functional.linear(hidden_BTD, self.output_weight.to(hidden_BTD.dtype))
        return cross_entropy(hidden_BTD, self.output_weight, targets_BT, weights_BT, z_loss)


def normed(norm: nn.LayerNorm, x_BTD: Tensor) -> Tensor:
    """LayerNorm computed in float32; the type stays."""
    weight, bias = norm.weight.float(), norm.bias.float()
    return functional.layer_norm(x_BTD.float(), norm.normalized_shape, weight, bias, norm.eps).to(x_BTD.dtype)


def near(length: int, window: int, device: torch.device) -> Tensor:
    """Which keys a local layer's query sees: key j from query i where i - window < j <= i; bool (T, T)."""
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal_TT & ~causal_TT.tril(-window)
