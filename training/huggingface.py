"""What a Hugging Face folder's config.json says of its model: the shape, or why no model here computes the same.

No torch, so that a recipe which names a folder is checked at once. Weights are read by `training.importing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.models.shape import ModelShape, ShapeError

_LLAMA = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "feedforward": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
_GPT_NEO = {
    "layers": "num_layers",
    "width": "hidden_size",
    "heads": "num_heads",
    "window": "window_size",
    "norm_epsilon": "layer_norm_epsilon",
}
# Their kind of model -> our family, and our names of their numbers. The third is what we export ourselves.
FAMILIES = {"llama": "llama", "gpt_neo": "gpt_neo", "gristmill_mindllm": "mindllm"}
KEYS = {"llama": _LLAMA, "gpt_neo": _GPT_NEO, "mindllm": _LLAMA}
_IMPORTED = "llama, gpt_neo and exported mindllm models are imported"


class ImportFailed(RuntimeError):  # noqa: N818
    """A folder that this model cannot start from."""


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model, and not one of our checkpoints."""
    return (folder / "config.json").exists() and not (folder / "manifest.json").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        ImportFailed: if it is no JSON object, tells of another kind of model, or of one that computes something else
            than ours: scaled rotary positions, biases, another activation.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImportFailed(f"{folder}: config.json cannot be read: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in FAMILIES:
        raise ImportFailed(f"{folder}: a {kind} model; {_IMPORTED}")
    for key, value, ours in _others(config, FAMILIES[str(kind)]):
        raise ImportFailed(f"{folder}: config.json: {key} is {value}, and the model here has {ours}")
    return dict(config)


def family_of(config: Mapping[str, Any]) -> str:
    """Our family of a config."""
    return FAMILIES[str(config["model_type"])]


def rope_base_of(config: Mapping[str, Any]) -> float | None:
    """Base of the rotary frequencies, as transformers 4 and 5 write it."""
    rope = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    return None if rope is None else float(rope)


def shape_of_huggingface(folder: Path) -> ModelShape:
    """The shape that a Hugging Face folder's config.json tells.

    Raises:
        ImportFailed: for a model that is not imported, or a config that leaves out what it needs.
    """
    config = read_config(folder)
    family = family_of(config)
    told = {ours: config[theirs] for ours, theirs in KEYS[family].items() if config.get(theirs) is not None}
    if family == "gpt_neo":
        told["tied"] = True
    elif (rope := rope_base_of(config)) is not None:
        told["rope_base"] = rope
    try:
        told["feedforward"] = config.get("intermediate_size") or 4 * told["width"]
        counts = {"vocabulary": config["vocab_size"], "context": config["max_position_embeddings"]}
        return ModelShape(family=family, **counts, **told)
    except (KeyError, TypeError, ShapeError) as error:
        raise ImportFailed(f"{folder}: config.json tells no whole model: {error}") from None


def _others(config: Mapping[str, Any], family: str) -> Iterator[tuple[str, Any, str]]:
    """What a model of this kind may have and ours has not: (key, its value, what is here)."""
    if family == "gpt_neo":
        wanted, key = "gelu_new", "activation_function"
        layers = config.get("attention_layers")
        if layers is not None and layers != [("global", "local")[n % 2] for n in range(len(layers))]:
            yield "attention_layers", layers, "global and local ones in turn"
    else:
        wanted, key = "gelu" if family == "mindllm" else "silu", "hidden_act"
        for rope in (config.get("rope_parameters"), config.get("rope_scaling")):
            kind = (rope or {}).get("rope_type", (rope or {}).get("type", "default"))
            if kind != "default":
                yield "rope_type", kind, "plain rotary positions"
        for bias in ("attention_bias", "mlp_bias"):
            if config.get(bias):
                yield bias, True, "none"
        heads, width = config.get("num_attention_heads"), config.get("head_dim")
        if width is not None and heads and width * heads != config.get("hidden_size"):
            yield "head_dim", width, "hidden_size / num_attention_heads"
    if config.get(key, wanted) != wanted:
        yield key, config[key], wanted
    if config.get("quantization_config"):
        yield "quantization_config", "given", "plain weights"
