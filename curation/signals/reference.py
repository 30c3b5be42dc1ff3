"""Write `docs/signals.md` from the registry: `python -m curation.signals.reference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curation.lines import LINE_SIGNALS
from curation.rule_presets import FOLDER, OptionValue, RulePreset, load_preset
from curation.signals import FAMILIES
from curation.signals.given import GIVEN_SIGNALS
from curation.text.segment import SEGMENTATION
from curation.text.sentences import SENTENCES

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "signals.md"
_INTRODUCTION = f"""# Signals

A signal is a number measured on a document. This page is written by `python -m curation.signals.reference`; a test
compares it with the registry.

* **Words**: {SEGMENTATION}. Letters of scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese ...) are
  words of their own; symbols are segments that are no words. `curation/text/segment.py` has the rules.
* **Sentences**: {SENTENCES}. `curation/text/sentences.py` has the rules.
* A definition names its implementation, because shares of one name differ between implementations and thresholds do not
  transfer. With equal words our values equal that implementation's; the tests run it beside ours.
* Conditions of `rules` may also name the columns of each row: `num_characters` and `size_bytes` (UTF-8) of the text as
  read, `origin_id`, `url`, `date`, `licence`, `repaired` (sequences that were no UTF-8), what a source brings, and what
  earlier steps give: `language`, `language_score`, `perplexity`, `bucket`.
* A signal is null where there is no text, or where it would be a mean over nothing. It is never NaN.
"""

# RedPajama-V2's tags that are no signals of one text here: what has their value.
OTHER_TAGS = {
    "ccnet_language_score": "`language_score` of a `language` step",
    "ccnet_perplexity": "`perplexity` of a `perplexity` step (preset `ccnet`)",
    "ccnet_bucket": "`bucket` of the same step",
    "minhash_signature_0.7": "bands of `dedup: {preset: minhash, threshold: 0.7, shingle: {words: 13}}`: 14 of 9 rows",
    "minhash_signature_0.8": "the same with 0.8: 9 of 13",
    "minhash_signature_0.9": "the same with 0.9: 5 of 25",
    "minhash_signature_1.0": "the same with 1: 1 of 128; or `dedup: exact`",
}


_SPEED = """## Speed

One core of a machine with nothing else to do; German, Chinese and English text; `python -m benchmarks.signals --quick`.

| work | speed | beside |
|---|---|---|
| Gopher, C4 and FineWeb rules together | 42 MB/s | 220 times datatrove's blocks (51 times with our words in them) |
| all signals of RedPajama-V2 | 49 MB/s | |
| language of whole documents | 1.02 of calling fastText on the same bytes | |
| language of excerpts | 4.3 times fastText on all bytes | the same label for every document |
| language by excerpts, all rules and signals, Parquet to Parquet | 11.8 MB/s | two workers 1.87 times one |
| deciding anew after a changed threshold | 13 million rows/s | |

Kernels compile once: 51 s of processor time, then from a cache. The stage takes 0.36 GiB where its
input has a row of 1 GB; 10 GB of text in flat memory: `docs/experiments/`.
"""


def tags() -> dict[str, str]:
    """All 46 quality signals of RedPajama-V2 by their published names, each with what has its value here."""
    known = [name for family in FAMILIES if family.name == "redpajama" for name in (s.name for s in family.signals)]
    found = {name.removesuffix("_mean").removesuffix("_sum") if "_lines_" in name else name: name for name in known}
    return {tag: f"`{name}`" for tag, name in (found | {name: name for name in GIVEN_SIGNALS}).items()} | OTHER_TAGS


def _table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"


def _values(options: Mapping[str, OptionValue]) -> str:
    """Options with their values; null switches one off."""
    return ", ".join(f"{name} {'null' if value is None else value}" for name, value in options.items())


def _own_values(preset: RulePreset) -> str:
    """The options that differ in a language; languages of the same values together."""
    together: dict[str, list[str]] = {}
    for code, options in preset.languages.items():
        together.setdefault(_values(options), []).append(code)
    return "; ".join(f"{', '.join(codes)}: {values or 'the same'}" for values, codes in together.items())


def reference_page() -> str:
    """The whole page, Markdown."""
    parts = [_INTRODUCTION]
    for family in FAMILIES:
        parts.append(f"## {family.name}\n")
        for implementation in dict.fromkeys(signal.implementation for signal in family.signals):
            of_it = [signal for signal in family.signals if signal.implementation == implementation]
            rows = [(f"`{x.name}`", x.dtype, str(x.version), x.description) for x in of_it]
            parts.append(f"{implementation}\n\n" + _table(rows, ("signal", "type", "version", "what it is")))
    parts.append(
        "## Signals that need a file of yours\n\n"
        "`- measure: {files: {SIGNAL: PATH}}` names it; rules may use the signal in later steps. "
        "`curation/signals/given.py` and `curation/signals/importance.py` have the formats.\n"
    )
    given = [(f"`{x.name}`", x.dtype, str(x.version), x.description) for x in GIVEN_SIGNALS.values()]
    parts.append(_table(given, ("signal", "type", "version", "what it is")))
    parts.append(
        "## RedPajama-V2's 46 tags\n\nAll but these have their own names above; signals of lines end in `_mean` or "
        "`_sum` there, and `- measure: {signals: [...], per_line: true}` keeps each line's value under the tag's own "
        "name.\n"
    )
    parts.append(_table([(f"`{tag}`", what) for tag, what in OTHER_TAGS.items()], ("tag", "what has its value")))
    parts.append("## Signals of lines and paragraphs\n\nFor the conditions of a `lines` step.\n")
    parts.append(_table([(f"`{name}`", text) for name, text in LINE_SIGNALS.items()], ("signal", "what it is")))
    parts.append(
        "## Presets\n\nTheir files in `curation/presets/` give the source of each value. `null` switches a rule off.\n"
    )
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    presets = [load_preset(name) for name in names]
    described = [
        (
            f"`{x.name}`",
            "lines" if x.unit else "rules",
            x.source,
            _own_values(x) or "-",
            _values(x.options) or "-",
        )
        for x in presets
    ]
    parts.append(
        _table(described, ("preset", "step", "source", "other values in a language", "options and their values"))
    )
    return "\n".join([*parts, _SPEED])


if __name__ == "__main__":
    DOCUMENT.write_text(reference_page(), encoding="utf-8")
