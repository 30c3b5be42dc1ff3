"""Rules across sections of a recipe: sources, steps and domains. Each check yields (path, value, reason)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from pydantic import ValidationError

from curation.config import (
    COLUMN_FORMATS,
    FORMATS,
    LATER_FORMATS,
    TOKEN_FORMATS,
    Dedup,
    LanguageModel,
    Lines,
    Perplexity,
    Rules,
    Source,
    Step,
)
from curation.fields import Problem, did_you_mean, looks_like_path
from curation.rule_presets import load_preset, preset_names
from recipes.checks.finetuning import finetuning_problems
from recipes.checks.training import training_problems
from recipes.schema.located import NOTHING, Node, Segments
from recipes.schema.names import Names, is_bucket, is_ready, makes_buckets, names_of, source_problems, split_signal
from recipes.schema.recipe import Recipe, matches

_SUFFIXES = {
    "jsonl", "ndjson", "json", "csv", "tsv", "parquet", "txt", "text", "md", "warc", "wet",
}  # fmt: skip
_COMPRESSION = {"gz", "zst", "zstd", "bz2", "xz"}
# Presets of the schema; those without a file are not there yet, and their options are not checked.
_PLANNED_PRESETS = {
    "rules": {"gopher", "c4", "fineweb", "fineweb2", "ccnet", "rpv2"},
    "lines": {"c4_lines", "boilerplate"},
}
_OF_THE_RUN = "buckets: {shares: [0.3, 0.6], of: run}"
# What a source may not change about a step.
_NOT_A_SOURCES_OWN = ("name", "preset", "sources", "on")


def all_problems(recipe: Recipe, tree: Node) -> list[Problem]:
    """All that is wrong across sections."""
    names = names_of(recipe, tree)
    problems: list[Problem] = []
    for check in (_step_names, _steps, _sources, _domains, training_problems, finetuning_problems):
        problems += check(recipe, names)
    model = tree.get("model")
    if model is not None and model.get("training") is not None:
        reason = "the target model's training values stand in `training:`, here they are for proxies"
        problems.append((("model", "training"), {}, reason))
    return problems


def _step_names(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Names are unique: they name columns and reasons."""
    first: dict[str, int] = {}
    for place, name in enumerate(names.steps):
        if name in first and name:
            taken = set(names.steps)
            free = next(f"{name}_{n}" for n in range(2, len(taken) + 3) if f"{name}_{n}" not in taken)
            yield (
                ("steps", place),
                name,
                f"two steps are called {name!r}; give this one a name of its own, such as name: {free}",
            )
        first.setdefault(name, place)


def _steps(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Patterns, presets and thresholds of each step."""
    for place, step in enumerate(recipe.steps):
        path = ("steps", place, step.kind)
        yield from source_problems(step.sources, names.sources, (*path, "sources"))
        named, text = [name for name in names.sources if matches(tuple(step.sources), name)], recipe.text_sources()
        if named and text and not any(name in text for name in named):
            reason = f"ready token shards, which no step looks at; name sources of text: {', '.join(text)}"
            yield (*path, "sources"), ", ".join(named), reason
        if isinstance(step, Rules | Lines):
            yield from _rules(step, path)
        if isinstance(step, Dedup):
            for rank, preference in enumerate(step.keep):
                pattern = str(preference.name)
                if preference.by == "source" and not any(matches((pattern,), source) for source in names.sources):
                    reason = f"no source is called so{did_you_mean(pattern, names.sources)}"
                    yield (*path, "keep", rank, "source"), pattern, reason
        if isinstance(step, Perplexity):
            yield from _perplexity(step, names, path)
        if step.kind == "decontaminate":
            for rank, text in enumerate(getattr(step, "against", ())):
                if not looks_like_path(text) and text not in names.sources:
                    reason = f"neither a source nor a path{did_you_mean(text, names.sources)}"
                    yield (*path, "against", rank), text, reason


def _rules(step: Rules | Lines, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """The preset exists and has the options that are changed; without a preset there are conditions."""
    if step.preset is None:
        if not step.drop:
            yield path, {}, "name a preset, or conditions: drop: {REASON: 'SQL'}"
        for option, value in step.thresholds().items():
            hint = did_you_mean(option, [key for key in type(step).known_keys() if key != "kind"])
            yield (*path, option), value, f"an option of no preset{hint}"
        return
    lines = isinstance(step, Lines)
    known = {*preset_names(lines=lines), *_PLANNED_PRESETS[step.kind]}
    if step.preset not in known:
        others = preset_names(lines=not lines)
        hint = (
            f"; it is a preset of {'rules' if lines else 'lines'}"
            if step.preset in others
            else did_you_mean(step.preset, known)
        )
        yield (*path, "preset"), step.preset, f"unknown preset of {step.kind}{hint}"
        return
    if step.preset not in preset_names(lines=lines):
        return
    options = load_preset(step.preset).options
    for option, value in step.thresholds().items():
        if option not in options:
            keys = [*options, *(key for key in type(step).known_keys() if key not in ("kind", "preset"))]
            yield (*path, option), value, f"unknown option of {step.preset}{did_you_mean(option, keys, limit=30)}"
        elif isinstance(value, bool) or not isinstance(value, int | float | None):
            yield (
                (*path, option),
                value,
                f"a number is wanted (the preset has {options[option]}), or null to switch it off",
            )


def _perplexity(step: Perplexity, names: Names, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """train_on and of name sources; CCNet's cutoffs are for CCNet's models."""
    other = "a model of your own" if isinstance(step.model, LanguageModel) else "scoring: lines"
    if step.buckets.cutoffs == "ccnet" and (isinstance(step.model, LanguageModel) or step.scoring == "lines"):
        reason = f"CCNet's cutoffs (the default) mean nothing under {other}; write {_OF_THE_RUN}, or preset: sound"
        yield (*path, "buckets"), "ccnet", reason
    if isinstance(step.model, LanguageModel):
        yield from source_problems(step.model.train_on, names.trained(), (*path, "model", "train_on"))
    of = step.buckets.of
    if of != "run" and not looks_like_path(of) and not any(matches((of,), source) for source in names.sources):
        reason = f"neither run, a path nor a source{did_you_mean(of, ['run', *names.sources])}"
        yield (*path, "buckets", "of"), of, reason


def _sources(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Whether there are any; suffixes, and each source's own values of steps."""
    if not recipe.sources and (recipe.finetuning is None or recipe.finetuning.from_ is None):
        given = "sources" in recipe.model_fields_set
        example = "such as sources: {wiki: {path: wiki/*.jsonl, language: de}}"
        yield ("sources",), {} if given else NOTHING, "more entries are wanted" if given else f"missing, {example}"
    by_name = {step.name: step for step in recipe.steps}
    for name, source in recipe.sources.items():
        yield from _of_ready_tokens(name, source) if is_ready(recipe, name) else _of_text(name, source)
        for place, shard in enumerate(source.path):
            suffix = _suffix(shard)
            if source.format is None and suffix is not None and suffix not in _SUFFIXES:
                known = ", ".join(FORMATS + TOKEN_FORMATS + LATER_FORMATS)
                where: Segments = ("sources", name, "path", place)
                yield where, shard, f"the suffix .{suffix} tells no format; say format: one of {known}"
        for step, options in source.steps.items():
            where = ("sources", name, "steps", step)
            if step not in names.steps:
                yield where, options, f"no step is called {step!r}{did_you_mean(step, [n for n in names.steps if n])}"
            elif step in by_name:
                yield from _own_values(by_name[step], name, options, where)


# What only reading text can do, and why it says nothing of ready tokens.
_OF_TEXT = {
    "where": "ready tokens are read whole; sample: SHARE takes a part of their documents",
    "broken": "a damaged shard of ready tokens stops the run by name; mend it or leave it out of `path`",
    "max_document": "documents of ready tokens have no limit",
    "steps": "ready tokens, which no step looks at",
}


def _of_ready_tokens(name: str, source: Source) -> Iterator[Problem]:
    """What a source of ready tokens cannot have."""
    for key, reason in _OF_TEXT.items():
        if key in source.model_fields_set:
            yield ("sources", name, key), getattr(source, key), reason
    for role, column in source.fields.items():
        if source.format != "datasets":
            yield (
                ("sources", name, "fields"),
                source.fields,
                f"{source.format} has no named columns of tokens; leave it out",
            )
            return
        if role not in ("tokens", "licence"):
            yield ("sources", name, "fields", role), column, "of ready tokens only `tokens` and `licence` are named"


def _of_text(name: str, source: Source) -> Iterator[Problem]:
    """A column of tokens makes no text."""
    if "tokens" in source.fields:
        reason = "a column of ready tokens; say format: datasets, or name a column of text"
        yield ("sources", name, "fields", "tokens"), source.fields["tokens"], reason


def _suffix(shard: str) -> str | None:
    """The suffix that tells a format; None for a folder, a catalogue name or a bare glob."""
    if shard.startswith("catalogue:"):
        return None
    suffixes = [suffix[1:].lower() for suffix in PurePosixPath(shard).suffixes if suffix[1:].isalnum()]
    while suffixes and suffixes[-1] in _COMPRESSION:
        suffixes.pop()
    return suffixes[-1] if suffixes and not suffixes[-1].isdigit() else None


def _own_values(
    step: Step, source: str, options: Mapping[str, object], path: tuple[str | int, ...]
) -> Iterator[Problem]:
    """A source's values fit the step, and the step looks at the source."""
    if not matches(step.sources, source):
        yield (
            path,
            options,
            f"step {step.name!r} does not look at this source: its sources are {', '.join(step.sources)}",
        )
    for key in options:
        if key in _NOT_A_SOURCES_OWN:
            yield (
                (*path, key),
                options[key],
                "a source changes a step's values only, neither what it is nor where it is used",
            )
    if any(key in _NOT_A_SOURCES_OWN for key in options):
        return
    try:
        changed = step.with_options(options)
    except ValidationError as error:
        for line in error.errors(include_url=False):
            yield (*path, *line["loc"]), line["input"], line["msg"].removeprefix("Value error, ")
        return
    if isinstance(changed, Rules | Lines):
        for place, value, reason in _rules(changed, ()):
            if place and place[0] in options:
                yield (*path, *place), value, reason


def _domains(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Splits, validate_only and caps."""
    for place, source in enumerate(recipe.domains.validate_only):
        if source not in names.sources:
            reason = f"no source is called so{did_you_mean(source, names.sources)}"
            yield ("domains", "validate_only", place), source, reason
    if names.sources and not names.trained():
        yield ("domains", "validate_only"), (), "nothing is left to train on"
    for pattern, signal in recipe.domains.split.items():
        path = ("domains", "split", pattern)
        named = [source for source in names.trained() if matches((pattern,), source)]
        if pattern in names.validate_only:
            yield path, pattern, "this source is validate_only, and has no parts"
        elif not named:
            yield path, pattern, f"no source is called so{did_you_mean(pattern, names.trained())}"
            continue
        mine = [source for source in named if split_signal(recipe, source) == signal]
        bare = [source for source in mine if is_ready(recipe, source) and not _has_columns(recipe.sources[source])]
        if bare:
            kinds = ", ".join(sorted({str(recipe.sources[source].format) for source in bare}))
            reason = f"{', '.join(bare)}: {kinds} holds tokens alone, nothing to split by"
            yield (
                path,
                signal,
                f"{reason}; {' and '.join(COLUMN_FORMATS)} may bring columns, or give each part a source",
            )
        untold = [
            s for s in mine if signal == "language" and not is_ready(recipe, s) and not _tells_language(recipe, s)
        ]
        if untold:
            yield path, signal, f"nothing tells the language of {', '.join(untold)}; add a step - language for them"
        if is_bucket(signal):
            without = [source for source in mine if not is_ready(recipe, source) and not makes_buckets(recipe, source)]
            if without:
                yield path, signal, f"nothing gives {', '.join(without)} buckets; add a step - perplexity for them"


def _tells_language(recipe: Recipe, source: str) -> bool:
    """Whether a language step looks at a source."""
    return any(step.kind == "language" and matches(step.sources, source) for step in recipe.steps)


def _has_columns(source: Source) -> bool:
    """Whether a source of ready tokens may bring columns beside them."""
    return source.format in COLUMN_FORMATS
