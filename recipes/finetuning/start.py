"""What a fine-tuning starts from: the model that the recipe trains, a checkpoint of ours, or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.checks.paths import finetuning_path_problems
from recipes.checks.starts import shape_of_start, tokenizer_beside
from recipes.errors import RunError
from recipes.pipeline import content_key
from recipes.pretraining.shapes import shape_of
from recipes.pretraining.start_weights import Origin, fitting_checkpoint
from recipes.schema.located import RecipeErrors
from training.huggingface import is_huggingface
from training.models.shape import ModelShape

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe
    from training.tuning.tokens import Encoder


@dataclass(frozen=True)
class Start:
    """What is tuned.

    Attributes:
        key: hash of its weights.
        shape: of the model, before a template's tokens.
        tokenizer: its folder, or tokenizer.json.
        path: checkpoint or Hugging Face folder; None: the model that this recipe trains.
    """

    key: str
    shape: ModelShape
    tokenizer: Path
    path: Path | None


def refuse_missing_parts(recipe: Recipe) -> None:
    """Stop before anything is made where what is tuned, the template or examples are missing or do not fit.

    Raises:
        RecipeErrors: all of it, with its lines.
    """
    if found := finetuning_path_problems(recipe):
        raise RecipeErrors(found)


def start_of(run: Run, dry: bool = False) -> Start:
    """What is tuned; what is missing of it is made, or refused where nothing may be made (`dry`)."""
    recipe: Any = run.recipe
    refuse_missing_parts(recipe)
    if recipe.finetuning.from_ is None:
        tokenizer = _own_tokenizer(run, dry)
        return Start("" if dry else run.training.key, _own_shape(run, tokenizer), tokenizer, None)
    path = Path(recipe.finetuning.from_)
    shape, tokenizer = shape_of_start(path), _tokenizer_of(run, path, dry)
    _refuse_more_ids(path, shape, tokenizer)
    return Start(str(content_key(str(path))), shape, tokenizer, path)


def _refuse_more_ids(path: Path, shape: ModelShape, tokenizer: Path) -> None:
    """Refuse a tokenizer that is not the model's: one with more ids than the model has rows."""
    from mixing.tokenizer import load_tokenizer

    known = load_tokenizer(tokenizer).vocabulary
    if known > shape.vocabulary:
        raise RunError(
            f"finetuning.from: {path}: the model knows {shape.vocabulary:,} token ids, and {tokenizer} has {known:,}; "
            "name the tokenizer that the model was trained with"
        )


def _tokenizer_of(run: Run, path: Path, dry: bool) -> Path:
    """The tokenizer of a model that `finetuning.from` names: a Hugging Face folder brings its own."""
    wanted = run.recipe.tokenizer
    if is_huggingface(path):
        return path
    beside = tokenizer_beside(path)
    if beside is not None:  # the one it was trained with, whatever this recipe makes
        return beside
    assert wanted is not None  # `tuned_problems` asks for it
    return _own_tokenizer(run, dry) if wanted.path is None else Path(str(wanted.path))


def _own_tokenizer(run: Run, dry: bool) -> Path:
    """The recipe's tokenizer; `dry` refuses one that was not trained yet."""
    if not dry:
        return Path(run.tokens.tokenizer)
    from recipes.curating.curate import plan_curation
    from recipes.show import refuse_missing
    from recipes.tokenizing.tokens import plan_tokens

    curation = plan_curation(run)
    tokens = plan_tokens(run, curation)
    refuse_missing(run, [*curation.stages, *tokens.stages], "finetune --dry-run")
    return Path(tokens.tokenizer)


def _own_shape(run: Run, tokenizer: Path) -> ModelShape:
    from mixing.tokenizer import load_tokenizer

    return shape_of(run.recipe.model, load_tokenizer(tokenizer).vocabulary)


def weights_of(run: Run, start: Start, encoder: Encoder) -> Path:
    """A checkpoint of the weights that the tuning starts from, with rows for the template's new tokens."""
    found = run.trained if start.path is None else start.path
    origin = Origin(found, start.key, start.shape, encoder.new, "finetuning.from")
    return fitting_checkpoint(run, origin, max(start.shape.vocabulary, encoder.vocabulary))
