"""Sizes of domains from a table, for plans without data: what would three trillion tokens of these draw?

The table is CSV with the header `domain,tokens` and, where known, `documents`, `bytes` and `characters`, a line for
each domain; amounts may be written as in recipes (`470B`, `4 GB` of bytes). Empty lines and lines that begin with # are
left out.
"""

from __future__ import annotations

import csv
from pathlib import Path

from curation.amounts import Unit, amount
from mixing.domain_stage import Domain

_COLUMNS = ("domain", "tokens", "documents", "bytes", "characters")


class SizesError(ValueError):
    """A table of sizes that cannot be read."""


def read_sizes(path: Path) -> list[Domain]:
    """Domains of a table of sizes; they have no index, so a plan can be made of them and nothing trained.

    Raises:
        SizesError: with file and line.
    """
    (first, header), *lines = _lines(path) or [(1, [])]
    if header[:2] != ["domain", "tokens"] or not set(header) <= set(_COLUMNS):
        raise SizesError(f"{path}: line {first}: expected the header domain,tokens[,documents,bytes,characters]")
    found: dict[str, Domain] = {}
    for number, line in lines:
        if len(line) != len(header) or not line[0] or line[0] in found:
            raise SizesError(f"{path}: line {number}: expected a new domain and {len(header) - 1} amounts: {line}")
        try:
            sizes = {name: _number(name, cell) for name, cell in zip(header[1:], line[1:])}
        except ValueError as error:
            raise SizesError(f"{path}: line {number}: {error}") from None
        found[line[0]] = _domain(line[0], sizes)
    if not found:
        raise SizesError(f"{path}: no domain; give each a line such as web_de/head,470B")
    return list(found.values())


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Cells of each line that says something, with its number in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader("\n" if line.startswith("#") else line for line in stream)
            return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except UnicodeDecodeError as error:
        raise SizesError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _number(column: str, cell: str) -> int:
    written = cell.strip()
    units: tuple[Unit, ...] = ("bytes", "tokens") if column == "bytes" else ("tokens",)
    return int(written) if written.isdigit() else amount(written, units).number


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
