"""Decisions of our presets against datatrove's own filters on real documents: `python -m benchmarks.agreement`.

    GRISTMILL_TEST_DATA=… python -m benchmarks.agreement [--documents 1000] [--json] [--markdown docs/agreement.md]

Each document is given to datatrove's filter and to our preset with the same thresholds, twice: with our words in
datatrove's tokenizer slot (every difference would be a mistake of one of the two) and with datatrove's own words for
the language (differences are those of the words; skipped where spaCy or, for Chinese, jieba is not installed). A
disagreement is explained when our value lies within 10 % of a threshold, or its reason counts words, sentences or
n-grams of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.signals_text import SOURCES, documents, every
from curation.rules import Rule, decide, preset_rules, reasons, signal_names
from curation.signals import measure
from curation.text.properties import property_table
from curation.text.scan import segments_of
from curation.text.segment import frozen
from curation.text.sentences import next_sentence
from curation.text.spans import trim_start
from curation.text.stop_words import GOPHER_STOP_WORDS

PRESETS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
LANGUAGES = {"de": ("deu", ("spacy",)), "en": ("eng", ("spacy",)), "zh": ("cmn", ("spacy", "jieba"))}
NEAR = 0.1
_COMPARED = re.compile(r"\b([A-Za-z_]\w*)\s*(?:<=?|>=?)\s*(-?[0-9.]+)")


@dataclass(frozen=True)
class Agreement:
    """Decisions of one preset on one language's documents. `near`: disagreements within 10 % of a threshold."""

    language: str
    preset: str
    words: str
    documents: int
    both_keep: int
    both_drop: int
    only_ours_drops: int
    only_theirs_drops: int
    near: int
    reasons: dict[str, int]

    @property
    def agreement(self) -> float:
        """Share of documents that both keep or both drop."""
        return (self.both_keep + self.both_drop) / max(1, self.documents)


def our_words() -> Any:
    """Our words and sentences in datatrove's tokenizer slot."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class OurWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return [segment for segment, _ in segments_of(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return list(sentence_spans(text))

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[start:stop] for start, stop in sentence_spans(text)]

    return OurWords("any")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Our sentences as places in the string."""
    raw = text.encode()
    buf, table = frozen(np.frombuffer(raw, np.uint8)), property_table()
    at = trim_start(buf, 0, len(raw), table)
    while at < len(raw):
        stop = next_sentence(buf, at, len(raw), table)
        yield len(raw[:at].decode()), len(raw[:stop].decode())
        at = trim_start(buf, stop, len(raw), table)


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


def compared(preset: str, language: str, text: pa.Array, words: str) -> Agreement:
    """Both decisions on some documents."""
    from datatrove.data import Document

    rules = preset_rules(preset, "en", {})[0]  # datatrove's values are the English ones, whatever the language
    measured = measure(text, signal_names(rules), language)
    frame = pl.DataFrame({name: pl.from_arrow(column) for name, column in measured.items()})
    drop = decide(frame, rules)[0]
    theirs = their_filter(preset, our_words() if words == "ours" else LANGUAGES[language][0], language)
    verdicts = [theirs.filter(Document(one, "0")) for one in text.to_pylist()]
    dropped = np.array([verdict is not True for verdict in verdicts])
    ours = drop != 0
    names, told = reasons(rules), Counter[str]()
    rows = np.flatnonzero(ours != dropped)
    for row in rows.tolist():
        bits = int(drop[row])
        told["ours: " + names[(bits & -bits).bit_length() - 1] if bits else f"theirs: {verdicts[row][1]}"] += 1
    return Agreement(
        language, preset, words, len(text),
        int((~ours & ~dropped).sum()), int((ours & dropped).sum()),
        int((ours & ~dropped).sum()), int((~ours & dropped).sum()),
        sum(_near(frame.row(row, named=True), rules) for row in rows.tolist()),
        dict(sorted(told.items(), key=lambda pair: (-pair[1], pair[0]))),
    )  # fmt: skip


def _near(values: dict[str, Any], rules: Sequence[Rule]) -> bool:
    """Whether a value of ours lies within 10 % of a threshold."""
    for rule in rules:
        for name, number in _COMPARED.findall(rule.sql):
            value, border = values.get(name), float(number)
            if value is not None and abs(float(value) - border) <= max(NEAR * abs(border), 1e-9 if border else 0):
                return True
    return False


def agreements(number: int, skipped: list[str]) -> list[Agreement]:
    """All presets, languages and words; `number` documents of each language."""
    found = []
    for language, (_, needed) in LANGUAGES.items():
        text = documents(SOURCES[language], 60_000_000)
        if text is None:
            skipped.append(f"{language}: GRISTMILL_TEST_DATA names no folder of its documents")
            continue
        chosen = every(text, number)
        for words in ("ours", "theirs"):
            missing = [name for name in needed if not importlib.util.find_spec(name)]
            if words == "theirs" and missing:
                skipped.append(f"{language} with datatrove's words: {', '.join(missing)} is not installed")
                continue
            found += [compared(preset, language, chosen, words) for preset in PRESETS]
    return found


_PAGE = """# Agreement with datatrove's filters

Written by `python -m benchmarks.agreement --documents {number} --markdown docs/agreement.md` over real documents
(encyclopedia, statutes and novels in German, novels and mathematics in English, novels, statutes and textbooks in
Chinese), datatrove {version}. Thresholds are datatrove's own; stop words are those of the language. With **our words**
in datatrove's tokenizer slot every decision should be equal; with **its own words** (spaCy's) a document near a
threshold may fall on the other side.

{table}
`near`: disagreements in which one of our values lies within 10 % of a threshold. Reasons of the disagreements:

{reasons}

Why they differ, where they do:

* **Words.** spaCy splits `z.B.`, hyphenated words, Markdown (`**`, `|`) and LaTeX (`\\frac`) otherwise than Unicode's
  word rules, so counts of words, shares of them and n-grams move by some per cent; symbols are segments in both.
* **Sentences.** spaCy's sentencizer ends a sentence at every `.`, ours not after initials, numbers and before lower
  case, so fewer lines of C4 reach five sentences in ours.
* **LaTeX.** All English disagreements on repetition are of LaTeX mathematics, none of novels:
  `\\`, `{{`, `}}` and `^` are segments of their own here and parts of one token in
  spaCy, so n-grams of markup repeat more often in ours.
* **Chinese.** datatrove's words come from jieba's dictionary, ours are characters; thresholds of word length and
  n-grams for English words do not fit either, which is why our presets have values of their own for Chinese.
"""


def page(found: Sequence[Agreement], number: int) -> str:
    """The table as a page, Markdown."""
    import datatrove

    head = "| language | preset | words | documents | both keep | both drop | only ours | only theirs | near | agree |"
    rows = [head, "|" + " --- |" * 10]
    told = []
    for one in found:
        counts = (one.documents, one.both_keep, one.both_drop, one.only_ours_drops, one.only_theirs_drops, one.near)
        numbers = " | ".join(f"{count:,}" for count in counts)
        rows.append(f"| {one.language} | `{one.preset}` | {one.words} | {numbers} | {one.agreement:.2%} |")
        if one.reasons:
            listed = ", ".join(f"{reason} {count}" for reason, count in list(one.reasons.items())[:6])
            told.append(f"* {one.language} `{one.preset}`, {one.words}: {listed}")
    version = getattr(datatrove, "__version__", "0.10.1")
    return _PAGE.format(number=number, version=version, table="\n".join(rows) + "\n", reasons="\n".join(told) or "none")


def main() -> None:
    """Print the table; write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000, help="documents of each language")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--markdown", help="write the page here")
    options = parser.parse_args()
    skipped: list[str] = []
    found = agreements(options.documents, skipped)
    for one in found:
        print(
            f"{one.language} {one.preset:18} {one.words:7} {one.agreement:8.3%} of {one.documents:,}: only ours drops "
            f"{one.only_ours_drops}, only theirs {one.only_theirs_drops}, near a threshold {one.near}  {one.reasons}"
        )
    for reason in skipped:
        print(f"skipped {reason}")
    if options.markdown:
        Path(options.markdown).write_text(page(found, options.documents), encoding="utf-8")
    if options.json:
        print(json.dumps({"benchmark": "agreement", "rows": [asdict(one) for one in found], "skipped": skipped}))


if __name__ == "__main__":
    main()
