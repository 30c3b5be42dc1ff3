"""The flags that all verbs share, and opening a recipe by them."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

# Verbs that make parts of a run, and stop after the one that --until names.
_STOPPING = ("run", "curate", "tokenize", "train", "evaluate", "export", "finetune", "report")
# Verbs that can say what they would make; the others only look, or make nothing that a run is made of.
_ANNOUNCING = (*_STOPPING, "fetch", "plan", "ablate", "pin", "weights", "scale", "generate", "trace", "clean")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Flags:
    """What a verb was called with, besides flags of its own."""

    recipe: Path
    overrides: tuple[str, ...] = ()
    sample: float | None = None
    until: str | None = None
    dry_run: bool = False
    as_json: bool = False
    verify_inputs: bool = False

    def load(self) -> Recipe:
        """The recipe with its overrides; every mistake of it is shown at once."""
        from recipes.schema.recipe import sampled

        whole = self._load(self.overrides)
        if self.sample is None:
            return whole
        return self._load((*self.overrides, *sampled(whole, self.sample)))

    def _load(self, overrides: tuple[str, ...]) -> Recipe:
        """The recipe with overrides; those that change what is made give its run a name of its own."""
        from recipes.schema.recipe import load_recipe
        from recipes.schema.variants import variant_key

        recipe = load_recipe(self.recipe, overrides)
        if overrides:
            recipe._variant, recipe._flags = variant_key(load_recipe(self.recipe), recipe), self.words
        return recipe

    @property
    def words(self) -> str:
        """The flags that change the recipe, as they were written."""
        share = [] if self.sample is None else [f"--sample {self.sample:g}"]
        return " ".join([*(f"--set {shlex.quote(one)}" for one in self.overrides), *share])

    def open_run(self, quiet: bool = False, brief: bool = False, trains: bool = True) -> Run:
        """The run of the recipe: its work directory, and what is there already.

        Without `trains` an ablation that has not run is an error: a verb that only looks never spends hours.
        """
        from recipes.run import Run

        run = Run.open(self.load(), self.as_json or quiet, self.verify_inputs, brief)
        run.trains = trains
        run.publishes = self.sample is None
        return run

    def open_run_unsampled(self) -> Run:
        """The run of the recipe without `--sample`, which the verb uses for itself."""
        from recipes.run import Run

        return Run.open(self._load(self.overrides), self.as_json, self.verify_inputs)

    def open_run_as_written(self) -> Run:
        """The run of the recipe without the overrides, of the same sample."""
        return replace(self, overrides=()).open_run()


def shared_flags(function: Function) -> Function:
    """Give a verb the recipe argument and the shared flags, gathered as one `flags` value.

    A flag that means nothing to the verb (the name of its module) is not shown, and refused where it is given.
    """
    name = function.__module__.rpartition(".")[2]

    @click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    @click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the recipe.")
    @click.option(
        "--sample", type=click.FloatRange(0, 1, min_open=True), help="Read this share of what every source would read."
    )
    @click.option("--until", metavar="VERB|STEP", help="Stop after this verb or step.", hidden=name not in _STOPPING)
    @click.option(
        "--dry-run",
        is_flag=True,
        help="Say what would be made and what would be reused; make nothing.",
        hidden=name not in _ANNOUNCING,
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
    @click.option("--verify-inputs", is_flag=True, help="Read every raw shard again instead of trusting its time.")
    @functools.wraps(function)
    def verb(
        recipe: Path,
        overrides: tuple[str, ...],
        sample: float | None,
        until: str | None,
        dry_run: bool,
        as_json: bool,
        verify_inputs: bool,
        **own: Any,
    ) -> Any:
        flags = Flags(recipe, overrides, sample, until, dry_run, as_json, verify_inputs)
        if until is not None and name not in _STOPPING:
            from recipes.whole import refuse_until

            refuse_until(flags.open_run(quiet=True), name, until)
        if dry_run and name not in _ANNOUNCING:
            raise click.UsageError(f"--dry-run: {name} makes no part of a run; leave it out")
        return function(flags, **own)

    return verb  # type: ignore[return-value]


def print_json(value: object) -> None:
    """A result for other programs: one JSON value on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))
