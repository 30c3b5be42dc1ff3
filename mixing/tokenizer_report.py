"""What a tokenizer does to text: how many tokens a word costs, what it cannot write, what does not come back.

Fertility is tokens per whitespace-separated word, as published tables have it; text without spaces (Chinese) is
compared by tokens per character. Tokenizers that lose umlauts or spaces without an error have been published more than
once: so every document is decoded again and compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mixing.tokenizer import Tokenizer, decode, encode

_LISTED = 20  # entries of a list of the worst
_DIFFERENT_WORDS = 200_000  # words counted; later new ones are not
_EXAMPLE = 80  # characters around the first difference
_LETTERS = r"[^\W\d_\u2e80-\U0003ffff]+"
_WORD = re.compile(rf"^[^\w\\]*(?P<word>{_LETTERS}(?:-{_LETTERS})*)[^\w\\]*$")  # a whole word between punctuation
_COUNTED = (
    "num_documents", "num_words", "num_characters", "size_bytes", "num_tokens", "num_partial", "num_unknown",
    "num_not_restored",
)  # fmt: skip


@dataclass
class _Sums:
    """Sums over the text of one source and language."""

    num_documents: int = 0
    num_words: int = 0
    num_characters: int = 0
    size_bytes: int = 0
    num_tokens: int = 0
    num_partial: int = 0
    num_unknown: int = 0
    num_not_restored: int = 0
    first_not_restored: str | None = None
    characters: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)


def report_tokenizer(tokenizer: Tokenizer, texts: Iterable[tuple[str, str, pa.Array]]) -> dict[str, Any]:
    """Describe a tokenizer by what it does to some text.

    Memory grows with the number of different words (at most 200,000 a source) and characters, not with the text.

    Args:
        tokenizer: from `load_tokenizer`.
        texts: (source, language, large_string array); nulls are left out.

    Returns:
        `vocabulary`; `used_tokens` (different ids over all text) and `used_share`; and `sources`, for each
        (source, language) in order: counts, `tokens_per_word`, `tokens_per_character`, `bytes_per_token`,
        `partial_share` (of the tokens: those that hold a piece of a character, so that it takes several),
        `num_unknown` (unk tokens: text that is lost), `used_tokens`, `num_not_restored` (documents that do not come
        back) with the place of the first difference, `missing_symbols` (characters without a token of their own:
        [character, count], the most frequent first) and `worst_split_words` ([word, tokens,
        count], the most tokens first, of words seen twice or more).
        `languages`: the same counts and quotients for each language, over its sources.
        A quotient without a denominator is null.
    """
    sums: dict[tuple[str, str], _Sums] = {}
    own, partial = _symbols(tokenizer)
    for source, language, array in texts:
        _add(sums.setdefault((source, language), _Sums()), tokenizer, array.drop_null(), partial)
    used = set().union(*(each.used for each in sums.values())) if sums else set()
    return {
        "vocabulary": tokenizer.vocabulary,
        "used_tokens": len(used),
        "used_share": _quotient(len(used), tokenizer.vocabulary),
        "languages": [_language(name, sums) for name in sorted({language for _, language in sums})],
        "sources": [_described(name, each, tokenizer, own) for name, each in sorted(sums.items())],
    }


def _language(name: str, sums: dict[tuple[str, str], _Sums]) -> dict[str, Any]:
    """Counts and quotients over all sources of a language."""
    ours = [each for (_, language), each in sums.items() if language == name]
    total = _Sums(used=set().union(*(each.used for each in ours)))
    for field_ in _COUNTED:
        setattr(total, field_, sum(getattr(each, field_) for each in ours))
    return {"language": name, **_quotients(total)}


def _add(sums: _Sums, tokenizer: Tokenizer, text: pa.Array, partial: np.ndarray) -> None:
    documents = text.to_pylist()
    number = 0
    for ids, lengths in encode(tokenizer, text):
        sums.num_tokens += len(ids)
        sums.used.update(np.unique(ids).tolist())
        sums.num_partial += int(partial[ids].sum())
        sums.num_unknown += 0 if tokenizer.unk is None else int((ids == tokenizer.unk).sum())
        for document_ids in np.split(ids, np.cumsum(lengths)[:-1]):
            _compare(sums, documents[number], decode(tokenizer, document_ids, keep_special=True))
            number += 1
    for document in documents:
        words = document.split()
        sums.num_documents += 1
        sums.num_words += len(words)
        sums.num_characters += len(document)
        sums.size_bytes += len(document.encode())
        sums.characters.update(document)
        full = len(sums.words) >= _DIFFERENT_WORDS
        sums.words.update(word for word in words if not full or word in sums.words)


def _compare(sums: _Sums, document: str, restored: str) -> None:
    if restored == document:
        return
    sums.num_not_restored += 1
    if sums.first_not_restored is None:
        shared = next(
            (i for i, (a, b) in enumerate(zip(document, restored)) if a != b), min(len(document), len(restored))
        )
        sums.first_not_restored = (
            f"{document[shared : shared + _EXAMPLE]!r} came back as {restored[shared : shared + _EXAMPLE]!r}"
        )


def _described(name: tuple[str, str], sums: _Sums, tokenizer: Tokenizer, own: set[str]) -> dict[str, Any]:
    missing = [
        (symbol, count) for symbol, count in sums.characters.items() if symbol not in own and not symbol.isspace()
    ]
    return {
        "source": name[0],
        "language": name[1],
        **_quotients(sums),
        "first_not_restored": sums.first_not_restored,
        "num_missing_symbols": len(missing),
        "missing_symbols": [list(each) for each in sorted(missing, key=lambda each: (-each[1], each[0]))[:_LISTED]],
        "worst_split_words": _worst_split(sums.words, tokenizer),
    }


def _quotients(sums: _Sums) -> dict[str, Any]:
    return {
        **{name: getattr(sums, name) for name in _COUNTED if name != "num_partial"},
        "tokens_per_word": _quotient(sums.num_tokens, sums.num_words),
        "tokens_per_character": _quotient(sums.num_tokens, sums.num_characters),
        "bytes_per_token": _quotient(sums.size_bytes, sums.num_tokens),
        "partial_share": _quotient(sums.num_partial, sums.num_tokens),
        "used_tokens": len(sums.used),
    }


def _worst_split(words: Counter[str], tokenizer: Tokenizer) -> list[list[Any]]:
    """Words seen twice or more that take the most tokens, as they stand inside text (after a space).

    Only what is letters and hyphens once punctuation around it is gone: formulas and paths are split anyway, and a run
    of Han between two spaces is a sentence.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        if bare := _WORD.match(word):
            counts[bare["word"]] += count
    repeated = sorted(word for word, count in counts.items() if count > 1)
    inside_text = pa.array([f" {word}" for word in repeated], pa.large_string())
    tokens = [count for _, lengths in encode(tokenizer, inside_text) for count in lengths.tolist()]
    ranked = sorted(zip(repeated, tokens), key=lambda each: (-each[1], -counts[each[0]], each[0]))
    return [[word, count, counts[word]] for word, count in ranked[:_LISTED]]


def _symbols(tokenizer: Tokenizer) -> tuple[set[str], np.ndarray]:
    """Characters that are the whole text of some token, and which tokens hold a piece of a character, bool (ids,)."""
    texts = tokenizer.encoder.decode_batch([[token] for token in range(tokenizer.vocabulary)], skip_special_tokens=True)
    partial = np.array(["\ufffd" in text for text in texts], dtype=bool)
    return {text.strip() for text in texts if len(text.strip()) == 1}, partial


def _quotient(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None
