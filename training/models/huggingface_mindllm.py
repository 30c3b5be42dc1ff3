"""MindLLM for transformers: RoPE, DeepNorm, RMSNorm, GeGLU. An export carries this file as its own code.

It stands alone (torch and transformers only) and computes what `training/models/mindllm.py` computes. Without a cache
for keys and values: each generated token reads the whole text again.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class MindllmConfig(PretrainedConfig):
    """The shape of a MindLLM."""

    model_type = "gristmill_mindllm"

    def __init__(
        self,
        vocab_size=32000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        **others,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.rms_norm_eps = rms_norm_eps
        self.rope_base = rope_theta
        super().__init__(**others)


def rotate(heads, cos, sin):
    """Turn each pair (e, e + E/2) of a head by its position's angle."""
    first, second = heads.float().chunk(2, dim=-1)
    return (heads.float() * cos + torch.cat([-second, first], dim=-1) * sin).to(heads.dtype)


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    def __init__(self, config):
        super().__init__()
        self.head_width = config.hidden_size // config.num_attention_heads
        kv_width = self.head_width * config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x, cos, sin, mask):
        """Attend where the mask allows."""
        batch, length, width = x.shape
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (layer(x).view(batch, length, -1, self.head_width).transpose(1, 2) for layer in layers)
        found = functional.scaled_dot_product_attention(
            rotate(query, cos, sin), rotate(key, cos, sin), value, attn_mask=mask, enable_gqa=True
        )
        return self.o_proj(found.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """GeGLU."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        """Apply to every token alone."""
        return self.down_proj(functional.gelu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each with its norm behind the sum."""

    def __init__(self, config):
        super().__init__()
        self.alpha = (2 * config.num_hidden_layers) ** 0.25
        self.self_attn = Attention(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = FeedForward(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x, cos, sin, mask):
        """Apply the layer."""
        x = self.input_layernorm(self.alpha * x + self.self_attn(x, cos, sin, mask))
        return self.post_attention_layernorm(self.alpha * x + self.mlp(x))


class Stack(nn.Module):
    """Embedding and layers."""

    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class MindllmForCausalLM(PreTrainedModel, GenerationMixin):
    """MindLLM with its output layer."""

    config_class = MindllmConfig
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.model = Stack(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        """The embedding."""
        return self.model.embed_tokens

    def get_output_embeddings(self):
        """The output layer."""
        return self.lm_head

    def _rotation(self, length, device):
        width = self.config.hidden_size // self.config.num_attention_heads
        exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
        angles = torch.outer(
            torch.arange(length, dtype=torch.float32, device=device), self.config.rope_base**-exponents
        )
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    def forward(self, input_ids, attention_mask=None, labels=None, **others):
        """Logits, and the loss where labels are given."""
        length = input_ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        if attention_mask is not None:
            # A padded query still sees itself: a row without any key would be no number.
            itself = torch.eye(length, dtype=torch.bool, device=input_ids.device)
            mask = mask & (attention_mask[:, None, None, :].bool() | itself)
        cos, sin = self._rotation(length, input_ids.device)
        x = self.model.embed_tokens(input_ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        logits = self.lm_head(x)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **others):
        """Give all tokens so far."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}
