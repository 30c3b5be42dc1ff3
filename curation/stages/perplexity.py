"""The `perplexity` step as stages: a model for each language, scores, cutoffs of the run, buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import config
from curation.compiled import GlobalStage, LocalStage, ProgramError, matches
from curation.decisions import BucketStep
from curation.fields import looks_like_path
from curation.layers import kept_rows, mask_columns, read_layers
from curation.passes import PerplexityMeasure, SignalOptions, kept_text, make_signals
from curation.stage import Counts, Output
from curation.stages.inputs import GlobalInputs

if TYPE_CHECKING:
    from curation.perplexity.training import Training
    from curation.program import Compiler


@dataclass(frozen=True)
class ModelOptions:
    """A language model to train; `tokenizer` is the file of its pieces where the recipe's are meant."""

    training: Training
    tokenizer: str | None = field(default=None, metadata={"content": True})


@dataclass(frozen=True)
class CutoffOptions:
    """Percentiles of a run: of which column, at which shares of the documents, for each language or source."""

    column: str
    shares: tuple[float, ...]
    by: str


def add_perplexity(compiler: Compiler, path: str, step: config.Perplexity, names: list[str]) -> None:
    """Add the stages of a perplexity step to a program."""
    names = [name for name in names if compiler.sources[name].language != ("code",)]
    if not names:
        return
    _of_one_language(compiler, path, names)
    column, bucket = f"{step.prefix}perplexity", f"{step.prefix}bucket"
    columns = [column]
    lines: dict[str, Any] = {}
    if step.per_line:
        lines["of_lines"] = f"{step.prefix}line_perplexity"
    if step.line_cutoff is not None:
        lines |= {"share_above": f"{step.prefix}share_above", "line_cutoff": step.line_cutoff}
    columns += [lines[key] for key in ("of_lines", "share_above") if key in lines]
    models = _models(compiler, path, step, names)
    compiler.close(names)
    for name in names:
        measure = PerplexityMeasure(column, step.scoring, **models[name], **lines)
        options = SignalOptions(
            suffix=_suffix(compiler, name), perplexities=(measure,), survivors=step.on == "survivors"
        )
        needs = () if measure.artifact is None else (measure.artifact,)
        measured = {made: f"{made}{options.suffix}" for made in columns}
        stage = LocalStage(
            name, "signals", f"{step.name} scores", make_signals, options, needs, reads_layers=options.survivors
        )
        compiler.add_measured(stage, measured)
    groups = _cut(compiler, path, step, names, column, GlobalStage)
    for name in names:
        state = compiler.open[name]
        state.steps.append(BucketStep(step.name, state.columns[column], bucket, **groups[name]))
        if "artifact" in groups[name]:
            state.needs.add(groups[name]["artifact"])
        state.columns[bucket] = bucket


def _of_one_language(compiler: Compiler, path: str, names: Sequence[str]) -> None:
    """A model is of one language, and so are its cutoffs."""
    for name in names:
        languages = compiler.sources[name].language
        if len(languages) > 1:
            raise ProgramError(
                path,
                f"source {name!r} is in {', '.join(languages)}, and a model is of one language; split the source into "
                "one for each language (`where` may choose its rows), or name others in the step's `sources`",
            )


def _suffix(compiler: Compiler, name: str) -> str:
    text = compiler.open[name].text
    return f"@{text}" if text else ""


def _models(compiler: Compiler, path: str, step: config.Perplexity, names: list[str]) -> dict[str, dict[str, Any]]:
    """Which model scores each source: somebody's by its path, or one this run trains for the source's language."""
    if not isinstance(step.model, config.LanguageModel):
        languages = {name: compiler.sources[name].language[0] for name in names}
        found = {code: _foreign_model(compiler, path, step, code) for code in sorted(set(languages.values()))}
        of_languages: dict[str, list[str]] = {}
        for code, model in found.items():
            of_languages.setdefault(str(model["model"]), []).append(code)
        for place, codes in of_languages.items():
            if len(codes) > 1 and Path(place).is_file():
                raise ProgramError(
                    f"{path}.model",
                    f"{place} is one model, and the step scores sources in {', '.join(codes)}; name the `sources` of "
                    "its language, and use one perplexity step for each model",
                )
        return {name: found[code] for name, code in languages.items()}
    trained_on = [n for n in compiler.sources if matches(n, step.model.train_on) and n not in compiler.exempt]
    compiler.close(trained_on)
    models = {}
    for language in sorted({compiler.sources[name].language[0] for name in names}):
        sources = tuple(n for n in trained_on if compiler.sources[n].language[0] == language)
        _of_one_language(compiler, f"{path}.model.train_on", sources)
        if not sources:
            raise ProgramError(
                f"{path}.model.train_on",
                f"none of its sources is in {language!r}, which this step scores; "
                "add one, or name the step's `sources`",
            )
        models[language] = _add_model(compiler, path, step, language, sources)
    return {name: {"artifact": models[compiler.sources[name].language[0]]} for name in names}


def _add_model(compiler: Compiler, path: str, step: config.Perplexity, language: str, sources: tuple[str, ...]) -> str:
    from curation.perplexity.training import Training

    assert isinstance(step.model, config.LanguageModel)
    training = Training(
        order=step.model.order,
        prune=step.model.prune,
        scoring=step.scoring,
        pieces="words" if step.pieces.unit == "words" else step.pieces.unigram or 65_536,
        estimator=step.model.with_,
        language=language,
        source=", ".join(sources),
        licence=", ".join(sorted({compiler.sources[name].licence for name in sources})),
    )
    name = f"model.{step.name}.{language}"
    label = f"{step.name}.{language}"
    tokenizer = _tokenizer(compiler, path) if step.pieces.unit == "tokenizer" else None
    options = ModelOptions(training, tokenizer)
    compiler.stages.append(GlobalStage(name, "model", label, sources, make_model, options, ".model"))
    return name


def _tokenizer(compiler: Compiler, path: str) -> str:
    """The file of the recipe's tokenizer, whose pieces the model counts."""
    if compiler.tokenizer is None:
        raise ProgramError(
            f"{path}.pieces",
            "the recipe's tokenizer is not a ready one, and one that the run trains is learnt from text that this step "
            "decides on; write `tokenizer: PATH`, or pieces: {unigram: 65536} or words",
        )
    place = Path(compiler.tokenizer)
    for found in (place / "tokenizer.json", place):
        if found.is_file():
            return str(found)
    raise ProgramError(f"{path}.pieces", f"{place}: no tokenizer.json; pieces: tokenizer wants the recipe's tokenizer")


def _foreign_model(compiler: Compiler, path: str, step: config.Perplexity, language: str) -> dict[str, Any]:
    """Somebody's model for a language and what its text is cut into, both looked for before anything runs."""
    place = Path(str(step.model))
    if not place.exists():
        raise ProgramError(f"{path}.model", f"{place}: no such file or folder")
    if place.is_dir() and not (place / "model.json").exists():
        files = [place / f"{language}{suffix}" for suffix in (".arpa.bin", ".bin", ".arpa")]
        found = [file for file in files if file.is_file()]
        if not found:
            raise ProgramError(
                f"{path}.model",
                f"{place}: neither a model.json (a model of ours) nor {files[0].name} (CCNet's) for the sources in "
                f"{language!r}; add it, or name the step's `sources`",
            )
        place = found[0]
    model = str(place)
    if place.is_dir():
        _check_card(compiler, path, step, place, language)
    if step.pieces.unit == "words":
        return {"model": model, "words": True}
    if step.pieces.unit == "tokenizer":
        return {"model": model, "pieces": _tokenizer(compiler, path), "pieces_version": 1}
    if (place / "pieces.json").exists():
        return {"model": model, "pieces_version": 1}
    pieces = _pieces_beside(model)
    if pieces is not None and not Path(pieces).exists():
        raise ProgramError(f"{path}.model", f"{pieces}, the pieces of {model}, is not there; or say pieces: words")
    return {"model": model, "pieces": pieces}


def _check_card(compiler: Compiler, path: str, step: config.Perplexity, folder: Path, language: str) -> None:
    """A model of ours scores what its card says: its language, sentences and pieces."""
    from curation.perplexity.model import ModelError, read_card

    try:
        card = read_card(folder)
    except ModelError as error:
        raise ProgramError(f"{path}.model", str(error)) from None
    if card.get("language") and card["language"] != language:
        reason = f"{folder} is a model of {card['language']!r}, and the step scores sources in {language!r}; "
        raise ProgramError(f"{path}.model", f"{reason}name the step's `sources`")
    if card.get("scoring", step.scoring) != step.scoring:
        reason = f"{folder} was trained with scoring: {card['scoring']}, and the step says {step.scoring}; "
        raise ProgramError(f"{path}.scoring", f"{reason}write scoring: {card['scoring']}")
    if isinstance(step.buckets.cutoffs, str):
        reason = "CCNet's cutoffs are those of CCNet's own models; write buckets: {shares: [0.3, 0.6], of: run}"
        raise ProgramError(f"{path}.buckets", reason)
    own = card.get("pieces") or {}
    if step.pieces.unit == "words" and own.get("kind", "words") != "words":
        reason = f"{folder} was trained with pieces ({own['kind']}), and the step says words; leave `pieces` out"
        raise ProgramError(f"{path}.pieces", reason)
    if step.pieces.unit == "tokenizer":
        mine = hashlib.sha256(Path(_tokenizer(compiler, path)).read_bytes()).hexdigest()
        if own.get("sha256", mine) != mine:
            reason = (
                f"{folder} was trained with pieces {own['sha256'][:16]}, and the recipe's tokenizer is {mine[:16]}; "
            )
            raise ProgramError(f"{path}.pieces", f"{reason}leave `pieces` out: a model folder has its own")


def _pieces_beside(model: str) -> str | None:
    """Pieces of a foreign model: the SentencePiece file of the same name, as CCNet publishes them."""
    if Path(model).is_dir():
        return None
    name = model.removesuffix(".gz").removesuffix(".arpa").removesuffix(".arpa.bin").removesuffix(".bin")
    return f"{name.removesuffix('.arpa')}.sp.model"


def _cut(
    compiler: Compiler, path: str, step: config.Perplexity, names: list[str], column: str, stage: Any
) -> dict[str, dict[str, Any]]:
    """Where each source's buckets are cut: at values, or at an artifact's values for its language or itself."""
    from curation.perplexity.buckets import ccnet_cutoffs

    buckets = step.buckets
    if buckets.values is not None:
        return {name: {"cutoffs": buckets.values} for name in names}
    if buckets.shares is None:
        found = {name: ccnet_cutoffs(compiler.sources[name].language[0]) for name in names}
        without = sorted({compiler.sources[name].language[0] for name, cutoffs in found.items() if cutoffs is None})
        if without:
            raise ProgramError(
                f"{path}.buckets",
                f"CCNet published no cutoffs for {', '.join(without)}, whose documents would have no buckets; write "
                "buckets: {shares: [0.3, 0.6], of: run}, or name the step's `sources`",
            )
        return {name: {"cutoffs": cutoffs or ()} for name, cutoffs in found.items()}
    if buckets.of != "run" and looks_like_path(buckets.of):
        return {name: {"cutoffs": _reference_cutoffs(compiler, path, buckets, name)} for name in names}
    counted = names if buckets.of == "run" else [name for name in names if matches(name, [buckets.of])]
    if not counted:
        raise ProgramError(f"{path}.buckets.of", f"{buckets.of!r} is none of the sources this step scores")
    compiler.close(names)
    columns = {compiler.open[name].columns[column] for name in counted}
    if len(columns) > 1:
        raise ProgramError(path, "its sources were edited by different steps; use one perplexity step for each of them")
    groups = {name: name if buckets.by == "source" else compiler.sources[name].language[0] for name in names}
    _all_counted(path, buckets, groups, counted)
    artifact = f"cutoffs.{step.name}"
    options = CutoffOptions(columns.pop(), buckets.shares, buckets.by)
    compiler.stages.append(
        stage(artifact, "cutoffs", step.name, tuple(counted), make_cutoffs, options, ".cutoffs.json")
    )
    return {name: {"artifact": artifact, "group": groups[name]} for name in names}


def _all_counted(path: str, buckets: config.Buckets, groups: Mapping[str, str], counted: Sequence[str]) -> None:
    """Every scored source is cut by percentiles of something that is counted: else it would have no buckets."""
    there = {groups[name] for name in counted}
    left = sorted(name for name, group in groups.items() if group not in there)
    if left:
        kind = "source" if buckets.by == "source" else "language"
        fix = "" if buckets.by == "language" else ", say by: language where its language is theirs"
        raise ProgramError(
            f"{path}.buckets.of",
            f"of {buckets.of!r} only {', '.join(sorted(there))} is counted (by {kind}), so {', '.join(left)} would "
            f"have no buckets; say of: run{fix}, or name the step's `sources`",
        )


def _reference_cutoffs(compiler: Compiler, path: str, buckets: config.Buckets, name: str) -> tuple[float, ...]:
    """Percentiles of the documents another run counted, for a source's language or the source."""
    from curation.perplexity.buckets import cutoffs, read_histograms

    try:
        counted = read_histograms(Path(buckets.of))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgramError(f"{path}.buckets.of", f"{buckets.of}: not a cutoffs file of a run ({error})") from None
    group = name if buckets.by == "source" else compiler.sources[name].language[0]
    if group not in counted:
        raise ProgramError(
            f"{path}.buckets.of",
            f"{buckets.of} counted {', '.join(sorted(counted)) or 'nothing'}, not {group!r}; it counts by "
            "language or by source, and `by` says which is meant",
        )
    return cutoffs(counted[group], buckets.shares or ())


# ---------------------------------------------------------------- what the stages do


def make_model(inputs: GlobalInputs, options: ModelOptions, output: Output) -> Counts:
    """Train a language model on the kept text of some sources."""
    from curation.perplexity.training import train_model

    def texts() -> Iterator[pa.Array]:
        for shard in inputs.shards:
            for batch in kept_text(shard):
                yield batch.column("text").drop_null()

    training = replace(options.training, memory=inputs.memory, pieces=options.tokenizer or options.training.pieces)
    card = train_model(texts(), training, output.path(".model"))
    return {"documents": card["training_text"]["documents"], "bytes": card["training_text"]["bytes"]}


def make_cutoffs(inputs: GlobalInputs, options: CutoffOptions, output: Output) -> Counts:
    """Write the perplexities below which the shares of this run's kept documents lie, by group, as JSON.

    The histograms are kept with them, so that another run can cut its documents by this one's percentiles.
    """
    from curation.perplexity.buckets import cutoffs, histogram, merge, write_cutoffs

    counted: dict[str, list[Any]] = {}
    for shard in inputs.shards:
        group = shard.source if options.by == "source" else shard.language
        for batch in read_layers(shard.layers, [options.column, *mask_columns(shard.layers)]):
            perplexity = pc.filter(batch.column(options.column), pa.array(kept_rows(batch)))
            counted[group] = [merge([*counted.get(group, []), histogram(perplexity)])]
    whole = {group: parts[0] for group, parts in counted.items() if parts[0].total}
    found = {group: cutoffs(counts, options.shares) for group, counts in whole.items()}
    write_cutoffs(output.path(".cutoffs.json"), found, whole)
    return {"documents": sum(parts[0].total for parts in counted.values())}
