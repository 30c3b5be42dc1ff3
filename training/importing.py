"""Weights of a Hugging Face folder as a checkpoint that a training starts from; the inverse of `training.export`.

Only safetensors are read, so nothing is unpickled. A larger vocabulary than the model was trained on is filled up: an
id that the extended tokenizer joins from old ids begins as their mean, any other as the mean of all rows. Rows that a
model has beyond its tokenizer's ids (padded vocabularies: 50,304 rows for 50,257 ids) are cut off.
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
from training.huggingface import KEYS, ImportFailed, family_of, read_config, rope_base_of
from training.models import ModelShape, build

# Parameters with a row for each token id.
VOCABULARY_ROWS = ("embedding.weight", "output.weight")


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
    folder: Path,
    root: Path,
    shape: ModelShape,
    base_ids: Mapping[int, list[int]] | None = None,
    known: int | None = None,
) -> Path:
    """Write a Hugging Face model's weights as a checkpoint of train step 0.

    Memory: the whole model in float32, and one tensor of theirs.

    Args:
        folder: config.json and model*.safetensors of a Llama, GPT-Neo or exported MindLLM.
        root: folder of checkpoints, made if missing.
        shape: the model that is trained; its vocabulary may be larger, its context another.
        base_ids: of new ids, the old ids that spelt them before.
        known: ids of the model's own tokenizer; rows beyond are padding. None where it brings no tokenizer.

    Returns:
        The checkpoint's folder.

    Raises:
        ImportFailed: naming the first value that differs, a missing tensor, or a tokenizer of fewer ids.
    """
    _check_config(folder, read_config(folder), shape)
    read = _reader(folder)
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = read(exported_name(shape.family, name)).float()
            if name in VOCABULARY_ROWS:
                theirs = with_rows(theirs, shape.vocabulary, base_ids or {}, known)
            elif name == "positions.weight":
                theirs = theirs[: shape.context]
            if theirs.shape != parameter.shape:
                raise ImportFailed(f"{folder}: {name} is {list(theirs.shape)} there, {list(parameter.shape)} here")
            parameter.copy_(theirs)
    manifest = {"step": 0, "position": 0, "tokens": 0, "prefix": {"imported": folder.name}, "state": {}}
    return checkpoint.save(root, model, None, {**manifest, "shape": checkpoint.shape_entry(shape)})


def with_rows(rows_VD: Tensor, vocabulary: int, base_ids: Mapping[int, list[int]], known: int | None = None) -> Tensor:
    """Rows of another vocabulary: those of the model's own ids, then of each new id the mean of those that spelt it.

    A new id that nothing spelt before begins as the mean of all. Rows that a model has beyond its tokenizer are left
    out: no text has their ids, and the logits of all others stay.

    Args:
        rows_VD: the model's.
        vocabulary: rows that are wanted.
        base_ids: of new ids, the old ids that spelt them before.
        known: ids of the model's own tokenizer; None counts all rows.
    """
    known = rows_VD.shape[0] if known is None else min(known, rows_VD.shape[0])
    if vocabulary < known:
        raise ImportFailed(
            f"the model has {known:,} token ids and the tokenizer {vocabulary:,}; use the model's own tokenizer (lying "
            "beside it, it tells padding apart), or one extended from it (tokenizer: {base: ..., vocabulary: ...})"
        )
    whole_VD = torch.cat([rows_VD[:known], rows_VD[:known].mean(0).repeat(vocabulary - known, 1)])
    for token, spelt in base_ids.items():
        if spelt:
            whole_VD[token] = rows_VD[spelt].mean(0)
    return whole_VD


def _check_config(folder: Path, config: Mapping[str, Any], shape: ModelShape) -> None:
    family = family_of(config)
    if family != shape.family:
        raise ImportFailed(f"{folder}: a {family} model; the recipe's is {shape.family}")
    rope = rope_base_of(config)
    if family != "gpt_neo" and rope is not None and rope != shape.rope_base:
        raise ImportFailed(f"{folder}: rope_theta is {rope:g} there, model.rope_base {shape.rope_base:g} here")
    here = {ours: getattr(shape, "num_kv_heads" if ours == "kv_heads" else ours) for ours in KEYS[family]}
    for ours, theirs in KEYS[family].items():
        value = config.get(theirs)
        if value is not None and value != here[ours]:
            raise ImportFailed(f"{folder}: {theirs} is {value} there, {here[ours]} in the recipe's model")
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
