"""A study of tokenizers: how each of several does on the same kept-aside text, and how that moves with training text.

From each domain some text is kept aside, chosen by content (`mixing.tokenizer_text.measured_from`): no sample that the
study trains on holds any of it. (A recipe's own tokenizer may be trained on all text, and so have seen it.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.passes import ShardInputs
from curation.stage import Counts, Output
from mixing.stages import NoText, TokenizerStageOptions, domain_bytes, domain_sizes, domain_texts, text_shares
from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_extension import extend_tokenizer
from mixing.tokenizer_report import report_tokenizer
from mixing.tokenizer_text import below, kept_aside, measured_from, take_text, text_limits
from mixing.tokenizer_training import train_tokenizer


@dataclass(frozen=True)
class StudyInputs:
    """Text, and the tokenizer that is measured on it.

    Attributes:
        shards: of all sources, in canonical order.
        tokenizer: path of a ready one; None: one is trained by the options.
        vocabulary: ids of the one that is trained.
        size_bytes: text it is trained on.
    """

    shards: tuple[ShardInputs, ...]
    tokenizer: str | None = None
    vocabulary: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class StudyOptions:
    """What all tokenizers of a study share.

    Attributes:
        trained: how those of the study are trained; vocabulary and size come from the inputs.
        measured_bytes: most text kept aside of each domain.
        measured_share: most of a domain's text that is kept aside.
    """

    trained: TokenizerStageOptions
    measured_bytes: int
    measured_share: float = 0.1


def study_tokenizer(inputs: StudyInputs, options: StudyOptions, output: Output) -> Counts:
    """Report on a tokenizer over the text kept aside, training it first where it is one of the study's own.

    Memory: that of training, and of the counted words of each source (`report_tokenizer`).
    """
    split = dict(options.trained.split)
    supply = domain_bytes(inputs.shards, split)
    if not supply:
        raise NoText("no text to measure tokenizers on: not one document is kept")
    edges = {
        domain: measured_from(
            domain_sizes(inputs.shards, split, domain), options.measured_bytes, options.measured_share
        )
        for domain in supply
    }
    taken: dict[str, dict[str, int]] = {}
    path = Path(inputs.tokenizer) if inputs.tokenizer else output.path(".tokenizer")
    if inputs.tokenizer is None:
        taken = _train(inputs, options.trained, edges, path)
    report = report_tokenizer(load_tokenizer(path), _measured(inputs.shards, split, edges))
    trained_bytes = {domain: counts["taken_bytes"] for domain, counts in taken.items()}
    report |= {"trained_bytes": sum(trained_bytes.values()), "trained_bytes_by_domain": trained_bytes}
    output.path(".report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    return {"documents": sum(source["num_documents"] for source in report["sources"])}


def _train(
    inputs: StudyInputs, options: TokenizerStageOptions, edges: Mapping[str, tuple[int, int]], path: Path
) -> dict[str, dict[str, int]]:
    """Train a tokenizer on text that is not kept aside, in the recipe's shares; return what each domain gave."""
    split = dict(options.split)
    supply = {domain: float(size) for domain, (_, size) in edges.items() if size}
    if not supply:
        raise NoText("no domain has text beside what is kept aside; one document each is too little to study")
    shares = text_shares(dict(options.shares), supply)
    # as in `make_tokenizer`: where a domain has less than its share all take less, so that the shares hold
    size = min(inputs.size_bytes, *(int(supply[d] / share) for d, share in shares.items() if share > 0))
    sizes = {d: below(domain_sizes(inputs.shards, split, d), edges[d][0]) for d in supply}
    limits, counts = text_limits(sizes, size, shares)
    limits = {domain: min(limit, edges[domain][0]) for domain, limit in limits.items()}
    texts = take_text(domain_texts(inputs.shards, split), limits)
    if options.base is not None:
        extend_tokenizer(options.base, texts, inputs.vocabulary, path, special=options.tokenizer.special)
    else:
        train_tokenizer(texts, replace(options.tokenizer, vocabulary=inputs.vocabulary), path)
    return counts


def _measured(
    shards: Sequence[ShardInputs], split: Mapping[str, str], edges: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, str, pa.Array]]:
    """Source, language and text of the documents kept aside, in row batches."""
    languages = {shard.source: shard.language for shard in shards}
    for domain, ids, text in domain_texts(shards, split):
        source = domain.partition("/")[0]
        if domain in edges:
            chosen = text.filter(pc.and_(kept_aside(ids, edges[domain][0]), text.is_valid()))
            if len(chosen):
                yield source, languages[source], chosen


# ---------------------------------------------------------------- what a study says


SPACELESS = frozenset({"zh", "ja", "th", "lo", "km", "my", "yue", "wuu"})
"""Languages written without spaces: what stands between two spaces is no word, so they are compared by character."""


def tokens_per_unit(measured: Mapping[str, Any]) -> float | None:
    """Fertility: tokens per word; tokens per character for a language written without spaces."""
    spaceless = str(measured["language"]).split("-")[0] in SPACELESS
    found: float | None = measured["tokens_per_character" if spaceless else "tokens_per_word"]
    return found


def unit_of(language: str) -> str:
    """What `tokens_per_unit` counts tokens by."""
    return "character" if language.split("-")[0] in SPACELESS else "word"


def turning_points(curve: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """The amount of training text with the fewest tokens per word, and how much worse the largest amount is.

    Args:
        curve: (bytes of training text, tokens per word) in order of bytes.

    Returns:
        Bytes of the best, and the excess of the last over it as a share (0: more text never hurt).
    """
    best = min(curve, key=lambda point: (point[1], point[0]))
    return best[0], curve[-1][1] / best[1] - 1
