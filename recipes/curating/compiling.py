"""A recipe's steps compiled into stages, with errors at their lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from curation.compiled import Program, ProgramError
from curation.program import compile_program
from recipes.schema.located import NOTHING, Located, Node, Place, RecipeErrors
from recipes.schema.recipe import step_for

if TYPE_CHECKING:
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
