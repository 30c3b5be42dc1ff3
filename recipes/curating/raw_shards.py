"""Raw shards of a source: where they lie, what they are called, which of their columns split domains."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.artifacts import key_of
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.run import Run


def refuse_other_names(source: str, paths: Sequence[str]) -> None:
    """Refuse files whose names are not UTF-8: shards stand by name in the ledger."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise RunError(f"source {source}: file name {os.fsencode(path)!r} is not UTF-8; rename it") from None


def raw_patterns(run: Run, source: Any) -> list[str]:
    """Where a source's shards lie; text of the catalogue that needs no network is made on the way."""
    raw = Path(run.recipe.execution.raw)
    patterns = []
    for path in source.path:
        if path.startswith("catalogue:"):
            from recipes.texts.fetch import materialise

            patterns.append(str(materialise(path.removeprefix("catalogue:"), raw).relative_to(raw)))
        else:
            patterns.append(path)
    return patterns


def split_by_brought(recipe: Any) -> dict[str, str]:
    """Splits of domains by a column that sources bring, since no step makes it."""
    made = {"language"} | {f"{s.prefix}bucket" for s in recipe.steps if s.kind == "perplexity"}
    return {pattern: column for pattern, column in recipe.domains.split.items() if column not in made}


def task_name(path: str, content: str) -> str:
    """Name of a shard's task: its path as one word, and a hash of path and content.

    The word alone does not tell `a/b.jsonl` from `a_b.jsonl`, and copies of a file have the same content.
    """
    word = re.sub(r"[^A-Za-z0-9._-]+", "_", path)[-120:]
    return f"{word}-{key_of(path, content)[:12]}"
