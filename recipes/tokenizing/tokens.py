"""The token part of a run: tokenizer, token shards, domains and plan, bound to artifacts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.passes import ShardInputs
from curation.stages.inputs import GlobalInputs
from mixing.domain_stage import DomainOptions, TokenInputs, make_domains
from mixing.plan_stage import PhaseOptions, PlanOptions, make_plan_file
from mixing.shards import ShardFiles, TokenShardError, read_record
from mixing.stages import TokenizerStageOptions, TokenOptions, make_tokenizer, make_tokens
from mixing.token_source import ImportOptions, TokenFile, make_imported, parts_of
from mixing.tokenizer_training import TokenizerOptions
from recipes.curating.curate import ALL, Plan
from recipes.curating.raw_shards import refuse_other_names, split_by_brought, task_name
from recipes.errors import RunError
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage, tokenizer_key
from recipes.pretraining.shapes import batch_lines
from recipes.schema.names import split_signal
from recipes.tokenizing.token_files import token_files

if TYPE_CHECKING:
    from recipes.run import Run

# Raised when the same options give other token shards, domains or plans.
VERSIONS = {
    "imported": 3,
    "tokenizer": 2,
    "extension": 2,
    "tokenizer_study": 1,
    "edited": 1,
    "tokens": 2,
    "domains": 3,
    "plan": 2,
}


@dataclass(frozen=True)
class Tokens:
    """What the token part planned: where the tokenizer, the token shards and the domains lie.

    Attributes:
        tokenizer: folder or file of the tokenizer.
        tokenizer_key: what it is made of.
        stages: tokenizer (if trained), token shards of each source, domains.
        shards: token shards of all sources.
        domains: the stage that selects domains.
        key: what all of it is made of.
    """

    tokenizer: str
    tokenizer_key: str
    stages: tuple[PlannedStage, ...]
    shards: tuple[ShardFiles, ...]
    shard_keys: tuple[str, ...]
    domains: PlannedStage

    @property
    def domains_path(self) -> Path:
        """The list of domains."""
        return Path(self.domains.file(ALL, ".domains.json"))


def plan_tokens(run: Run, curation: Plan) -> Tokens:
    """Plan the tokenizer, the token shards and the domains over curated text."""
    if run.recipe.tokenizer is None:
        raise RunError(f"{run.recipe.path}: tokenizer: missing; name one or say how it is trained")
    split = splits_of(run, curation)
    stage, path, key = _plan_tokenizer(run, curation, split)
    stages = [stage] if stage else []
    shards: list[ShardFiles] = []
    keys: list[str] = []
    for name in curation.sources:
        made = _plan_shards(run, curation, name, split.get(name), path, key, trained=stage is not None)
        stages.append(made)
        keys.append(made.folder.key)
        for task, shard in zip(curation.sources[name].tasks, curation.sources[name].shards):
            files = (Path(made.file(task, ".tokens")), Path(made.file(task, ".documents.parquet")))
            shards.append(ShardFiles(name, shard.shard, *files))
    for name in sorted(run.recipe.token_sources()):
        made, imported = _plan_imported(run, name)
        stages.append(made)
        keys.append(made.folder.key)
        shards += imported
    domains = plan_domains(run, curation, tuple(shards), keys)
    return Tokens(path, key, (*stages, domains), tuple(shards), tuple(keys), domains)


def _plan_imported(run: Run, name: str) -> tuple[PlannedStage, list[ShardFiles]]:
    """The stage that takes over a source of ready tokens, and the token shards it makes."""
    source, tokenizer = run.recipe.sources[name], run.recipe.tokenizer
    assert tokenizer is not None
    if tokenizer.path is None:
        raise RunError(
            f"{run.recipe.path}: sources.{name}.format: {source.format}: ready tokens need the tokenizer that wrote "
            "them, but this recipe trains one; say `tokenizer: PATH`"
        )
    kind, found = str(source.format), token_files(run.recipe, name)
    options = ImportOptions(
        kind,
        source.licence,
        str(tokenizer.path),
        fields=tuple(sorted(source.fields.items())),
        split=split_signal(run.recipe, name),
        sample=source.sample,
    )
    refuse_other_names(name, [shard.path for shard in found])
    checksums, tasks = run.checksums(), []
    for shard in found:
        contents = [checksums.of(part) for part in parts_of(kind, shard.absolute) if part.is_file()]
        tasks.append(
            PlannedTask(task_name(shard.path, "+".join(contents)), TokenFile(name, shard.path, shard.absolute))
        )
    checksums.save()
    stage = plan_stage(
        run.store,
        f"{name}.tokens",
        [VERSIONS["imported"], options, [task.name for task in tasks]],
        title=f"{name}: tokens",
        verb="tokenize",
        work=make_imported,
        options=options,
        tasks=tuple(tasks),
    )
    shards = [
        ShardFiles(name, s.path, Path(stage.file(t.name, ".tokens")), Path(stage.file(t.name, ".documents.parquet")))
        for s, t in zip(found, tasks)
    ]
    return stage, shards


def splits_of(run: Run, curation: Plan) -> dict[str, str]:
    """Layer column that splits each source into parts: a step's, or one that the source brings."""
    brought = split_by_brought(run.recipe).values()
    split: dict[str, str] = {}
    for name in curation.sources:
        column = split_signal(run.recipe, name)
        if column is not None:
            split[name] = curation.columns_of(name).get(column, f"{column}@source" if column in brought else column)
    return split


def _split_token_sources(run: Run) -> list[str]:
    """Sources of ready tokens that a column beside the tokens splits into parts."""
    return [name for name in run.recipe.token_sources() if split_signal(run.recipe, name) is not None]


def _plan_tokenizer(run: Run, curation: Plan, split: dict[str, str]) -> tuple[PlannedStage | None, str, str]:
    """The stage that trains the tokenizer, or None for a ready one; its path and key."""
    wanted: Any = run.recipe.tokenizer
    if wanted.path is not None:
        if not Path(wanted.path).exists():
            raise RunError(f"{run.recipe.path}: tokenizer: {wanted.path}: no such file or folder")
        return None, str(wanted.path), str(tokenizer_key(str(wanted.path)))
    if wanted.base is not None and not Path(wanted.base).exists():
        raise RunError(f"{run.recipe.path}: tokenizer.base: {wanted.base}: no such file or folder")
    trained = [name for name in curation.sources if name not in run.recipe.domains.validate_only]
    states = [curation.sources[name] for name in trained]
    options = TokenizerStageOptions(
        TokenizerOptions(wanted.algorithm, wanted.vocabulary, wanted.digits, wanted.special),
        wanted.text.size.number,
        tuple(sorted(wanted.text.shares.items())),
        tuple(sorted((name, column) for name, column in split.items() if name in trained)),
        None if wanted.base is None else str(wanted.base),
    )
    inputs = GlobalInputs(
        tuple(shard for state in states for shard in state.shards),
        tuple(task for state in states for task in state.tasks),
    )
    stage = plan_stage(
        run.store,
        "tokenizer",
        [
            VERSIONS["tokenizer"],
            *([VERSIONS["extension"]] if wanted.base else []),
            *edited_version(inputs.shards),
            options,
            [state.made_of() for state in states],
        ],
        title="tokenizer",
        verb="tokenize",
        work=make_tokenizer,
        options=options,
        tasks=(PlannedTask(ALL, inputs),),
    )
    return stage, stage.file(ALL, ".tokenizer"), stage.folder.key


def edited_version(shards: Iterable[ShardInputs]) -> list[str]:
    """How bytes of a tokenizer's text are counted, for a key, where steps have edited some of it."""
    return [f"edited {VERSIONS['edited']}"] if any(shard.text is not None for shard in shards) else []


def _plan_shards(
    run: Run, curation: Plan, name: str, split: str | None, tokenizer: str, key: str, *, trained: bool
) -> PlannedStage:
    state, sequences = curation.sources[name], run.recipe.sequences
    options = TokenOptions(
        bos=sequences.bos,
        eos=sequences.eos,
        licence=run.recipe.sources[name].licence,
        split=split,
        tokenizer=None if trained else tokenizer,
    )
    artifacts = (("tokenizer", tokenizer),) if trained else ()

    def inputs(shard: ShardInputs) -> ShardInputs:
        return replace(shard, artifacts=artifacts)

    return plan_stage(
        run.store,
        f"{name}.tokens",
        [VERSIONS["tokens"], options, key, state.text_key, state.layer_keys],
        title=f"{name}: tokens",
        verb="tokenize",
        work=make_tokens,
        options=options,
        tasks=tuple(PlannedTask(task, inputs(shard)) for task, shard in zip(state.tasks, state.shards)),
    )


def plan_domains(
    run: Run,
    curation: Plan,
    shards: tuple[ShardFiles, ...],
    keys: list[str],
    thinned: tuple[tuple[str, float], ...] = (),
) -> PlannedStage:
    """The stage that selects domains and their held-out text; `thinned` for proxies."""
    domains = run.recipe.domains
    options = DomainOptions(
        split=tuple(sorted({*splits_of(run, curation), *_split_token_sources(run)})),
        held_out_tokens=domains.held_out.tokens.number,
        held_out_share=domains.held_out.share,
        validate_only=domains.validate_only,
        thinned=thinned,
        packed=_packed_contexts(run),
    )
    tasks = [state.tasks for state in curation.sources.values()]
    return plan_stage(
        run.store,
        "domains",
        [VERSIONS["domains"], options, keys, tasks],
        title="domains" if not thinned else "domains of proxies",
        verb="tokenize" if not thinned else "ablate",
        work=make_domains,
        options=options,
        tasks=(PlannedTask(ALL, TokenInputs(shards)),),
    )


def _packed_contexts(run: Run) -> tuple[int, ...]:
    """Contexts for which sequences are packed: those of the model, of phases, and of all proxies."""
    recipe, study = run.recipe, run.recipe.ablation
    if recipe.sequences.packing == "contiguous":
        return ()
    contexts = {phase.context for phase in recipe.schedule if phase.context is not None}
    models = [recipe.model, *(recipe.scaling.sizes if recipe.scaling is not None else ())]
    if study is not None:
        models += [study.proxy, study.confirm.model if study.confirm is not None else None]
    return tuple(sorted(contexts | {model.context for model in models if model is not None}))


# ---------------------------------------------------------------- plan


def plan_options(run: Run, chosen: dict[str, float] | None = None) -> PlanOptions:
    """The schedule as plain values; `chosen` are the weights of an ablation."""
    recipe = run.recipe
    if not recipe.schedule or recipe.model is None or recipe.training is None:
        raise RunError(f"{recipe.path}: schedule and model: both are needed to plan training")
    context = recipe.model.context
    batch = tuple(batch_lines(recipe.training, context))
    phases = tuple(
        PhaseOptions(
            name=phase.name,
            span=(phase.tokens.number, phase.tokens.unit),
            ramp=(phase.ramp.number, phase.ramp.unit),
            weights=weights_of(run, phase.weights, chosen),
            order=order_of(phase.order),
            context=phase.context or context,
        )
        for phase in recipe.schedule
    )
    caps = tuple(sorted(recipe.domains.max_epochs.items()))
    return PlanOptions(phases, batch, recipe.seed, caps, recipe.domains.shortage, recipe.sequences.stretch.number)


def order_of(order: Any) -> tuple[str, tuple[str, ...], str]:
    """An order as plain values."""
    patterns = tuple(order.domains) if order.kind == "blocked" else (order.signal,) if order.signal else ()
    return order.kind, patterns, order.direction


def weights_of(
    run: Run, weights: Any, chosen: dict[str, float] | None
) -> tuple[str, float, tuple[tuple[str, float], ...]]:
    """Weights as plain values: shares where they come from a file or an ablation."""
    if weights.kind == "ablation":
        if chosen is None:
            raise RunError(f"{run.recipe.path}: weights: ablation: it was not run yet; `gristmill ablate` comes first")
        return "shares", 1.0, tuple(sorted(chosen.items()))
    if weights.kind == "file":
        return "shares", 1.0, tuple(sorted(_shares_of_file(Path(weights.path)).items()))
    return weights.kind, weights.power, tuple(sorted(weights.shares.items()))


def _shares_of_file(path: Path) -> dict[str, float]:
    """Weights of a file, which must sum to 1 like those that a recipe writes out."""
    from mixing.weights import read_weights
    from recipes.checks.weights import file_problem

    shares = {name: float(share) for name, share in read_weights(path).items()}
    if reason := file_problem(path, shares):
        raise RunError(f"{path}: {reason}")
    return shares


def verify_shards(run: Run) -> tuple[int, int]:
    """Read every token shard again: its checksum, and that all ids are in the vocabulary.

    Returns:
        Token shards and tokens.

    Raises:
        RunError: with a line for each that was changed, cut or made by another tokenizer.
    """
    wrong, tokens = [], 0
    for files in run.tokens.shards:
        try:
            tokens += read_record(files, verify=True).num_tokens
        except TokenShardError as error:
            wrong.append(str(error))
    if wrong:
        raise RunError("\n".join(wrong))
    return len(run.tokens.shards), tokens


def _plan_version(run: Run, options: PlanOptions) -> int:
    """The version of a plan whose weights or warnings once were others; all other plans keep their keys."""
    counts_sequences = run.recipe.sequences.packing != "contiguous"
    mended = [phase.weights[0] == "unimax" or phase.order[0] == "blocked" for phase in options.phases]
    return VERSIONS["plan"] + (counts_sequences or any(mended))


def plan_plan(run: Run, tokens: Tokens, options: PlanOptions) -> PlannedStage:
    """The stage that makes the plan."""
    inputs = TokenInputs((), (("domains", str(tokens.domains_path)),))
    return plan_stage(
        run.store,
        "plan",
        [_plan_version(run, options), options, tokens.domains.folder.key],
        title="plan",
        verb="plan",
        work=make_plan_file,
        options=options,
        tasks=(PlannedTask(ALL, inputs),),
    )
