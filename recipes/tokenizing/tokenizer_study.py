"""The study of tokenizers as a part of a run: `gristmill tokenize RECIPE --report`.

Its stages are kept like all others: another size costs one training, another tokenizer one reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.amounts import Amount
from mixing.stages import TokenizerStageOptions
from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_study import StudyInputs, StudyOptions, study_tokenizer
from mixing.tokenizer_training import TokenizerOptions
from recipes.errors import RunError
from recipes.pipeline import PlannedStage, PlannedTask, plan_stage, tokenizer_key
from recipes.tokenizing.tokens import VERSIONS, edited_version, plan_tokens

if TYPE_CHECKING:
    from recipes.run import Run

MEASURED_BYTES = 1 << 20  # text of each domain that tokenizers are measured on


@dataclass(frozen=True)
class Studied:
    """A tokenizer of the study with its report.

    Attributes:
        name: as tables show it: `recipe`, or the folder's or file's name.
        path: of its folder or file.
        vocabulary: ids asked for.
        size_bytes: training text asked for; None for a ready tokenizer.
        report: see `mixing.tokenizer_report`.
    """

    name: str
    path: str
    vocabulary: int
    size_bytes: int | None
    report: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is compared: ready tokenizers by path, and samples (bytes) x vocabularies that are trained."""

    against: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    vocabularies: tuple[int, ...] = ()


def make_study(run: Run, wanted: Wanted) -> list[Studied]:
    """Measure the recipe's tokenizer, others, and those of several samples; keeps the result beside the run.

    Makes curation and the recipe's tokenizer where they are missing, but no token shards.
    """
    curation = run.curation
    run.narrator.heading("Tokenizers")
    tokens = plan_tokens(run, curation)
    made = [stage for stage in tokens.stages if stage.title == "tokenizer"]
    run.make(made, stops=False)
    vocabularies = wanted.vocabularies or (load_tokenizer(tokens.tokenizer).vocabulary,)
    named = _names([tokens.tokenizer, *wanted.against])
    sized = [(vocabulary, size) for vocabulary in vocabularies for size in sorted(set(wanted.sizes))]
    stage = _plan_study(run, tokens.tokenizer, [path for _, path in named], sized)
    run.make([stage], stops=False)
    studied = [Studied(name, path, 0, None, _report(stage, _ready(path))) for name, path in named]
    for counts in (each.counts() for each in made):
        studied[0].report["trained_bytes"] = counts.get("bytes", 0)
    for vocabulary, size in sized:
        task = _trained(vocabulary, size)
        name = f"{vocabulary:,} on {Amount(size, 'bytes')}"
        studied.append(Studied(name, stage.file(task, ".tokenizer"), vocabulary, size, _report(stage, task)))
    run.remember("tokenizer_study", [vars(one) for one in studied])
    return studied


def read_study(stored: Sequence[dict[str, Any]] | None) -> list[Studied]:
    """The study that `make_study` kept beside a run; nothing where there is none."""
    return [Studied(**one) for one in stored or ()]


def _report(stage: PlannedStage, task: str) -> dict[str, Any]:
    found: dict[str, Any] = stage.read_json(task, ".report.json")
    return found


def _ready(path: str) -> str:
    return f"ready-{tokenizer_key(path)}"


def _trained(vocabulary: int, size: int) -> str:
    return f"trained-{vocabulary}-{size}"


def _names(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Tokenizers with the names that tables show, each once; the recipe's own comes first."""
    named = [("recipe", paths[0])]
    for path in paths[1:]:
        if not Path(path).exists():
            raise RunError(f"--against {path}: no such file or folder; name a Hugging Face tokenizer on this machine")
        place = Path(path)
        name = place.parent.name if place.name == "tokenizer.json" else place.name
        if path not in [known for _, known in named]:
            named.append((name if name not in dict(named) else path, path))
    return named


def _plan_study(run: Run, own: str, paths: Sequence[str], sized: Sequence[tuple[int, int]]) -> PlannedStage:
    """One stage with a task for each tokenizer; those of files are named by what the files hold."""
    curation, wanted = run.curation, run.recipe.tokenizer
    assert wanted is not None
    trained = [name for name in curation.sources if name not in run.recipe.domains.validate_only]
    states = [curation.sources[name] for name in trained]
    shards = tuple(shard for state in states for shard in state.shards)
    options = StudyOptions(_training_options(run, own, sized), MEASURED_BYTES)
    tasks = [PlannedTask(_ready(path), StudyInputs(shards, path)) for path in paths]
    tasks += [PlannedTask(_trained(vocab, size), StudyInputs(shards, None, vocab, size)) for vocab, size in sized]
    return plan_stage(
        run.store,
        "tokenizer_study",
        [VERSIONS["tokenizer_study"], *edited_version(shards), options, [state.made_of() for state in states]],
        title="tokenizers compared",
        verb="tokenize",
        work=study_tokenizer,
        options=options,
        tasks=tuple({task.name: task for task in tasks}.values()),
    )


def _training_options(run: Run, own: str, sized: Sequence[tuple[int, int]]) -> TokenizerStageOptions:
    """How the recipe trains its tokenizer; a recipe with a ready one cannot say how others are trained."""
    from recipes.tokenizing.tokens import splits_of

    wanted: Any = run.recipe.tokenizer
    split = tuple(sorted(splits_of(run, run.curation).items()))
    if wanted.path is not None:
        if sized:
            raise RunError(
                f"--sizes: the recipe's tokenizer is ready ({own}); say how one is trained, such as "
                "--set 'tokenizer={algorithm: byte_bpe, vocabulary: 32000}'"
            )
        return TokenizerStageOptions(TokenizerOptions(), 0, (("*", 1.0),), split)
    base = None if wanted.base is None else str(wanted.base)
    options = TokenizerOptions(wanted.algorithm, wanted.vocabulary, wanted.digits, wanted.special)
    options = replace(options, vocabulary=TokenizerOptions.vocabulary)  # the study's own vary it
    return TokenizerStageOptions(options, 0, tuple(sorted(wanted.text.shares.items())), split, base)
