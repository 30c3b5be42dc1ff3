"""The `perplexity` step as stages: a language model per language, scores shard by shard, cutoffs of the run, buckets."""

from __future__ import annotations

from curation import config


def prefix_of(step: config.Step) -> str:
    """What a step's name puts before its signals: nothing while it has its default name."""
    return "" if step.name in (step.preset, step.kind) else f"{step.name}_"


def add_perplexity(compiler, path, step, names):
    raise NotImplementedError
