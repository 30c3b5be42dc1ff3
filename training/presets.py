"""Model presets: shape and training values, as the recipe would write them.

The ladder (`llama_*`) is ours: mostly head width 64, tied embeddings; names are total parameters at a vocabulary of
32,000 (llama_1m at 4,096 and llama_4m at 8,192, the small vocabularies they are for). Peak learning rate, batch and
warm-up of the ladder are rounded from the rule of OLMo-core's model ladder, with N = non-embedding parameters:
lr = 0.0047 / 2 * (N / 108e6)^(-1/3), batch = 2048 * 160 * (N / 108e6)^(2/3) tokens, warm-up = N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _llama(
    layers: int, width: int, heads: int, feedforward: int, context: int, *, training: Mapping[str, Any], **shape: Any
) -> dict[str, Any]:
    """A Llama shape; `kv_heads` equals `heads` and embeddings are tied unless said otherwise."""
    return {
        "family": "llama",
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "feedforward": feedforward,
        "context": context,
        "tied": True,
        **shape,
        "training": training,
    }


def _training(batch: int, peak: float, warmup: str, final: float | None = None, **values: Any) -> dict[str, Any]:
    """Training values; `batch` in sequences; the rate falls to a tenth by a cosine unless `final` is given."""
    rate = {"peak": peak, "final": peak / 10 if final is None else final, "warmup": warmup, "shape": "cosine"}
    return {"batch": f"{batch} sequences", "precision": "bf16", "optimizer": {}, "learning_rate": rate, **values}


# Table 6 of the LLäMmlein paper (arXiv:2411.11171); warm-up and final rate are its pretraining script's.
_LLAMMLEIN_TRAINING = _training(1024, 6e-4, "2000 train steps", 4e-6)

MODEL_PRESETS: dict[str, dict[str, Any]] = {
    # For tests: learns letters on one core in seconds.
    "llama_tiny": _llama(
        2, 64, 4, 160, 128, kv_heads=2, training=_training(16, 1e-2, "10 train steps", precision="fp32")
    ),
    "llama_1m": _llama(6, 96, 3, 256, 512, training=_training(32, 1e-2, "1M")),
    "llama_4m": _llama(6, 192, 6, 512, 512, training=_training(64, 8e-3, "3M")),
    "llama_11m": _llama(4, 256, 4, 704, 1024, training=_training(32, 7.5e-3, "3M")),
    # The shape of llama2.c's stories15M: 15,191,712 parameters at a vocabulary of 32,000.
    "llama_15m": _llama(6, 288, 6, 768, 1024, training=_training(48, 6e-3, "6M")),
    "llama_20m": _llama(8, 320, 5, 864, 1024, training=_training(64, 5e-3, "10M")),
    "llama_48m": _llama(10, 512, 8, 1408, 1024, training=_training(144, 3.5e-3, "32M")),
    "llama_60m": _llama(10, 576, 9, 1600, 1024, training=_training(168, 3.2e-3, "40M")),
    "llama_95m": _llama(12, 704, 11, 1920, 2048, training=_training(128, 2.7e-3, "72M")),
    "llama_120m": _llama(14, 768, 12, 1920, 2048, training=_training(144, 2.4e-3, "96M")),
    "llama_200m": _llama(15, 960, 15, 2560, 2048, training=_training(216, 2e-3, "160M")),
    "llama_500m": _llama(19, 1408, 22, 3840, 2048, training=_training(416, 1.4e-3, "460M")),
    "llama_1b": _llama(20, 2048, 16, 5632, 2048, kv_heads=8, training=_training(680, 1.1e-3, "940M")),
    "llammlein_120m": _llama(12, 768, 12, 2048, 2048, kv_heads=4, tied=False, training=_LLAMMLEIN_TRAINING),
    "llammlein_1b": _llama(22, 2048, 32, 5632, 2048, kv_heads=4, tied=False, training=_LLAMMLEIN_TRAINING),
    # GPT-Neo-1.3B with MindLLM's vocabulary; 768 sequences of 2048 fit its 323B tokens in 207,000 train steps.
    # The paper gives no learning rate: 2e-4 is GPT-Neo's and GPT-3's for this size.
    "mindllm_1b3": {
        "family": "gpt_neo",
        "layers": 24,
        "width": 2048,
        "heads": 16,
        "kv_heads": 16,
        "feedforward": 8192,
        "context": 2048,
        "tied": True,
        "window": 256,
        "norm_epsilon": 1e-5,
        "training": _training(768, 2e-4, "3000 train steps"),
    },
    # RoPE, RMSNorm, GeGLU and DeepNorm as the paper names them; width and layers are a fit to its 3.1B parameters at a
    # vocabulary of 125,700, and 3052 sequences make its 500B tokens 80,000 train steps. The learning rate is GPT-3's.
    "mindllm_3b": {
        "family": "mindllm",
        "layers": 32,
        "width": 2560,
        "heads": 32,
        "kv_heads": 32,
        "feedforward": 6912,
        "context": 2048,
        "tied": False,
        "training": _training(3052, 1.6e-4, "2000 train steps"),
    },
}
