"""The shards of a source: which files a path, folder or pattern names."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec
import xxhash

from curation.source.chunks import compression_of, open_bytes
from curation.source.where import SourceError

SUFFIXES = {
    "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "csv": "csv", "tsv": "tsv",
    "parquet": "parquet", "pq": "parquet", "txt": "text", "md": "text", "text": "text",
}  # fmt: skip
"""Formats told by suffix; a compression's suffix may follow, and `zip` may hold any text format."""


@dataclass(frozen=True, order=True)
class Shard:
    """One file of a source. `path` is below the root with forward slashes (a URL stays whole)."""

    path: str
    absolute: str
    size_bytes: int


def format_of(path: str) -> str | None:
    """The format that a path's suffix tells, None when it tells none (`zip` alone tells none)."""
    name = path.rpartition("/")[2].lower()
    if compression_of(name) or name.endswith(".zip"):
        name = name.rpartition(".")[0]
    return SUFFIXES.get(name.rpartition(".")[2]) if "." in name else None


def one_format(paths: Sequence[str]) -> str:
    """The format that the suffixes of some shards tell; a zip archive alone tells none.

    Raises:
        SourceError: where they tell none, or several: a README.md beside them would make texts of Parquet files.
    """
    by_kind: dict[str, list[str]] = {}
    for path in paths:
        if kind := format_of(path):
            by_kind.setdefault(kind, []).append(path)
    if not by_kind:
        raise SourceError(f"the suffix of {paths[0]} tells no format; say it with `format:`")
    if len(by_kind) > 1:
        told = ", ".join(f"{kind} ({len(found):,}, such as {found[0]})" for kind, found in sorted(by_kind.items()))
        often = max(sorted(by_kind), key=lambda kind: len(by_kind[kind]))
        words = by_kind[often][0].split(".")
        suffix = ".".join(words[-2:] if compression_of(by_kind[often][0]) else words[-1:])
        raise SourceError(
            f"its files are of several formats: {told}; name those that are meant, such as path: FOLDER/**/*.{suffix}, "
            "make a source of each, or say `format:`"
        )
    return next(iter(by_kind))


def list_shards(patterns: str | Sequence[str], root: str | Path, unopened: list[str] | None = None) -> list[Shard]:
    """The files that paths, folders or glob patterns name, sorted by path.

    Args:
        patterns: below the root, absolute, or URLs of any fsspec filesystem. A folder names all files in and below it
            whose suffix tells a format; `**` crosses folders.
        root: the folder that relative patterns start from.
        unopened: takes the paths of the files that folders hold besides, sorted.

    Raises:
        SourceError: if a pattern names no file, or a file is named twice.
    """
    found: dict[str, tuple[Shard, str]] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        shards, others = _matches(pattern, Path(root))
        if not shards:
            raise SourceError(
                f"no file matches {pattern!r} below {root}" + (f" (only {others[0]} …)" if others else "")
            )
        for shard in shards:
            if shard.path in found:
                raise SourceError(f"{shard.path} is named twice, by {found[shard.path][1]!r} and {pattern!r}; keep one")
            found[shard.path] = (shard, pattern)
        if unopened is not None:
            unopened.extend(others)
    if unopened is not None:
        unopened.sort()
    return sorted(shard for shard, _ in found.values())


def _matches(pattern: str, root: Path) -> tuple[list[Shard], list[str]]:
    if "://" in pattern:
        return _remote(pattern)
    start = Path(pattern) if Path(pattern).is_absolute() else Path(glob.escape(str(root))) / pattern
    plain = Path(pattern) if Path(pattern).is_absolute() else root / pattern
    if plain.is_dir():
        files = sorted(path for path in plain.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(plain)))
        told = [bool(format_of(path.name)) or path.suffix.lower() == ".zip" for path in files]
        others = [_relative(path, root) for path, is_told in zip(files, told) if not is_told]
        return [_local(path, root) for path, is_told in zip(files, told) if is_told], others
    names = [str(plain)] if plain.is_file() else glob.glob(str(start), recursive=True)  # noqa: PTH207 (`**` as shells read it)
    return [_local(path, root) for path in map(Path, sorted(names)) if path.is_file()], []


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".tmp"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _local(path: Path, root: Path) -> Shard:
    return Shard(_relative(path, root), str(path.absolute()), path.stat().st_size)


def _remote(pattern: str) -> tuple[list[Shard], list[str]]:
    filesystem, path = fsspec.core.url_to_fs(pattern)
    if filesystem.isdir(path):
        names = [name for name in filesystem.find(path) if format_of(name) or name.endswith(".zip")]
    else:
        names = (
            filesystem.glob(path) if any(mark in path for mark in "*?[") else [path] if filesystem.exists(path) else []
        )
    urls = [(filesystem.unstrip_protocol(name), filesystem.size(name)) for name in sorted(names)]
    return [Shard(url, url, int(size or 0)) for url, size in urls], []


def content_checksum(path: str) -> str:
    """xxh3_128 of a file's bytes as 32 hexadecimal digits, read in pieces of 1 MiB."""
    digest = xxhash.xxh3_128()
    with open_bytes(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
