"""The shape of a model as plain numbers, and what follows from it: parameters and operations. No torch."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("llama", "gpt_neo", "mindllm")


class ShapeError(ValueError):
    """A shape that no model can have."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder's dimensions.

    Attributes:
        family: llama (RMSNorm, RoPE, SwiGLU), gpt_neo (LayerNorm, learned positions, local attention on odd layers) or
            mindllm (DeepNorm, RMSNorm, RoPE, GeGLU).
        vocabulary: rows of the embedding; follows from the tokenizer.
        width: size of the residual stream.
        layers: number of blocks.
        heads: query heads; `width` is their multiple.
        feedforward: hidden size of the feed-forward part.
        context: tokens a sequence; GPT-Neo cannot read longer ones, the others can.
        kv_heads: key and value heads (grouped-query attention); None means as many as `heads`.
        tied: whether the output layer shares the embedding's weights.
        rope_base: base of the rotary frequencies (llama, mindllm).
        norm_epsilon: added under the root of the norms.
        window: tokens that a local layer sees back, itself included (gpt_neo).
    """

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    feedforward: int
    context: int
    kv_heads: int | None = None
    tied: bool = False
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5
    window: int = 256

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ShapeError(f"model family '{self.family}' is unknown; choose one of {', '.join(FAMILIES)}")
        if self.width % self.heads:
            raise ShapeError(f"width {self.width} is no multiple of {self.heads} heads; change one of them")
        if self.heads % self.num_kv_heads:
            raise ShapeError(f"{self.heads} heads cannot share {self.num_kv_heads} kv_heads; choose a divisor of heads")
        if self.family == "gpt_neo" and (self.num_kv_heads != self.heads or not self.tied):
            raise ShapeError(
                "gpt_neo has a key head for every query head and a tied output; leave kv_heads out, set tied"
            )
        if self.family != "gpt_neo" and self.head_width % 2:
            raise ShapeError(f"rotary positions need an even head width, not {self.head_width} (width / heads)")

    @property
    def num_kv_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """Size of one head."""
        return self.width // self.heads


def linear_layers(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Linear layers of each block: name -> (inputs, outputs), in the order of the blocks."""
    width, keys, inner = shape.width, shape.num_kv_heads * shape.head_width, shape.feedforward
    layers = {"query": (width, width), "key": (width, keys), "value": (width, keys), "output": (width, width)}
    gate = {} if shape.family == "gpt_neo" else {"gate": (width, inner)}
    return {**layers, **gate, "up": (width, inner), "down": (inner, width)}


def num_parameters(shape: ModelShape, *, embedding: bool = True) -> int:
    """Count a model's parameters exactly, a tied embedding once.

    Args:
        shape: the model.
        embedding: also count token embedding, output layer and learned positions; False gives what scaling laws call
            the non-embedding parameters.
    """
    width, hidden = shape.width, shape.feedforward
    kv_width = shape.num_kv_heads * shape.head_width
    attention = 2 * width * width + 2 * width * kv_width
    if shape.family == "gpt_neo":
        block = attention + width + 2 * width * hidden + hidden + width + 4 * width
        outer, final_norm = shape.context * width, 2 * width
    else:
        block = attention + 3 * width * hidden + 2 * width
        # DeepNorm normalises after every sum, so mindllm ends normalised.
        outer, final_norm = 0, 0 if shape.family == "mindllm" else width
    outer += shape.vocabulary * width * (1 if shape.tied else 2)
    return shape.layers * block + final_norm + (outer if embedding else 0)


def flops_per_token(shape: ModelShape, context: int | None = None) -> int:
    """Operations to train on one token, forward and backward: 6 x parameters + 12 x layers x width x context.

    The output layer counts, the input embedding (a look-up) does not. The convention is OLMo-core's and torchtitan's;
    it counts attention in full although half of it is masked.
    """
    length = shape.context if context is None else context
    matmul = num_parameters(shape, embedding=False) + shape.vocabulary * shape.width
    return 6 * matmul + 12 * shape.layers * shape.width * length
