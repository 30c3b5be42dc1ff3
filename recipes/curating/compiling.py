"""A recipe's steps compiled into stages, with errors at their lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curation.compiled import Program, ProgramError
from curation.program import compile_program
from recipes.errors import RunError
from recipes.schema.located import NOTHING, Located, Node, Place, RecipeErrors
from recipes.schema.recipe import step_for

if TYPE_CHECKING:
    from recipes.curating.curate import SourceState
    from recipes.schema.recipe import Recipe


def compile_recipe(recipe: Recipe, opens: bool = True) -> Program:
    """The recipe's steps as stages; a step that cannot be compiled is an error with its place in the recipe.

    Columns beside ready tokens are checked too, for which their files are opened, unless `opens` is false.
    """
    from recipes.checks.paths import tokenizer_problems
    from recipes.tokenizing.sorting import check_signals
    from recipes.tokenizing.token_files import check_split

    try:
        program = compile_program(
            recipe.text_sources(),
            recipe.steps,
            lambda step, source: step_for(step, source, recipe),
            recipe.domains.validate_only,
            _ready_tokenizer(recipe),
            recipe.words.han,
        )
    except ProgramError as error:
        raise RecipeErrors([_located(recipe, error)]) from None
    if missing := tokenizer_problems(recipe):
        raise RecipeErrors(missing)
    ready = sorted(recipe.token_sources())
    for name in ready if opens else ():
        check_split(recipe, name)
    if opens or not ready:
        check_signals(recipe, program.columns)
    return program


def _ready_tokenizer(recipe: Recipe) -> str | None:
    """The recipe's tokenizer where it is a file; one that the run trains is made of text that the steps leave."""
    tokenizer = recipe.tokenizer
    return None if tokenizer is None or tokenizer.path is None else str(tokenizer.path)


def _located(recipe: Recipe, error: ProgramError) -> Located:
    """A step's error with its line in the recipe."""
    from recipes.schema.validation import located

    path: tuple[Any, ...] = ()
    if error.path == "words.han":
        path = ("words", "han")
    if step := re.match(r"steps\[(\d+)\] \([^)]*\)\.?(.*)", error.path):
        number = int(step[1])
        path = ("steps", number, recipe.steps[number].kind, *filter(None, step[2].split(".")))
    return located(recipe.tree or Node({}, Place(str(recipe.path))), path, NOTHING, error.reason)


_BROUGHT = "@source"


def check_preferences(program: Program, sources: Mapping[str, SourceState]) -> None:
    """Refuse a `keep` by a column that is text in one source and numbers in another: they have no order.

    Raises:
        RunError: for the first such column, with what it is in each source; nothing has been read then.
    """
    from curation.stages.dedup import DuplicateOptions

    for options in (stage.options for stage in program.stages if isinstance(stage.options, DuplicateOptions)):
        for column in [str(criterion.column) for criterion in options.keep]:
            name, kinds = column.removesuffix(_BROUGHT), _kinds_of(column, sources)
            if len(set(kinds.values())) > 1:
                listed = ", ".join(f"{kind} in {source}" for source, kind in kinds.items())
                raise RunError(
                    f"step {options.step} keeps by {name}, which is {listed}: these cannot be compared. "
                    "Store it as one kind of value, or prefer by another entry in keep"
                )


def _kinds_of(column: str, sources: Mapping[str, SourceState]) -> dict[str, str]:
    """Source -> whether a column of its own files is text, number or bool, by what was told of its shards."""
    if not column.endswith(_BROUGHT):
        return {}
    told = {name: dict(state.shards[0].reader.types) for name, state in sources.items() if state.shards}
    kinds = {name: types.get(column.removesuffix(_BROUGHT)) for name, types in told.items()}
    return {name: "number" if kind == "int64" else kind for name, kind in kinds.items() if kind is not None}
