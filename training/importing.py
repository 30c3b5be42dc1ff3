"""Weights of a Hugging Face folder as a checkpoint that a training starts from; the inverse of `training.export`.

Only safetensors are read, so nothing is unpickled. A larger vocabulary than the model was trained on is filled up: an
id that the extended tokenizer joins from old ids begins as their mean, any other as the mean of all rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from training import checkpoint
from training.export import exported_name
from training.models import ModelShape, build

# Parameters with a row for each token id.
VOCABULARY_ROWS = ("embedding.weight", "output.weight")
_KEYS = {
    "llama": {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "heads": "num_attention_heads",
        "num_kv_heads": "num_key_value_heads",
        "feedforward": "intermediate_size",
        "norm_epsilon": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
    "gpt_neo": {
        "layers": "num_layers",
        "width": "hidden_size",
        "heads": "num_heads",
        "window": "window_size",
        "norm_epsilon": "layer_norm_epsilon",
    },
}


class ImportFailed(RuntimeError):  # noqa: N818
    """A folder that this model cannot start from."""


def is_huggingface(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model, and not one of our checkpoints."""
    return (folder / "config.json").exists() and not (folder / "manifest.json").exists()


def shape_of_huggingface(folder: Path) -> ModelShape:
    """The shape that a Hugging Face folder's config.json tells.

    Raises:
        ImportFailed: for a family that is not imported.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = str(config.get("model_type"))
    if family not in _KEYS:
        raise ImportFailed(f"{folder}: a {family} model; llama and gpt_neo are imported")
    told = {ours: config[theirs] for ours, theirs in _KEYS[family].items() if config.get(theirs) is not None}
    rope = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    if family == "llama" and rope is not None:
        told["rope_base"] = float(rope)
    if family == "gpt_neo":
        told["tied"] = True
    told["kv_heads"] = told.pop("num_kv_heads", None)
    told["feedforward"] = config.get("intermediate_size") or 4 * told["width"]
    return ModelShape(family=family, vocabulary=config["vocab_size"], context=config["max_position_embeddings"], **told)


def extend_checkpoint(
    opened: checkpoint.Checkpoint, root: Path, vocabulary: int, base_ids: Mapping[int, list[int]]
) -> Path:
    """Write a checkpoint's weights with rows for a larger vocabulary, as a checkpoint of train step 0.

    Args:
        opened: the checkpoint.
        root: folder of checkpoints, made if missing.
        vocabulary: rows of embedding and output.
        base_ids: of new ids, the old ids that spelt them before.

    Returns:
        The checkpoint's folder.
    """
    shape = replace(ModelShape(**opened.manifest["shape"]), vocabulary=vocabulary)
    weights = checkpoint.read_weights(opened)
    for name in VOCABULARY_ROWS:
        if name in weights:
            weights[name] = with_rows(weights[name], vocabulary, base_ids)
    return write_weights(weights, shape, root, {"extended": opened.folder.name, "vocabulary": vocabulary})


def write_weights(weights: Mapping[str, Tensor], shape: ModelShape, root: Path, prefix: Mapping[str, Any]) -> Path:
    """Write weights by parameter name as a checkpoint of train step 0; returns its folder."""
    with torch.device("meta"):
        model = build(shape)
    model.load_state_dict(dict(weights), assign=True)
    manifest = {"step": 0, "position": 0, "tokens": 0, "prefix": dict(prefix), "state": {}}
    return checkpoint.save(root, model, None, {**manifest, "shape": checkpoint.shape_entry(shape)})


def import_huggingface(
    folder: Path, root: Path, shape: ModelShape, base_ids: Mapping[int, list[int]] | None = None
) -> Path:
    """Write a Hugging Face model's weights as a checkpoint of train step 0.

    Memory: the whole model in float32, and one tensor of theirs.

    Args:
        folder: config.json and model*.safetensors of a Llama or GPT-Neo.
        root: folder of checkpoints, made if missing.
        shape: the model that is trained; its vocabulary may be larger, its context another.
        base_ids: of new ids, the old ids that spelt them before.

    Returns:
        The checkpoint's folder.

    Raises:
        ImportFailed: naming the first value that differs, a missing tensor, or a vocabulary larger than the model's.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _check_config(folder, config, shape)
    read = _reader(folder)
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = read(exported_name(shape.family, name)).float()
            if name in VOCABULARY_ROWS:
                theirs = with_rows(theirs, shape.vocabulary, base_ids or {})
            elif name == "positions.weight":
                theirs = theirs[: shape.context]
            if theirs.shape != parameter.shape:
                raise ImportFailed(f"{folder}: {name} is {list(theirs.shape)} there, {list(parameter.shape)} here")
            parameter.copy_(theirs)
    manifest = {"step": 0, "position": 0, "tokens": 0, "prefix": {"imported": folder.name}, "state": {}}
    return checkpoint.save(root, model, None, {**manifest, "shape": checkpoint.shape_entry(shape)})


def with_rows(rows_VD: Tensor, vocabulary: int, base_ids: Mapping[int, list[int]]) -> Tensor:
    """Rows of a larger vocabulary: the old ones, then means of those that spelt the new ids."""
    known = rows_VD.shape[0]
    if vocabulary < known:
        raise ImportFailed(
            f"the model has {known:,} token ids and the tokenizer {vocabulary:,}; use the model's own tokenizer, or "
            "one extended from it (tokenizer: {extend: ...})"
        )
    new_VD = rows_VD.mean(0).repeat(vocabulary - known, 1)
    for token, spelt in base_ids.items():
        if token >= known and spelt:
            new_VD[token - known] = rows_VD[spelt].mean(0)
    return torch.cat([rows_VD, new_VD])


def _check_config(folder: Path, config: Mapping[str, Any], shape: ModelShape) -> None:
    family = config.get("model_type")
    if family not in _KEYS or family != shape.family:
        raise ImportFailed(
            f"{folder}: a {family} model; the recipe's is {shape.family}; llama and gpt_neo are imported"
        )
    rope = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta", shape.rope_base))
    if family == "llama" and rope != shape.rope_base:
        raise ImportFailed(f"{folder}: rope_theta is {rope:g} there, model.rope_base {shape.rope_base:g} here")
    for ours, theirs in _KEYS[family].items():
        value = config.get(theirs, shape.num_kv_heads if ours == "num_kv_heads" else None)
        if value is not None and value != getattr(shape, ours):
            raise ImportFailed(f"{folder}: {theirs} is {value} there, {getattr(shape, ours)} in the recipe's model")
    positions = config.get("max_position_embeddings", shape.context)
    if family == "gpt_neo" and positions < shape.context:
        raise ImportFailed(f"{folder}: it knows {positions} positions, and model.context is {shape.context}")


def _reader(folder: Path) -> Callable[[str], Tensor]:
    """Reads one tensor by its name, from one file or from several."""
    index = folder / "model.safetensors.index.json"
    files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.exists() else {}
    if not files:
        single = folder / "model.safetensors"
        if not single.exists():
            raise ImportFailed(f"{folder}: no model.safetensors; save it with save_pretrained(safe_serialization=True)")
        with safe_open(single, framework="pt") as tensors:
            files = dict.fromkeys(tensors.keys(), single.name)

    def read(name: str) -> Tensor:
        # A bare base model is saved without the prefix of its head.
        found = next((known for known in (name, name.split(".", 1)[1]) if known in files), None)
        if found is None:
            raise ImportFailed(f"{folder}: no tensor {name!r}; is it a model with a language modelling head?")
        with safe_open(folder / files[found], framework="pt") as tensors:
            return tensors.get_tensor(found)

    return read
