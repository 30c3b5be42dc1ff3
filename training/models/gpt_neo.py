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

from training.attention import Reach, attend, reach_of
from training.documents import Documents
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

    def forward(self, x_BTD: Tensor, reach: Reach) -> Tensor:
        """Attend to the tokens within reach."""
        B, T, D = x_BTD.shape
        q_BTHE, k_BTHE, v_BTHE = (
            layer(x_BTD).view(B, T, -1, self.head_width) for layer in (self.query, self.key, self.value)
        )
        return self.output(attend(q_BTHE, k_BTHE, v_BTHE, reach, scale=1.0).reshape(B, T, D))


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

    def forward(self, x_BTD: Tensor, reach: Reach) -> Tensor:
        """Apply the layer, keeping no activations inside it where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.layer, x_BTD, reach, use_reentrant=False)
        return self.layer(x_BTD, reach)

    def layer(self, x_BTD: Tensor, reach: Reach) -> Tensor:
        """Apply the layer."""
        x_BTD = x_BTD + self.attention(normed(self.attention_norm, x_BTD), reach)
        return x_BTD + self.feed_forward(normed(self.feed_forward_norm, x_BTD))


class Model(nn.Module):
    """The whole decoder; the output layer is the embedding."""

    def __init__(self, shape: ModelShape, recompute: bool = False, attention: str = "auto") -> None:
        super().__init__()
        self.shape, self.attention = shape, attention
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape, layer % 2 == 1, recompute) for layer in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    @property
    def output_weight(self) -> Tensor:
        """Weights of the output layer."""
        return self.embedding.weight

    def hidden(self, tokens_BT: Tensor, documents: Documents | None = None) -> Tensor:
        """Token ids to the last layer's output, (B, T, D)."""
        T = tokens_BT.shape[1]
        positions_T = torch.arange(T, device=tokens_BT.device)
        if documents is not None:  # positions start anew in each
            positions_T = documents.positions()
        x_BTD = in_compute_type(self.embedding(tokens_BT) + self.positions(positions_T))
        far, near = (reach_of(x_BTD, documents, window, self.attention) for window in (None, self.shape.window))
        for block in self.blocks:
            x_BTD = block(x_BTD, near if block.local else far)
        return normed(self.norm, x_BTD)

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


def normed(norm: nn.LayerNorm, x_BTD: Tensor) -> Tensor:
    """LayerNorm computed in float32; the type stays."""
    weight, bias = norm.weight.float(), norm.bias.float()
    return functional.layer_norm(x_BTD.float(), norm.normalized_shape, weight, bias, norm.eps).to(x_BTD.dtype)
