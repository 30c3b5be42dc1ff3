"""Write `docs/signals.md` from the registry: `python -m curation.signals.reference`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curation.lines import LINE_SIGNALS
from curation.rule_presets import FOLDER, load_preset
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
* A signal is null where there is no text, or where it would be a mean over nothing. It is never NaN.
"""


def _table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"


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
    parts.append("## Signals of lines and paragraphs\n\nFor the conditions of a `lines` step.\n")
    parts.append(_table([(f"`{name}`", text) for name, text in LINE_SIGNALS.items()], ("signal", "what it is")))
    parts.append("## Presets\n\nTheir files in `curation/presets/` give every value with its source.\n")
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    presets = [load_preset(name) for name in names]
    described = [
        (
            f"`{x.name}`",
            "lines" if x.unit else "rules",
            x.source,
            ", ".join(x.languages) or "-",
            ", ".join(x.options) or "-",
        )
        for x in presets
    ]
    parts.append(_table(described, ("preset", "step", "source", "values of their own", "options")))
    return "\n".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(reference_page(), encoding="utf-8")
