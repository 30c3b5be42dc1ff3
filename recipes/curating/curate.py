"""Curation bound to a recipe: where each layer of each shard lies, by key, and what makes it.

First the rows layers of all sources, which tell what shards cannot be read; then all else, over those that are left.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.bare_names import brought_columns
from curation.compiled import VERSIONS, GlobalStage, LocalStage, Program
from curation.decisions import DecisionOptions
from curation.ledger import Ledger, Source
from curation.passes import ShardInputs, SignalOptions, make_rows
from curation.source import Reader, SourceError, UnreadableShard
from curation.stages.inputs import GlobalInputs
from recipes.artifacts import InputChecksums, Store, key_of, write_atomically
from recipes.curating.compiling import check_preferences, compile_recipe
from recipes.curating.drop_limits import TooMuchDropped, drop_check, duplicates_check, read_check
from recipes.curating.indexes import Publication, check_indexes, index_artifacts, plan_publications
from recipes.curating.raw_shards import raw_patterns, refuse_other_names, split_by_brought, task_name
from recipes.errors import RunError
from recipes.pipeline import PlannedStage, PlannedTask, TasksSetAside, options_that_count, plan_stage
from recipes.run import Stopped

if TYPE_CHECKING:
    from recipes.run import Run

ALL = "all"  # the one task of a global stage
LIBRARIES = 512 << 20  # bytes of a worker that Python and its libraries take, and row batches on their way
_FORMAT_VERSIONS = {"json": (2,)}  # raised when files of a format are read otherwise
_SET_ASIDE = "set_aside"  # what the run remembers of shards that could not be read: source -> task -> why


@dataclass
class SourceState:
    """What is planned for one source so far: its shards with their layers, and the keys of what made them."""

    name: str
    language: str
    shards: list[ShardInputs]
    tasks: list[str]
    text_key: str
    layer_keys: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)  # (shard, why) of those that were set aside
    lost: dict[str, str] = field(default_factory=dict)  # the same by task
    unopened: list[str] = field(default_factory=list)  # files of its folders whose suffix tells no format

    def told_unopened(self) -> str:
        """The files that are left unopened, in a few words; "" where there are none."""
        more = f" and {len(self.unopened) - 3:,} more" if len(self.unopened) > 3 else ""
        told = ", ".join(os.fsencode(name).decode(errors="backslashreplace") for name in self.unopened[:3]) + more
        return f"left unopened, for their suffix tells no format: {told}" if self.unopened else ""

    def made_of(self) -> list[object]:
        """What a global stage over this source is keyed on."""
        return [self.name, self.tasks, self.text_key, self.layer_keys]

    def leave_out(self, lost: Mapping[str, str]) -> None:
        """Go on without some shards: task -> why it cannot be read."""
        both = list(zip(self.tasks, self.shards))
        self.lost = dict(lost)
        self.broken = [(shard.shard, lost[task]) for task, shard in both if task in lost]
        self.tasks = [task for task, _ in both if task not in lost]
        self.shards = [shard for task, shard in both if task not in lost]


@dataclass
class Plan:
    """Planned curation: stages in order of work, and each source's final layers."""

    store: Store
    sources: dict[str, SourceState]
    stages: list[PlannedStage] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # source -> bare name -> layer column
    artifacts: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (key, path)
    memory: int = 4 << 30  # of a worker, bytes

    def ledger(self) -> Ledger:
        """The view over all layers that are planned."""
        return Ledger(
            tuple(
                Source(state.name, state.language, tuple(state.shards), tuple(state.broken))
                for state in self.sources.values()
            )
        )

    def columns_of(self, source: str) -> dict[str, str]:
        """Layer column of each bare name a step gave a source."""
        return self.columns.get(source, {})

    def key(self) -> str:
        """What all of curation is made of."""
        return key_of([state.made_of() for state in self.sources.values()])


def plan_rows(plan: Plan) -> list[PlannedStage]:
    """Plan the rows layer of every source."""
    stages = []
    for state in plan.sources.values():
        stage = _plan_local(plan, state, "rows", "read", make_rows, None, [VERSIONS["rows"], state.text_key])
        state.shards = _with_layer(state, stage)
        state.layer_keys.append(stage.folder.key)
        stages.append(stage)
    plan.stages += stages
    return stages


def plan_steps(plan: Plan, program: Program) -> list[PlannedStage]:
    """Plan every stage of the compiled steps, in order."""
    before = len(plan.stages)
    plan.columns = program.columns
    plan.artifacts |= index_artifacts(plan.store, program.stages)
    for stage in program.stages:
        if isinstance(stage, LocalStage):
            _bind_local(plan, stage)
        else:
            _bind_global(plan, stage)
    return plan.stages[before:]


def _bind_local(plan: Plan, stage: LocalStage) -> None:
    state = plan.sources[stage.source]
    needed = {name: plan.artifacts[name] for name in stage.needs}
    parts = [
        VERSIONS[stage.layer],
        stage.options,
        state.language,
        state.text_key,
        state.layer_keys if stage.reads_layers else [],
        [key for key, _ in needed.values()],
    ]
    paths = tuple(sorted((name, path) for name, (_, path) in needed.items()))
    bound = replace_all(state.shards, artifacts=paths)
    bound_state = replace(state, shards=bound)
    planned = _plan_local(plan, bound_state, stage.layer, stage.label, stage.work, stage.options, parts, stage.steps)
    planned = replace(planned, serves=steps_served(stage))
    plan.stages.append(planned)
    if not stage.joins:
        # Files beside the ledger (signatures): later global stages find them by name.
        plan.artifacts[f"{stage.layer}.{stage.source}.{stage.label}"] = (planned.folder.key, str(planned.folder.path))
        return
    state.shards = _with_layer(state, planned)
    state.layer_keys.append(planned.folder.key)
    if stage.layer == "text":
        state.shards = [
            replace(shard, text=planned.file(task, ".parquet")) for shard, task in zip(state.shards, state.tasks)
        ]
        state.text_key = planned.folder.key


def _bind_global(plan: Plan, stage: GlobalStage) -> None:
    states = [plan.sources[name] for name in stage.sources]
    needed = {name: plan.artifacts[name] for name in stage.needs}
    shards = tuple(shard for state in states for shard in state.shards)
    tasks = tuple(task for state in states for task in state.tasks)
    paths = tuple(sorted((name, path) for name, (_, path) in needed.items()))
    inputs = GlobalInputs(shards, tasks, paths, max(plan.memory - LIBRARIES, plan.memory // 2))
    parts: list[object] = [
        VERSIONS[stage.layer],
        stage.options,
        [state.made_of() for state in states],
        [key for key, _ in needed.values()],
    ]
    planned = plan_stage(
        plan.store,
        f"{stage.label}.{stage.layer}",
        parts,
        title=f"{stage.label} {stage.layer}",
        verb="curate",
        work=stage.work,
        options=stage.options,
        tasks=(PlannedTask(ALL, inputs),),
        serves=(stage.label,),
        check=duplicates_check(stage.sources, stage.steps),
    )
    plan.stages.append(planned)
    if stage.suffix is not None:
        path = str(planned.folder.path) if stage.suffix == "/" else planned.file(ALL, stage.suffix)
        plan.artifacts[stage.name] = (planned.folder.key, path)
        return
    for state in states:
        state.shards = [
            replace(shard, layers=(*shard.layers, planned.file(ALL, f".{state.name}.{task}.parquet")))
            for shard, task in zip(state.shards, state.tasks)
        ]
        state.layer_keys.append(planned.folder.key)


def _plan_local(
    plan: Plan,
    state: SourceState,
    layer: str,
    label: str,
    work: Callable[..., Any],
    options: Any,
    parts: list[object],
    steps: Sequence[tuple[str, float]] = (),
) -> PlannedStage:
    return plan_stage(
        plan.store,
        f"{state.name}.{layer}",
        parts,
        title=f"{state.name}: {label}",
        verb="curate",
        work=work,
        options=options,
        tasks=tuple(PlannedTask(task, shard) for task, shard in zip(state.tasks, state.shards)),
        check=drop_check(state.name, steps),
    )


def steps_served(stage: LocalStage) -> tuple[str, ...]:
    """Names of the steps that a stage is for; none of a stage that measures for all rules behind it."""
    if isinstance(stage.options, DecisionOptions):
        return tuple(step.step for step in stage.options.steps)
    if isinstance(stage.options, SignalOptions) and not stage.options.perplexities:
        return ()
    return (stage.label.partition(" ")[0],)  # `minhash signatures`: a step's name has no space


def replace_all(shards: Sequence[ShardInputs], **changes: Any) -> list[ShardInputs]:
    """The shards with some fields changed."""
    return [replace(shard, **changes) for shard in shards]


def _with_layer(state: SourceState, stage: PlannedStage) -> list[ShardInputs]:
    return [
        replace(shard, layers=(*shard.layers, stage.file(task, ".parquet")), artifacts=())
        for shard, task in zip(state.shards, state.tasks)
    ]


def text_key(reader: Any, language: str) -> str:
    """Key of a source's own text: how it is read."""
    return key_of("raw", options_that_count(reader), language, *_FORMAT_VERSIONS.get(reader.format, ()))


# ---------------------------------------------------------------- the part of a run


def curate(run: Run, remember: bool = True) -> Plan:
    """Make every layer of every source, and keep the ledger's list of layers beside the run (`remember`)."""
    run.narrator.heading("Curation")
    program = compile_recipe(run.recipe)  # first, so that a mistake in a step shows before anything is read
    check_indexes(run)
    plan = plan_sources(run)
    check_preferences(program, plan.sources)
    _make_rows(run, plan)
    stages = plan_steps(plan, program)
    publications = plan_publications(run, plan)
    try:
        _make_steps(run, stages, publications)
    except (TooMuchDropped, Stopped) as ended:
        # `inspect` has to show what was dropped, and by the rules of now, so the ledger is kept as far as it goes.
        if remember or isinstance(ended, TooMuchDropped):
            until = run.until if isinstance(ended, Stopped) else None
            write_atomically(run.folder / "ledger.json", plan.ledger().so_far(until).to_json())
        raise
    if remember:
        run.remember(_SET_ASIDE, {state.name: state.lost for state in plan.sources.values() if state.lost})
        write_atomically(run.folder / "ledger.json", plan.ledger().to_json())
    return plan


def _make_steps(run: Run, stages: list[PlannedStage], publications: Mapping[str, Publication]) -> None:
    """Make the stages in order. Sources of which a step drops too much are named together, before a global stage."""
    refused: list[TooMuchDropped] = []
    last = run.last_until(stages)
    for place, stage in enumerate(stages):
        if refused and stage.task_names == [ALL]:
            break
        try:
            run.make([stage], stops=False)
            if stage.folder.name in publications:
                publications[stage.folder.name].publish(run)
            if place == last:
                raise Stopped(stage.title)
        except TooMuchDropped as error:
            refused.append(error)
    if refused:
        raise TooMuchDropped("\n".join(str(error) for error in refused))


def plan_curation(run: Run) -> Plan:
    """All of curation as it would run, without running it. Shards that the last run could not read stay set aside."""
    check_indexes(run)
    plan = plan_sources(run)
    plan_rows(plan)
    _leave_out_again(run, plan)
    plan_steps(plan, compile_recipe(run.recipe))
    return plan


def _leave_out_again(run: Run, plan: Plan) -> None:
    """Set aside what the last run had to, where it was not read since; shards never tried are still to be read."""
    known = run.recall(_SET_ASIDE) or {}
    for place, (state, stage) in enumerate(zip(list(plan.sources.values()), list(plan.stages))):
        reasons = known.get(state.name, {})
        lost = {task: reasons[task] for task in stage.missing() if task in reasons}
        state.leave_out(lost)
        plan.stages[place] = replace(stage, tasks=tuple(task for task in stage.tasks if task.name not in lost))


def read_sources(run: Run, names: Sequence[str]) -> Plan:
    """Some sources as they are read, without any step: their rows layers, made where they are missing."""
    plan = plan_sources(run, names)
    _make_rows(run, plan)
    return plan


def plan_stages(plan: Plan, stages: Sequence[LocalStage | GlobalStage]) -> list[PlannedStage]:
    """Plan stages over the sources of a plan, in order."""
    return plan_steps(plan, Program(list(stages), plan.columns))


def plan_sources(run: Run, names: Sequence[str] | None = None) -> Plan:
    """List the shards of every source (or of some), with a checksum of each."""
    checksums = run.checksums()
    plan = Plan(run.store, {}, memory=run.recipe.execution.memory.number)
    for name, source in sorted(run.recipe.text_sources().items()):
        if names is not None and name not in names:
            continue
        try:
            plan.sources[name] = _source_state(run, name, source, checksums)
        except (SourceError, UnreadableShard) as error:
            raise RunError(f"source {name}: {error}") from None
    checksums.save()
    return plan


def _source_state(run: Run, name: str, source: Any, checksums: InputChecksums) -> SourceState:
    from curation.source import column_types, list_shards, one_format

    unopened: list[str] = []
    shards = list_shards(raw_patterns(run, source), Path(run.recipe.execution.raw), unopened)
    kind = source.format or one_format([shard.path for shard in shards])
    refuse_other_names(name, [shard.path for shard in shards])
    reader = Reader(
        format=kind,
        fields=tuple(sorted(source.fields.items())),
        brought=brought_columns(source, split_by_brought(run.recipe), name),
        where=source.where,
        sample=source.sample,
        max_document=source.max_document.number,
    )
    language = source.language[0]
    seen = [checksums.seen(Path(shard.absolute)) for shard in shards]
    reader = replace(reader, types=column_types([shard.absolute for shard in shards], reader))
    tasks = [task_name(shard.path, checksum) for shard, (_, _, checksum) in zip(shards, seen)]
    inputs = [
        ShardInputs(name, shard.path, shard.absolute, language, reader, task, as_read=as_read)
        for shard, task, as_read in zip(shards, tasks, seen)
    ]
    return SourceState(name, language, inputs, tasks, text_key(reader, language), unopened=unopened)


def _make_rows(run: Run, plan: Plan) -> None:
    """Make the rows layers; set shards aside that cannot be read, as far as the source's `broken` share allows."""
    for state, planned in zip(list(plan.sources.values()), plan_rows(plan)):
        if told := state.told_unopened():
            run.narrator.say(f"  {state.name}: {told}")
        stage = replace(planned, check=read_check(state.name, run.recipe.sources[state.name].broken))
        try:
            run.make([stage])
        except TasksSetAside as error:
            _set_aside(run, plan, state, error)
            left = tuple(task for task in stage.tasks if task.name in set(state.tasks))
            run.make([replace(stage, tasks=left)])  # the manifest over what is left, and the note that it is used


def _set_aside(run: Run, plan: Plan, state: SourceState, error: TasksSetAside) -> None:
    allowed = run.recipe.sources[state.name].broken
    share = len(error.tasks) / len(state.tasks)
    if share > allowed:
        enough = math.ceil(share * 10_000) / 10_000
        error.add_note(
            f"source {state.name}: {share:.2%} of its shards cannot be read and `broken` allows {allowed:.2%}. "
            "Mend or remove them and run the same command again, or allow it with "
            f"--set sources.{state.name}.broken={enough:g}"
        )
        raise error
    state.leave_out(dict(error.tasks))
    for path, reason in state.broken:
        run.narrator.say(f"  {state.name}: {path} set aside: {reason}")
