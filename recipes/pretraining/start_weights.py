"""What a training starts from: a checkpoint as it is, or one that is made of other weights.

`training.from` and `finetuning.from` name a checkpoint of ours or a Hugging Face folder. Where the weights are another
program's, or the tokenizer has tokens that the model does not know, a checkpoint is made of them: an artifact of its
own, keyed by what the weights are, the model's shape and what begins in place of what.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixing.tokenizer_extension import EXTENSION_FILE
from mixing.tokenizer_files import copy_tokenizer
from recipes.artifacts import key_of
from recipes.checks.paths import training_problems
from recipes.checks.starts import shape_of_start, tokenizer_beside
from recipes.errors import RunError
from recipes.pipeline import content_key, held
from recipes.schema.located import RecipeErrors
from training.huggingface import ImportFailed, is_huggingface
from training.models.shape import ModelShape, num_parameters

if TYPE_CHECKING:
    from recipes.pretraining.train import Training
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

# Raised when the same weights and new tokens give another checkpoint.
VERSION = 3
_PART = {"training.from": "train", "finetuning.from": "finetune"}


@dataclass(frozen=True)
class Origin:
    """Weights that a training starts from.

    Attributes:
        folder: a checkpoint of ours, or a Hugging Face folder.
        key: hash of what is in it.
        shape: of the model that is trained, with the vocabulary that it had.
        new: ids that its tokenizer did not have, with the old ids that spelt them.
        named: the recipe's key that names it, for errors.
        known: ids of its own tokenizer, beyond which its rows are padding; None where all rows count.
    """

    folder: Path
    key: str
    shape: ModelShape
    new: Mapping[int, list[int]]
    named: str
    known: int | None = None


def start_weights(run: Run, training: Training) -> str | None:
    """The checkpoint that a new training starts from, None where weights are drawn."""
    start, shape = training.spec.start_from, training.spec.shape
    if start is None:
        return None
    folder = Path(start)
    refuse_other_start(run.recipe)
    _refuse_other_tokens(folder, Path(run.tokens.tokenizer))
    theirs = shape_of_start(folder)
    known = _known_ids(folder, theirs.vocabulary)
    new = {token: ids for token, ids in _spelt(run.tokens.tokenizer).items() if token >= known}
    rows = replace(shape, vocabulary=theirs.vocabulary)
    origin = Origin(folder, str(content_key(start)), rows, new, "training.from", known)
    return str(fitting_checkpoint(run, origin, shape.vocabulary))


def fitting_checkpoint(run: Run, origin: Origin, vocabulary: int) -> Path:
    """The folder of a checkpoint with rows for `vocabulary` ids: the origin itself where it has them, else one made.

    Raises:
        RunError: naming the first value in which the weights differ from the model, or a tensor that is missing.
    """
    found = origin.folder
    ours = not is_huggingface(found)
    if ours and vocabulary == origin.shape.vocabulary and not origin.new:
        return found
    from training.importing import extend_checkpoint, import_huggingface

    shape = replace(origin.shape, vocabulary=vocabulary)
    root = run.store.workdir / f"imported-{key_of(VERSION, origin.key, asdict(shape), sorted(origin.new.items()))}"
    title, size = "weights to start from", f"{num_parameters(shape) / 1e6:.1f}M parameters"
    run.use(root.name, _PART[origin.named], title, {})
    with held(run.narrator, root, title):
        made = sorted(path.parent for path in root.glob("step-*/manifest.json"))
        if made:
            run.narrator.reused(title, size)
            return made[0]
        started = time.monotonic()
        try:
            if ours:
                from training.checkpoint import open_checkpoint

                written = extend_checkpoint(open_checkpoint(found), root, vocabulary, origin.new)
            else:
                written = import_huggingface(found, root, shape, origin.new, origin.known)
        except ImportFailed as error:
            raise RunError(f"{origin.named}: {error}") from error
    run.narrator.made(title, size, time.monotonic() - started)
    return written


def refuse_other_start(recipe: Recipe) -> None:
    """Stop before anything is made where `training.from` does not fit the recipe's model, or a tokenizer it names.

    Raises:
        RecipeErrors: with its line.
        RunError: if the tokenizer gives ids another meaning.
    """
    if recipe.training is None or recipe.training.from_ is None:
        return
    if found := training_problems(recipe):
        raise RecipeErrors(found)
    if recipe.tokenizer is not None and recipe.tokenizer.path is not None:
        _refuse_other_tokens(Path(str(recipe.training.from_)), Path(str(recipe.tokenizer.path)))


def _refuse_other_tokens(folder: Path, tokenizer: Path) -> None:
    """Refuse a tokenizer under which a model's rows would stand for other tokens than they were trained on."""
    from mixing.tokenizer import load_tokenizer

    own = _own_tokenizer(folder)
    if own is None:
        return
    theirs, ours = (load_tokenizer(one).encoder.get_vocab(with_added_tokens=True) for one in (own, tokenizer))
    meant = {at: token for token, at in ours.items()}
    other = sorted(at for token, at in theirs.items() if meant.get(at, token) != token)
    if other:
        was = next(token for token, at in theirs.items() if at == other[0])
        raise RunError(
            f"training.from: {folder}: {len(other):,} of its {len(theirs):,} token ids mean something else in "
            f"{tokenizer} (the first: {other[0]} was {was!r} and is {meant[other[0]]!r}); say tokenizer: {own}, or "
            "extend that one (tokenizer: {base: ..., vocabulary: ...})"
        )


def _own_tokenizer(folder: Path) -> Path | None:
    """The tokenizer that a model brings, if it does."""
    return folder if (folder / "tokenizer.json").is_file() else tokenizer_beside(folder)


def _known_ids(folder: Path, rows: int) -> int:
    """Ids that a model's own tokenizer has; a model may have more rows. Without one, all its rows count."""
    from mixing.tokenizer import load_tokenizer

    own = _own_tokenizer(folder)
    return rows if own is None else min(rows, load_tokenizer(own).vocabulary)


def keep_tokenizer(folder: Path, tokenizer: Path) -> None:
    """Keep a training's tokenizer beside its checkpoints, so that whoever starts from one has the right one."""
    copy_tokenizer(tokenizer, folder / "tokenizer")


def _folder_of(tokenizer: Path) -> Path:
    return tokenizer if tokenizer.is_dir() else tokenizer.parent


def _spelt(tokenizer: str) -> dict[int, list[int]]:
    """Old ids that spelt each new id of an extended tokenizer."""
    beside = _folder_of(Path(tokenizer)) / EXTENSION_FILE
    if not beside.exists():
        return {}
    stored = json.loads(beside.read_text(encoding="utf-8"))["base_ids"]
    return {int(token): list(ids) for token, ids in stored.items()}
