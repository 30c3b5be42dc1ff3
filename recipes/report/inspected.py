"""The page of `gristmill inspect`: documents of each rule with the deciding value, texts as they are written.

Every text stands in a block of its own with `dir="auto"`, so that right-to-left ones read from the right and mixed
ones keep their order; characters that would turn the text around them, and controls, are shown by their names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from recipes.progress import several
from recipes.report.markup import Section, tag
from recipes.report.samples import KINDS

_KINDS = {**KINDS, "read": "could not be read"}


def write_inspected(
    path: Path, name: str, found: Sequence[Mapping[str, Any]], duplicates: Sequence[Mapping[str, Any]], characters: int
) -> Path:
    """Write what `examples` and `duplicate_examples` found as a page.

    Args:
        path: the page.
        name: the run's.
        found: documents under rules.
        duplicates: documents that dedup steps dropped, beside those that stay.
        characters: most of a text that is shown.
    """
    from recipes.report.page import write_alone

    section = Section("inspect", "Documents by rule", "The earliest reason that drops a document is the ledger's.")
    both = [*((one, _rule_document) for one in found), *((one, _duplicate_document) for one in duplicates)]
    for head, group in groupby(both, key=lambda pair: (pair[0]["source"], pair[0]["step"], pair[0]["reason"])):
        documents = list(group)
        title = tag("b", f"{head[1]}.{head[2]}"), f" · {head[0]} · {several(len(documents), 'document')}"
        sql = documents[0][0].get("sql")
        drops = (" · drops where ", tag("code", sql)) if sql else ()
        shown = [write(one, characters) for one, write in documents]
        section.parts.append(tag("details", tag("summary", *title, *drops), *shown, class_="rule", open="open"))
    if not both:
        section.say("Nothing was dropped.")
    return write_alone(path, f"{name}: inspect", [section])


def _rule_document(one: Mapping[str, Any], characters: int) -> Markup:
    values = ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in one["values"].items())
    head = tag("p", tag("b", _KINDS.get(one["kind"], one["kind"])), f" · {values} · " if values else " · ", _place(one))
    return tag("div", head, _quoted(one["text"], characters), class_=f"sample {one['kind']}")


def _duplicate_document(one: Mapping[str, Any], characters: int) -> Markup:
    source, shard, row = one["duplicate_of"]
    similar = "" if one["similarity"] is None else f", similarity {one['similarity']:.2f}"
    where = f"stands in index {one['index']} as" if one["index"] else "duplicate of"
    parts = [
        tag("p", tag("b", "dropped"), f" · {where} {source} {shard} row {row}{similar} · ", _place(one)),
        _quoted(one["text"], characters),
    ]
    if one["other_text"] is not None:
        parts += [tag("p", tag("b", "stays")), _quoted(one["other_text"], characters)]
    return tag("div", *parts, class_="sample dropped")


def _place(one: Mapping[str, Any]) -> Markup:
    return tag("code", f"{one['content_id'][:12]} {one['shard']} row {one['row']}")


def _quoted(text: str | None, characters: int) -> Markup:
    if text is None:
        return tag("blockquote", tag("i", "no text"))
    short = readable(text[: 4 * characters])
    return tag("blockquote", short if len(short) <= characters else f"{short[:characters]}…", dir="auto")


def readable(text: str) -> str:
    """Text on one line; controls and characters that change the direction of what follows by their code point."""
    shown = "".join(f"⟨U+{ord(c):04X}⟩" if _hidden(c) else c for c in text)
    return " ".join(shown.split())


def _hidden(character: str) -> bool:
    if character.isspace():
        return False
    turns = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return turns or unicodedata.category(character) in ("Cc", "Cs")
