"""Publishing a version of an index: its files first, its manifest last, by one link that cannot replace another."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curation.dedup.index import (
    PublishedIndexError,
    Version,
    file_checksum,
    manifest_hash,
    numbers_of,
    read_manifest,
)


def publish(
    folder: Path, name: str, parent: Version | None, entries: Path, removed: Path | None, facts: Mapping[str, Any]
) -> Version:
    """Publish files as the next version of an index, or return the version that was made by the same before.

    Args:
        folder: where indexes lie.
        name: of the index: letters, digits, `_`, `-` and `.`.
        parent: version that it continues, which must be the newest; None starts a chain.
        entries: Parquet file of documents added; linked or copied, never changed.
        removed: Parquet file of documents taken out, or None.
        facts: for the manifest: config, documents, sources, `made_by` (what names the work that made the files).

    Raises:
        PublishedIndexError: where `parent` is not the newest version.
    """
    check_publishable(folder, name, parent, facts["made_by"])
    (folder / name).mkdir(parents=True, exist_ok=True)
    with _only_publisher(folder / name):
        version = check_publishable(folder, name, parent, facts["made_by"])
        return version or _publish(folder, name, parent, entries, removed, facts)


def check_publishable(folder: Path, name: str, parent: Version | None, made_by: str) -> Version | None:
    """The version that the same work has published already, or None where `parent` is the newest.

    Raises:
        PublishedIndexError: where another version follows `parent`.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise PublishedIndexError(f"index name {name!r}: only letters, digits, _, - and . can stand in it")
    after = 0 if parent is None else parent.number
    numbers = numbers_of(folder, name)
    for number in numbers:
        version = read_manifest(folder, name, number)
        if number == after + 1 and version.manifest["made_by"] == made_by:
            return version
    if numbers and numbers[-1] != after:
        newest = f"{name}@{numbers[-1]}"
        what = "continues nothing" if parent is None else f"continues {parent.label}"
        raise PublishedIndexError(
            f"index {newest} is there and was made from something else; what {what} cannot follow it. "
            f"Match against it to publish the next version (index: {{against: [{newest}], publish: {name}}}), "
            "or publish under another name"
        )
    return None


def _publish(
    folder: Path, name: str, parent: Version | None, entries: Path, removed: Path | None, facts: Mapping[str, Any]
) -> Version:
    number = 1 if parent is None else parent.number + 1
    path = folder / name / f"{number:06d}.json"
    for leftover in path.parent.glob(f"{number:06d}-*"):  # of a publishing that was killed before its manifest
        leftover.unlink()
    files = {"entries": _placed(entries, path, ".parquet")}
    if removed is not None:
        files["removed"] = _placed(removed, path, ".removed.parquet")
    manifest = {
        **facts,
        "name": name,
        "version": number,
        "parent": None if parent is None else parent.label,
        "parent_hash": None if parent is None else parent.hash,
        "bytes": sum(file["bytes"] for file in files.values()),
        "files": files,
    }
    manifest["hash"] = manifest_hash(manifest)
    temporary = path.with_name(f"{number:06d}-{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)  # fails where a manifest is there: a version is never changed
    except FileExistsError:
        raise PublishedIndexError(f"{path} was published meanwhile; run the same command again") from None
    finally:
        temporary.unlink()
    return Version(name, number, path, manifest)


def _placed(file: Path, manifest: Path, suffix: str) -> dict[str, Any]:
    """Put a file beside the manifest under a name of its content: a link, or a copy onto another disk."""
    checksum = file_checksum(file)
    place = manifest.with_name(f"{manifest.stem}-{checksum[:12]}{suffix}")
    try:
        os.link(file, place)
    except OSError:
        temporary = place.with_name(f"{place.name}.tmp")
        shutil.copyfile(file, temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(place)
    place.chmod(0o444)
    return {"path": place.name, "bytes": place.stat().st_size, "checksum": checksum}


@contextlib.contextmanager
def _only_publisher(folder: Path) -> Iterator[None]:
    """Be the only process that publishes into an index; waits for another one."""
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
