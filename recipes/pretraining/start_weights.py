"""What a training starts from: a checkpoint, or a Hugging Face folder made into one.

`training.from` names either. The import is an artifact of its own, keyed by the folder's content, the model's shape and
the tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mixing.tokenizer_extension import EXTENSION_FILE
from recipes.artifacts import key_of
from recipes.errors import RunError
from recipes.pipeline import content_key

if TYPE_CHECKING:
    from recipes.pretraining.train import Training
    from recipes.run import Run


def start_weights(run: Run, training: Training) -> str | None:
    """The checkpoint that a new training starts from: the recipe's, or what a Hugging Face folder was made into."""
    start = training.spec.start_from
    if start is None or (Path(start) / "manifest.json").exists():
        return start
    from training.importing import ImportFailed, import_huggingface, is_huggingface

    if not is_huggingface(Path(start)):
        raise RunError(f"training.from: {start} holds neither a manifest.json nor a config.json: no whole checkpoint")
    key = key_of(content_key(start), asdict(training.spec.shape), run.tokens.tokenizer_key)
    root = run.store.workdir / f"imported-{key}"
    run.use(root.name, "train", "imported weights", {})
    made = sorted(path.parent for path in root.glob("step-*/manifest.json"))
    if made:
        return str(made[0])
    try:
        return str(import_huggingface(Path(start), root, training.spec.shape, _spelt(run.tokens.tokenizer)))
    except ImportFailed as error:
        raise RunError(f"training.from: {error}") from error


def _spelt(tokenizer: str) -> dict[int, list[int]]:
    """Old ids that spelt each new id of an extended tokenizer."""
    place = Path(tokenizer)
    beside = (place if place.is_dir() else place.parent) / EXTENSION_FILE
    if not beside.exists():
        return {}
    stored = json.loads(beside.read_text(encoding="utf-8"))["base_ids"]
    return {int(token): list(ids) for token, ids in stored.items()}
