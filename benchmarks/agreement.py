"""Decisions of our presets against other implementations on real documents: `python -m benchmarks.agreement`.

    python -m benchmarks.agreement [--documents 2000] [--keep ROWS.jsonl] [--json] [--markdown PAGE]

Each document is given to datatrove's filter and to our preset with the same thresholds, twice: with our words in
datatrove's tokenizer slot (every difference would be a mistake of one of the two) and with datatrove's own words for
the language (differences are those of the words; skipped where spaCy or, for Chinese, jieba is not installed). RPv2's
signals and decisions are compared with a slow twin of the published code, with our words and with its own.

Each disagreement is explained by trial (`benchmarks.agreement_words`): which differences between the words suffice
for the other decision. One that nothing explains is counted as such.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.agreement_page import page
from benchmarks.agreement_words import (
    Mixture,
    Span,
    mixed_sentences,
    our_sentences,
    our_words,
    sufficient,
    tokenizer_of,
)
from benchmarks.redpajama_twin import twin
from benchmarks.signals_text import SOURCES, documents, every, size_mb
from curation.rules import decide, preset_rules, reasons, signal_names
from curation.signals import SIGNALS, measure
from curation.text.dictionary import Dictionary, installed_dictionary, load_dictionary
from curation.text.properties import CHARACTER, WORD_CLASS, property_table
from curation.text.stop_words import GOPHER_STOP_WORDS

PRESETS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
LANGUAGES = {"de": ("deu", ("spacy",)), "en": ("eng", ("spacy",)), "zh": ("cmn", ("spacy", "jieba"))}
DIGITS = 8  # RedPajama-V2 rounds its signals


@dataclass
class Agreement:
    """Decisions of one preset on one language's documents, ours and theirs.

    `explained` counts the disagreements by the differences that suffice for them, `unexplained` the others;
    `reasons` counts them by the first reason of the side that drops. `values`: signals that are equal, of those
    compared (RPv2 only).
    """

    language: str
    preset: str
    words: str
    documents: int = 0
    both_keep: int = 0
    both_drop: int = 0
    only_ours_drops: int = 0
    only_theirs_drops: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0
    values: tuple[int, int] | None = None

    @property
    def agreement(self) -> float:
        """Share of documents that both keep or both drop."""
        return (self.both_keep + self.both_drop) / max(1, self.documents)

    def count(self, ours: str | None, theirs: str | None) -> bool:
        """Count a document with the reason of each side's drop; true if they disagree."""
        self.documents += 1
        self.both_keep += ours is None and theirs is None
        self.both_drop += ours is not None and theirs is not None
        self.only_ours_drops += ours is not None and theirs is None
        self.only_theirs_drops += ours is None and theirs is not None
        if (ours is None) == (theirs is None):
            return False
        self.reasons[f"ours: {ours}" if ours else f"theirs: {theirs}"] += 1
        return True

    def explain(self, found: tuple[str, ...] | None) -> None:
        """Count what explains the document counted last."""
        if found is None:
            self.unexplained += 1
        else:
            self.explained[" + ".join(sorted(found))] += 1


def their_filter(preset: str, words: Any, language: str) -> Any:
    """Datatrove's filter with its default thresholds, and the stop words of the language."""
    from datatrove.pipeline import filters

    if preset == "gopher_quality":
        return filters.GopherQualityFilter(stop_words=list(GOPHER_STOP_WORDS[language]), language=words)
    if preset == "gopher_repetition":
        return filters.GopherRepetitionFilter(language=words)
    if preset == "c4":
        return filters.C4QualityFilter(language=words)
    return filters.FineWebQualityFilter(language=words)


def verdict(one: Any, text: str) -> str | None:
    """The reason for which datatrove's filter drops a text, or None."""
    from datatrove.data import Document

    found = one.filter(Document(text, "0"))
    return None if found is True else str(found[1])


def our_reasons(preset: str, language: str, text: pa.Array, dictionary: Dictionary | None) -> list[str | None]:
    """The reason for which our preset drops each text, or None; datatrove's values are the English ones."""
    rules = preset_rules(preset, "en", {})[0]
    measured = measure(text, signal_names(rules), language, dictionary)
    frame = pl.DataFrame({name: pl.from_arrow(column) for name, column in measured.items()})
    return first_reasons(decide(frame, rules)[0], reasons(rules))


def first_reasons(drop: np.ndarray, names: Sequence[str]) -> list[str | None]:
    """Name of the lowest bit of each row, None for 0."""
    return [names[(bits & -bits).bit_length() - 1] if bits else None for bits in drop.tolist()]


@cache
def own_tokenizer(language: str) -> Any:
    """Datatrove's tokenizer for the language; remembers nothing."""
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    return load_word_tokenizer(LANGUAGES[language][0])


class Theirs:
    """Datatrove's own words and sentences of a language, of the last texts only once for all filters."""

    def __init__(self, language: str) -> None:
        own = own_tokenizer(language)
        self.words = _remembered(lambda text: own.word_tokenize(text))
        self.sentences: Callable[[str], list[Span]] = _remembered(lambda text: list(own.span_tokenize(text)))
        self.tokenizer = tokenizer_of(self.words, self.sentences)


def _remembered(call: Callable[[str], Any]) -> Callable[[str], Any]:
    last: dict[str, Any] = {}

    def called(text: str) -> Any:
        if text not in last:
            last.clear()
            last[text] = call(text)
        return last[text]

    return called


def against_datatrove(language: str, text: pa.Array, words: str) -> list[Agreement]:
    """All four presets, with `words` "ours" in datatrove's slot or its own (then ours by a "dictionary", if asked)."""
    theirs = None if words == "ours" else Theirs(language)
    dictionary = load_dictionary(installed_dictionary()) if words == "dictionary" else None
    tokenizer = theirs.tokenizer if theirs else tokenizer_of(_remembered(our_words), our_sentences)
    filters = {preset: their_filter(preset, tokenizer, language) for preset in PRESETS}
    ours = {preset: our_reasons(preset, language, text, dictionary) for preset in PRESETS}
    found = {preset: Agreement(language, preset, words) for preset in PRESETS}
    for row, one in enumerate(text.to_pylist()):
        for preset, their in filters.items():
            dropped = verdict(their, one)
            if found[preset].count(ours[preset][row], dropped):
                found[preset].explain(
                    explanation(preset, language, one, dropped is None, theirs, dictionary) if theirs else None
                )
    return list(found.values())


def explanation(
    preset: str, language: str, text: str, they_keep: bool, theirs: Theirs, dictionary: Dictionary | None
) -> tuple[str, ...] | None:
    """The differences of words (C4: of sentences) that alone make the filter decide as on their own words."""
    if preset == "c4":
        return _sentence_explanation(language, text, they_keep, theirs)
    mixture = Mixture(text, theirs.words(text), dictionary)

    def decides_as_theirs(chosen: Sequence[str]) -> bool:
        tokenizer = tokenizer_of(lambda _: mixture.words(chosen), our_sentences)
        return (verdict(their_filter(preset, tokenizer, language), text) is None) == they_keep

    return sufficient(mixture.classes, decides_as_theirs)


def _sentence_explanation(language: str, text: str, they_keep: bool, theirs: Theirs) -> tuple[str, ...] | None:
    number: Counter[str] = Counter()  # C4 cuts each kept line into sentences

    def tokenizer(chosen: Sequence[str]) -> Any:
        def cut(line: str) -> list[Span]:
            spans, classes = mixed_sentences(line, theirs.sentences(line), chosen)
            number.update(classes)
            return spans

        return tokenizer_of(our_words, cut)

    def decides_as_theirs(chosen: Sequence[str]) -> bool:
        return (verdict(their_filter("c4", tokenizer(chosen), language), text) is None) == they_keep

    assert not decides_as_theirs([])  # counts the classes, too: with none of theirs the filter decides as ours
    return sufficient([name for name, _ in sorted(number.items(), key=lambda x: (-x[1], x[0]))], decides_as_theirs)


# ---------------------------------------------------------------- RedPajama-V2


@cache
def lone_letters() -> str:
    """A pattern of the letters that are words of their own here."""
    alone = np.flatnonzero((property_table() & WORD_CLASS) == CHARACTER)
    runs = np.split(alone, np.flatnonzero(np.diff(alone) > 1) + 1)
    return "[" + "".join(f"\\U{run[0]:08x}-\\U{run[-1]:08x}" for run in runs) + "]"


def against_redpajama(language: str, text: pa.Array, words: str) -> list[Agreement]:
    """Values of all signals and the decisions of `rpv2` (its English thresholds) against the published code's twin."""
    rules = preset_rules("rpv2", "en", {})[0]
    names = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]
    frame = pl.DataFrame({name: pl.from_arrow(column) for name, column in measure(text, names, language).items()})
    ours = first_reasons(decide(frame, rules)[0], reasons(rules))
    found = Agreement(language, "rpv2", words)
    equal = total = 0
    for row, (one, values) in enumerate(zip(text.to_pylist(), frame.iter_rows(named=True))):
        theirs = twin(one, language, lone_letters() if words == "ours" else None)
        rounded = {name: None if value is None else round(value, DIGITS) for name, value in theirs.items()}
        equal += sum(_same(values[name], theirs[name]) for name in names)
        total += len(names)
        bits = decide(pl.DataFrame([rounded], infer_schema_length=None), rules)[0]
        if found.count(ours[row], first_reasons(bits, reasons(rules))[0]):
            found.explain(_lone_letter_explanation(one, language, values, names) if words == "theirs" else None)
    found.values = (equal, total)
    return [found]


def _same(ours: float | None, theirs: float | None) -> bool:
    return ours == theirs if ours is None or theirs is None else abs(ours - theirs) <= 1.01 * 10**-DIGITS


def _lone_letter_explanation(text: str, language: str, values: Any, names: Sequence[str]) -> tuple[str, ...] | None:
    """The published code with letters of unspaced scripts as words of their own has all of our values."""
    spaced = twin(text, language, lone_letters())
    return ("Han letters as words",) if all(_same(values[name], spaced[name]) for name in names) else None


# ---------------------------------------------------------------- all


def agreements(options: argparse.Namespace, skipped: list[str], kept: Rows) -> tuple[list[Agreement], dict[str, float]]:
    """All presets, languages and words, and the MB of each language's documents."""
    found: list[Agreement] = []
    sizes = {}
    for language, (_, needed) in LANGUAGES.items():
        if language not in options.languages.split(","):
            continue
        text = documents(SOURCES[language], 60_000_000)
        if text is None:
            skipped.append(f"{language}: GRISTMILL_TEST_DATA names no folder of its documents")
            continue
        chosen = every(text, options.documents)
        sizes[language] = size_mb(chosen)
        missing = [name for name in needed if not importlib.util.find_spec(name)]
        if missing:
            skipped.append(f"{language} with datatrove's words: {', '.join(missing)} is not installed")
        for words in ("ours", "theirs"):
            if words == "ours" or not missing:
                found += kept.rows(f"{language} {words} {len(chosen)}", against_datatrove, language, chosen, words)
            if language == "zh" and words == "theirs" and not missing:
                name = f"zh dictionary {len(chosen)}"
                found += kept.rows(name, against_datatrove, language, chosen, "dictionary")
            found += kept.rows(f"{language} rpv2 {words} {len(chosen)}", against_redpajama, language, chosen, words)
    return found, sizes


def _plain(one: Agreement) -> dict[str, Any]:
    """A row for JSON."""
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(one).items()}


class Rows:
    """Rows of the table, kept in a file so that a run that was cut off goes on."""

    def __init__(self, path: str | None) -> None:
        self.path = Path(path) if path else None
        lines = self.path.read_text().splitlines() if self.path and self.path.is_file() else []
        self.known = dict(map(json.loads, lines))

    def rows(self, name: str, measured: Callable[..., list[Agreement]], *arguments: Any) -> list[Agreement]:
        """Rows known by this name, or measured now."""
        if name not in self.known:
            print(f"{name} documents …", file=sys.stderr, flush=True)
            self.known[name] = [_plain(one) for one in measured(*arguments)]
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([name, self.known[name]]) + "\n")
        counters = ("reasons", "explained")
        return [
            Agreement(**{k: Counter(v) if k in counters else v for k, v in row.items()}) for row in self.known[name]
        ]


def main() -> None:
    """Print the table; write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000, help="documents of each language")
    parser.add_argument("--languages", default="de,en,zh", help="which of de, en, zh")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--markdown", help="write the page here")
    parser.add_argument("--keep", help="file of the rows measured so far, to go on with")
    options = parser.parse_args()
    skipped: list[str] = []
    found, sizes = agreements(options, skipped, Rows(options.keep))
    for one in found:
        print(
            f"{one.language} {one.preset:18} {one.words:7} {one.agreement:8.3%} of {one.documents:,}: only ours drops "
            f"{one.only_ours_drops}, only theirs {one.only_theirs_drops}, unexplained {one.unexplained}  "
            f"{dict(one.explained)} {dict(one.reasons)} {one.values or ''}"
        )
    for reason in skipped:
        print(f"skipped {reason}")
    if options.markdown:
        Path(options.markdown).write_text(page(found, sizes, options), encoding="utf-8")
    if options.json:
        print(json.dumps({"benchmark": "agreement", "rows": [_plain(one) for one in found], "skipped": skipped}))


if __name__ == "__main__":
    main()
