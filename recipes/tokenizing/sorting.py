"""Orders by a signal, bound to artifacts: which signals are sorted by, where each source has them, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curation.fields import did_you_mean
from mixing.sort_values import SortInputs, SortOptions, make_sort_values
from recipes.curating.curate import ALL
from recipes.errors import RunError
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage
from recipes.tokenizing.token_files import sortable_columns

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

Columns = Mapping[str, Mapping[str, str]]  # source -> bare name -> layer column

# Raised when the same domains and signals give other values.
VERSION = 3
_BRINGS_NONE = "; no step looks at ready tokens: sort by a column of numbers that `datasets` or `tokens` bring"
OF_ROWS = ("num_characters", "size_bytes")  # numbers that every row of text has


def signals_of_schedule(recipe: Recipe) -> list[tuple[str, int]]:
    """(signal, context) of every phase that is ordered by a signal."""
    context = 0 if recipe.model is None else recipe.model.context
    phases = [phase for phase in recipe.schedule if phase.order.kind == "by"]
    return sorted({(str(phase.order.signal), phase.context or context) for phase in phases})


def check_signals(recipe: Recipe, columns: Columns) -> None:
    """Refuse an order by a signal that no step measures and no source brings, before anything runs."""
    places = [(f"schedule.{phase.name}.order", phase.order) for phase in recipe.schedule]
    if recipe.ablation is not None:
        places += [("ablation.orders", order) for order in recipe.ablation.orders]
    for place, order in places:
        if order.kind == "by":
            _columns(recipe, columns, str(order.signal), place)


def make_values(run: Run, domains: PlannedStage, wanted: list[tuple[str, int]], verb: str) -> PlannedStage | None:
    """The stage of `plan_values` once it is made."""
    stage = plan_values(run, domains, wanted, verb)
    if stage is not None:
        for signal in sorted({signal for signal, _ in wanted}):
            known = {source for source, _, _ in _columns(run.recipe, run.curation.columns, signal, "order")}
            without = sorted(set(run.recipe.trained_sources()) - known)
            if without:
                run.narrator.say(f"  nothing tells {signal} of {', '.join(without)}: these stay shuffled")
        run.make([stage])
    return stage


def plan_values(run: Run, domains: PlannedStage, wanted: list[tuple[str, int]], verb: str) -> PlannedStage | None:
    """The stage that gives the sequences of domains the values they are sorted by; None where nothing is sorted."""
    if not wanted:
        return None
    signals = sorted({signal for signal, _ in wanted})
    columns = [line for signal in signals for line in _columns(run.recipe, run.curation.columns, signal, "order")]
    options = SortOptions(tuple(wanted), tuple(columns))
    shards = tuple(shard for state in run.curation.sources.values() for shard in state.shards)
    ready = tuple(files for files in run.tokens.shards if files.source in run.recipe.token_sources())
    return plan_stage(
        run.store,
        "values",
        [VERSION, options, domains.folder.key],
        title="values to sort by",
        verb=verb,
        work=make_sort_values,
        options=options,
        tasks=(PlannedTask(ALL, SortInputs(shards, domains.file(ALL, ".domains.json"), ready)),),
    )


def _columns(recipe: Recipe, columns: Columns, signal: str, place: str) -> list[tuple[str, str, str]]:
    """(source, signal, column) of every source that is trained on and has the signal, in layers or beside tokens."""
    named = {source: {**dict(zip(OF_ROWS, OF_ROWS)), **columns.get(source, {})} for source in recipe.trained_sources()}
    for source in recipe.token_sources():
        if source in named and signal not in named[source]:
            named[source].update({column: column for column in sortable_columns(recipe, source)})
    found = [(source, signal, known[signal]) for source, known in sorted(named.items()) if signal in known]
    if not found:
        raise RunError(
            f"{recipe.path}: {place}: no step measures {signal!r}"
            f"{did_you_mean(signal, sorted({name for known in named.values() for name in known}))}"
            + (f"; add a step - measure: {{signals: [{signal}]}}" if recipe.text_sources() else _BRINGS_NONE)
        )
    return found
