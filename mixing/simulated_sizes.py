"""Sizes of domains from a table, for plans without data: what would three trillion tokens of these draw?

The table is CSV with the header `domain,tokens` and, where known, `documents`, `bytes` and `characters`, a line for
each domain; amounts may be written as in recipes (`470B`), and lines that begin with # are left out.
"""

from __future__ import annotations

import csv
from pathlib import Path

from curation.amounts import amount
from mixing.domain_stage import Domain

_COLUMNS = ("domain", "tokens", "documents", "bytes", "characters")


class SizesError(ValueError):
    """A table of sizes that cannot be read."""


def read_sizes(path: Path) -> list[Domain]:
    """Domains of a table of sizes; they have no index, so a plan can be made of them and nothing trained.

    Raises:
        SizesError: with file and line.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(line for line in stream if not line.startswith("#")))
    if not lines or lines[0][:2] != ["domain", "tokens"] or not set(lines[0]) <= set(_COLUMNS):
        raise SizesError(f"{path}: expected the header domain,tokens[,documents,bytes,characters]")
    found: dict[str, Domain] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]) or not line[0] or line[0] in found:
            raise SizesError(f"{path}: line {number}: expected a new domain and {len(lines[0]) - 1} amounts: {line}")
        try:
            sizes = {name: _number(cell) for name, cell in zip(lines[0][1:], line[1:])}
        except ValueError as error:
            raise SizesError(f"{path}: line {number}: {error}") from None
        found[line[0]] = _domain(line[0], sizes)
    if not found:
        raise SizesError(f"{path}: no domain; give each a line such as web_de/head,470B")
    return list(found.values())


def _number(cell: str) -> int:
    written = cell.strip()
    return int(written) if written.isdigit() else amount(written, ("tokens",)).number


def _domain(name: str, sizes: dict[str, int]) -> Domain:
    return Domain(
        name=name,
        training="",
        held_out=None,
        num_tokens=sizes["tokens"],
        num_documents=sizes.get("documents", 0),
        size_bytes=sizes.get("bytes", 0),
        num_characters=sizes.get("characters", 0),
        held_out_tokens=0,
        held_out_bytes=0,
    )
