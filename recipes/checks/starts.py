"""Weights that a recipe starts from, as their own files describe them: a checkpoint of ours or a Hugging Face folder.

Only manifest.json and config.json are read, so a recipe is checked at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from curation.fields import Problem
from recipes.pretraining.shapes import shape_of
from recipes.schema.recipe import Recipe
from training.huggingface import ImportFailed, is_huggingface, shape_of_huggingface
from training.models.shape import ModelShape, ShapeError


def shape_of_start(path: Path) -> ModelShape:
    """The shape of the model in a checkpoint of ours or a Hugging Face folder.

    Raises:
        ImportFailed: if there is neither, the model is not imported, or the checkpoint holds adapters alone.
    """
    if is_huggingface(path):
        return shape_of_huggingface(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        shape = ModelShape(**manifest["shape"])
    except OSError:
        inside = sorted([*path.glob("step-*/manifest.json"), *path.glob("checkpoints/step-*/manifest.json")])
        hint = f"; did you mean {inside[-1].parent}?" if inside else ""
        raise ImportFailed(f"no checkpoint and no Hugging Face folder (manifest.json, config.json){hint}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ImportFailed(f"manifest.json is no checkpoint's: {error!r}") from None
    if any(".lora_" in name for name in manifest.get("tensors", {})):
        raise ImportFailed(
            "a checkpoint of low-rank updates, without the weights that they change; name the merged model: "
            "huggingface in its tuned-… folder"
        )
    return shape


def tokenizer_beside(checkpoint: Path) -> Path | None:
    """The tokenizer that a training keeps beside its checkpoints."""
    folder = checkpoint.parent.parent / "tokenizer"
    return folder if (folder / "tokenizer.json").is_file() else None


def trained_problems(recipe: Recipe) -> Iterator[Problem]:
    """What `training.from` names and the recipe's model cannot start from: the first value that differs."""
    if recipe.training is None or recipe.training.from_ is None or recipe.model is None:
        return
    path, place = Path(str(recipe.training.from_)), ("training", "from")
    try:
        theirs = shape_of_start(path)
    except ImportFailed as error:
        yield place, str(path), str(error).removeprefix(f"{path}: ")
        return
    with suppress(ShapeError):  # told where the model is checked
        yield from ((place, str(path), reason) for reason in _differences(theirs, shape_of(recipe.model, 1)))


def _differences(theirs: ModelShape, ours: ModelShape) -> list[str]:
    """The first value in which two models differ; only learned positions are bound to the context."""
    there, here = ({**asdict(one), "kv_heads": one.num_kv_heads} for one in (theirs, ours))
    free = {"vocabulary", "context"} if ours.family == "gpt_neo" else {"vocabulary", "context", "window"}
    for name in there:
        if name not in free and there[name] != here[name]:
            return [f"{name} is {there[name]} there, {here[name]} in the recipe's model"]
    if ours.family == "gpt_neo" and theirs.context < ours.context:
        return [f"it knows {theirs.context} positions, and model.context is {ours.context}"]
    return []
