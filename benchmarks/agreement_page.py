"""docs/agreement.md as the benchmark writes it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from curation.signals import SIGNALS

if TYPE_CHECKING:
    from benchmarks.agreement import Agreement

_HEAD = ("language", "preset", "words", "documents", "both keep", "both drop", "only ours drops", "only theirs")
_HEAD += ("explained", "unexplained", "agree", "values")
_PAGE = """# Agreement with other implementations

Written by `python -m benchmarks.agreement --documents {number} --markdown docs/agreement.md` over real documents
({sizes}: encyclopedia, statutes and novels in German, novels and mathematics in English, novels, statutes and
textbooks in Chinese). Thresholds are the implementation's own; stop words are those of the language.

* `gopher_quality`, `gopher_repetition`, `c4`, `fineweb`: datatrove {version}'s filters. With **our words** in
  datatrove's tokenizer slot every decision should be equal; with **its own words** (spaCy's, for Chinese jieba's) a
  document near a threshold may fall on the other side. **dictionary**: ours are those of `words: {{han: jieba}}`, too.
* `rpv2`: a slow twin of RedPajama-V2's published code in plain Python. Its words are those of the published regular
  expressions (**theirs**), or the same with letters of scripts without spaces standing alone (**ours**). `values`:
  signals equal to 8 digits, of all {signals} of all documents. The published code knows words only by the blanks around
  them, so that a Chinese line is one word to it: there half of the values are others, and mean nothing.
* Thresholds are the English ones for every language, as both sides must have the same. So nothing in Chinese reaches
  Gopher's and RPv2's least length of a word, whoever counts: those rows show equal drops and no more.

{table}

## Why they disagree

A disagreement is explained by trial: the text is cut as ours, but as theirs in the places of one kind alone, and
datatrove's filter decides again; the kind is the explanation where that suffices for its own decision (else the
first kinds, by number, that suffice together).

{reasons}

What stands behind the kinds:

* **LaTeX**, **Markdown, tables and code**: `\\`, `{{`, `}}`, `^`, `|` and `*` are segments of their own here and parts
  of a token in spaCy, so shares of words with a letter fall and n-grams of markup repeat more often in ours. No rule
  tells formulas from prose; a source of mathematics gets n-gram values of its own, or none:
  `sources: {{en_math: {{…, steps: {{gopher: {{max_duplicate_5gram: 0.4, max_duplicate_6gram: null}}}}}}}}`.
* **Han words**: datatrove's come from jieba's dictionary and its model for unknown words; ours are characters, or a
  dictionary's words (`words: {{han: jieba}}`, docs/words.md).
* **full stops and ellipses**, **hyphens and dashes**, **apostrophes**, **numbers**: spaCy splits hyphenated words and
  `don't`, keeps `z.B.` and `....`; Unicode's word rules join `z.B` and `1.000,50`.
* **Sentences** (`c4`): spaCy's sentencizer ends one at every `.`; ours not after initials, numbers and before lower
  case, so fewer lines reach five sentences.
"""


def page(found: Sequence[Agreement], sizes: dict[str, float], options: argparse.Namespace) -> str:
    """The table as a page, Markdown."""
    import datatrove

    rows, told = [], []
    for one in found:
        counts = (one.documents, one.both_keep, one.both_drop, one.only_ours_drops, one.only_theirs_drops)
        counts = (*counts, sum(one.explained.values()), one.unexplained)
        numbers = " | ".join(f"{count:,}" for count in counts)
        values = f"{one.values[0]:,} of {one.values[1]:,}" if one.values else ""
        rows.append(f"| {one.language} | `{one.preset}` | {one.words} | {numbers} | {one.agreement:.2%} | {values} |")
        if one.reasons:
            why, because = _listed(one.explained) or "nothing", _listed(one.reasons)
            told.append(f"* {one.language} `{one.preset}`, {one.words}: {why} (reasons: {because})")
    return _PAGE.format(
        number=options.documents,
        sizes=", ".join(f"{size:.0f} MB {language}" for language, size in sizes.items()),
        version=getattr(datatrove, "__version__", "0.10.1"),
        signals=len([signal for signal in SIGNALS.values() if signal.family == "redpajama"]),
        table="\n".join(["| " + " | ".join(_HEAD) + " |", "|" + " --- |" * len(_HEAD), *rows]),
        reasons="\n".join(told) or "None.",
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(6))
