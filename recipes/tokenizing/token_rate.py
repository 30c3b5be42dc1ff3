"""Tokens that a source's text comes to, before it is tokenised: a rate measured on a sample of what is kept.

The ledger knows the bytes of each text as it was read, and steps may have edited it since: tokens are those of the text
that is left, bytes those that were read of the same documents.

The tokenizer is the recipe's own: the file it names, or the one this run has trained. Where it is still to be trained,
one of its kind is trained on half of the samples and measured on the other half; a recipe without a tokenizer is told
in tokens of 4 bytes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.ledger import Ledger, Source, lost_text
from curation.passes import ShardInputs, kept_text

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

_SAMPLE_BYTES = 400_000  # of a source
_DOCUMENT_CHARACTERS = 20_000
_SHARDS = 16  # of a source, each read to its first documents that are kept: shards are often of one origin each
_TYPICAL = 0.25
_Z = 1.96  # 95 %
_WIDE = 1.6  # either way, where nothing tells how documents vary


@dataclass(frozen=True)
class SampledText:
    """Text of a kept document as the steps left it, at most its beginning; `size_bytes`: of the same part as read."""

    text: str
    size_bytes: float


@dataclass(frozen=True)
class TokenRate:
    """Tokens a byte of kept text as it was read, with a 95 % interval, and what they were counted with.

    `per_document` is the number of begin and end tokens around each.
    `basis` is tokenizer (the recipe's), sample (one of its kind, trained on samples) or typical (4 bytes a token).
    """

    per_byte: float
    low: float
    high: float
    basis: str
    per_document: int = 0

    def tokens(self, size_bytes: int, documents: int) -> int:
        """Tokens of so many kept documents of this source, and bytes that were read of them."""
        return round(size_bytes * self.per_byte) + documents * self.per_document


TYPICAL = TokenRate(_TYPICAL, _TYPICAL / _WIDE, _TYPICAL * _WIDE, "typical")


def token_rates(run: Run, ledger: Ledger) -> dict[str, TokenRate]:
    """The rate of each source of a ledger. Reads about 400 kB of each."""
    samples = {source.name: sampled_texts(_as_curated(source)) for source in ledger.sources}
    if run.recipe.tokenizer is None or not any(samples.values()):
        return dict.fromkeys(samples, TYPICAL)
    ready, ends = _ready(run), run.recipe.sequences.bos + run.recipe.sequences.eos
    if ready is not None:
        return _rates(ready, samples, "tokenizer", ends)
    with tempfile.TemporaryDirectory() as folder:
        halves = {name: (texts[::2], texts[1::2]) for name, texts in samples.items()}
        trained = _train(run.recipe, [one.text for half, _ in halves.values() for one in half], Path(folder))
        if trained is None:
            return dict.fromkeys(samples, TYPICAL)
        return _rates(trained, {name: half for name, (_, half) in halves.items()}, "sample", ends)


def _as_curated(source: Source) -> Source:
    """A source without shards that have other text by now; a new time alone is not looked into, rates are estimates."""
    return replace(source, shards=tuple(s for s in source.shards if s.text or not lost_text(s, reads=False)))


def sampled_texts(source: Source) -> list[SampledText]:
    """Kept documents from the beginning of up to 16 shards, spread evenly; long ones are cut.

    What a shard keeps too little of, those behind it make up for.
    """
    number, left = min(_SHARDS, len(source.shards)), _SAMPLE_BYTES
    found: list[SampledText] = []
    for place in range(number):
        texts = list(_some_of(source.shards[place * len(source.shards) // number], left / (number - place)))
        left -= sum(len(one.text.encode()) for one in texts)
        found += texts
    return found


def _some_of(shard: ShardInputs, size_bytes: float) -> Iterator[SampledText]:
    """The first kept documents of a shard, up to the one that reaches an amount."""
    left = size_bytes
    for batch in kept_text(shard, ["size_bytes"]) if left > 0 else ():
        texts, read = batch.column("text"), batch.column("size_bytes")
        for place in range(len(texts)):
            text = texts[place].as_py()
            if text:
                taken = text[:_DOCUMENT_CHARACTERS]
                size = len(taken.encode())
                yield SampledText(taken, read[place].as_py() * size / len(text.encode()))
                left -= size
            if left <= 0:
                return


def _ready(run: Run) -> Path | None:
    """The recipe's tokenizer, where it names one or this run has trained it."""
    wanted: Any = run.recipe.tokenizer
    if wanted.path is not None:
        return Path(wanted.path) if Path(wanted.path).exists() else None
    from recipes.curating.curate import plan_curation
    from recipes.tokenizing.tokens import plan_tokens

    path = Path(plan_tokens(run, plan_curation(run)).tokenizer)
    return path if (path / "tokenizer.json").exists() else None


def _train(recipe: Recipe, texts: Sequence[str], folder: Path) -> Path | None:
    """A tokenizer of the recipe's kind on some texts; None where they are too few for it."""
    import pyarrow as pa

    from mixing.tokenizer import TokenizerError
    from mixing.tokenizer_training import TokenizerOptions, train_tokenizer

    wanted: Any = recipe.tokenizer
    options = TokenizerOptions(wanted.algorithm, wanted.vocabulary, wanted.digits, wanted.special)
    try:
        train_tokenizer([pa.array(texts, pa.large_string())], options, folder)
    except (TokenizerError, RuntimeError):  # SentencePiece says RuntimeError where the text has too few pieces
        return None
    return folder


def _rates(path: Path, samples: Mapping[str, Sequence[SampledText]], basis: str, ends: int) -> dict[str, TokenRate]:
    import numpy as np
    import pyarrow as pa

    from mixing.tokenizer import encode, load_tokenizer

    tokenizer = load_tokenizer(path)
    rates = {}
    for name, sampled in samples.items():
        texts = pa.array([one.text for one in sampled], pa.large_string())
        counts = [lengths for _, lengths in encode(tokenizer, texts)]
        tokens = np.concatenate([np.zeros(0, np.int64), *counts]).tolist()
        rates[name] = replace(rate_of(tokens, [one.size_bytes for one in sampled], basis), per_document=ends)
    return rates


def rate_of(tokens: Sequence[int], sizes: Sequence[float], basis: str) -> TokenRate:
    """Ratio of two sums over documents, with the interval of a ratio estimator; one document tells no spread.

    Source: Cochran 1977, Sampling Techniques, section 6.4; 5 % are added where the tokenizer is of another text.
    """
    count, total = len(sizes), sum(sizes)
    if not total:
        return TYPICAL
    rate = sum(tokens) / total
    if count < 2:
        return TokenRate(rate, rate / _WIDE, rate * _WIDE, basis)
    spread = math.sqrt(sum((t - rate * s) ** 2 for t, s in zip(tokens, sizes, strict=True)) / (count - 1))
    half = _Z * spread / math.sqrt(count) / (total / count) + (0.05 * rate if basis == "sample" else 0.0)
    return TokenRate(rate, max(0.0, rate - half), rate + half, basis)
