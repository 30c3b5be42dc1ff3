"""Sources of ready token shards, looked at before anything runs: their files, and the columns beside the tokens."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curation.config import COLUMN_FORMATS
from curation.fields import did_you_mean
from curation.source import SourceError, list_shards
from curation.source.shards import Shard
from mixing.litdata_chunks import INDEX
from mixing.shards import TokenShardError
from mixing.token_rows import TOKENS
from mixing.token_source import SUFFIXES, columns_of, files_in
from recipes.errors import RunError
from recipes.schema.names import split_signal

if TYPE_CHECKING:
    from recipes.schema.recipe import Recipe

_SORTABLE = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def token_files(recipe: Recipe, name: str) -> list[Shard]:
    """The files of a source of ready tokens: those it names, and those of the folders it names.

    Raises:
        RunError: if there is none, or a folder is not what the format says.
    """
    source, root = recipe.sources[name], Path(recipe.execution.raw)
    kind = str(source.format)
    try:
        found = list_shards([one for path in source.path for one in _expanded(kind, path, root)], root)
    except (SourceError, TokenShardError) as error:
        told = (
            f"; name a folder, or files such as tokens/*{SUFFIXES[kind][0]}" if "no file matches" in str(error) else ""
        )
        raise RunError(f"source {name}: {error}{told}") from None
    return found


def _expanded(kind: str, path: str, root: Path) -> list[str]:
    """A path as it is, or the files of the folders that it names."""
    if "://" in path:
        return [path]
    plain, pattern = root / path, str(Path(glob.escape(str(root))) / path)
    named = [plain] if plain.exists() else [Path(one) for one in sorted(glob.glob(pattern))]  # noqa: PTH207 (`**` as shells read it)
    if kind == "litdata":  # a set is its folder, whichever of its files is named
        named = sorted({one if one.is_dir() else one.parent for one in named})
        named = [one for one in named if one == plain or (one / INDEX).exists()]
    found = [str(file) for one in named for file in (files_in(kind, one) if one.is_dir() else [one])]
    return found or [path]


def token_columns(recipe: Recipe, name: str) -> dict[str, pa.DataType]:
    """Columns beside the tokens of a source, as its first file has them; none where its format has none.

    Raises:
        RunError: if its files cannot be read.
    """
    source = recipe.sources[name]
    if source.format not in COLUMN_FORMATS:
        return {}
    first = token_files(recipe, name)[0]
    try:
        return columns_of(str(source.format), first.absolute, source.fields.get("tokens", TOKENS))
    except TokenShardError as error:
        raise RunError(f"source {name}: {error}") from None


def sortable_columns(recipe: Recipe, name: str) -> list[str]:
    """Columns of numbers beside the tokens of a source."""
    return [
        column for column, kind in token_columns(recipe, name).items() if any(is_kind(kind) for is_kind in _SORTABLE)
    ]


def check_split(recipe: Recipe, name: str) -> None:
    """Refuse to split a source of ready tokens by a column that it does not have."""
    column = split_signal(recipe, name)
    known = () if column is None else token_columns(recipe, name)
    if column is not None and column not in known:
        raise RunError(
            f"{recipe.path}: domains.split: source {name} has no column {column!r} beside its tokens"
            f"{did_you_mean(column, known)}"
        )
