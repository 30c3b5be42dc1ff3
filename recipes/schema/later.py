"""What the schema has and gristmill does not do yet: the keys of a recipe that a run must refuse.

A recipe with such keys is valid, so that it can be written, shared and read today. Who adds the work removes the line.
"""

from __future__ import annotations

from collections.abc import Iterator

from curation.config import LATER_FORMATS
from curation.fields import Problem
from recipes.schema.recipe import Recipe
from training.spec import missing_packages

_LATER_KINDS = {
    "extract": "text extraction from HTML",
    "pii": "masking personal data",
    "classify": "classifier scores",
    "decontaminate": "decontamination",
}
_REMOTE = ("http://", "https://", "s3://", "gs://", "hf://", "az://")


def later_problems(recipe: Recipe) -> list[Problem]:
    """(path, value, what comes later) for each key whose work is not there yet."""
    return [*_sources(recipe), *_steps(recipe), *_training(recipe), *_execution(recipe)]


def _sources(recipe: Recipe) -> Iterator[Problem]:
    for name, source in recipe.sources.items():
        if source.format in LATER_FORMATS:
            yield ("sources", name, "format"), source.format, f"reading {source.format} is not there yet"
        for place, path in enumerate(source.path):
            where = ("sources", name, "path", place) if len(source.path) > 1 else ("sources", name, "path")
            suffixes = path.lower().rsplit("/", 1)[-1].split(".")[1:]
            if source.format is None and {"warc", "wet"} & set(suffixes):
                yield where, path, "reading WARC and WET files is not there yet"
            if path.startswith(_REMOTE):
                yield where, path, "reading over the network is not there yet; copy the files below execution.raw"


def _steps(recipe: Recipe) -> Iterator[Problem]:
    for place, step in enumerate(recipe.steps):
        path = ("steps", place, step.kind)
        if step.kind in _LATER_KINDS:
            yield path, step.preset, f"{_LATER_KINDS[step.kind]} is not there yet"


def _training(recipe: Recipe) -> Iterator[Problem]:
    for place, amendment in enumerate(recipe.training.amendments if recipe.training is not None else ()):
        for key in sorted(amendment.set or {}):
            if key == "precision" or key.startswith("spikes."):
                where = ("training", "amendments", place, "set", key)
                reason = f"changing {key} on the way is not there yet"
                if key != "precision":
                    reason += "; warn and rollback change no update: say them in training.spikes, the run goes on"
                yield where, (amendment.set or {})[key], reason
    if recipe.evaluation.suites:
        yield ("evaluation", "suites"), recipe.evaluation.suites, "evaluation suites are not there yet"


def _execution(recipe: Recipe) -> Iterator[Problem]:
    for name in recipe.execution.loggers:
        if missing_packages([name]):
            yield ("execution", "loggers"), name, f"{name} is not installed here; pip install 'gristmill[loggers]'"
    if recipe.execution.engine != "local":
        reason = f"running on {recipe.execution.engine} is not there yet; --set execution.engine=local runs it here"
        yield ("execution", "engine"), recipe.execution.engine, reason
    if recipe.execution.disk is not None:
        reason = "a limit on what the work directory holds is not there yet; leave it out, and see `gristmill forecast`"
        yield ("execution", "disk"), str(recipe.execution.disk), reason
    training = recipe.execution.training
    if training.cache is not None:
        reason = "a cache of token shards is not there yet; leave it out, shards are read where they lie"
        yield ("execution", "training", "cache"), str(training.cache), reason
