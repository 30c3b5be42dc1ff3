"""What `gristmill index` answers and does: list, tell, check, find, take out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.dedup.index import PublishedIndexError, Version, check_files, names_in, open_chain
from curation.dedup.index_queries import find_ids, find_text, write_removal
from curation.dedup.publish import check_publishable, publish
from recipes.artifacts import key_of
from recipes.curating.indexes import chain_of, home_of, index_folders
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.run import Run

_IDENTITY = re.compile(r"[0-9a-f]{8,32}")
_WHOLE_ID = 32


def list_indexes(run: Run) -> list[dict[str, Any]]:
    """Manifests of all versions of all indexes that the run can see, by name and number.

    Raises:
        RunError: for the first one that is broken.
    """
    found = []
    try:
        for folder in index_folders(run.store):
            for name, numbers in names_in(folder).items():
                found += [told(version) for version in open_chain([folder], f"{name}@{numbers[-1]}")]
    except PublishedIndexError as error:
        raise RunError(str(error)) from None
    return found


def told(version: Version) -> dict[str, Any]:
    """A version's manifest with where it lies."""
    return {**version.manifest, "path": str(version.path)}


def check(run: Run, label: str) -> list[Version]:
    """Read all files of an index's version and compare them with their checksums.

    Raises:
        RunError: for the first file that is missing, cut off or changed.
    """
    chain = chain_of(run.store, label)
    try:
        check_files(chain)
    except PublishedIndexError as error:
        raise RunError(str(error)) from None
    return chain


def find(run: Run, label: str, wanted: str) -> list[dict[str, Any]]:
    """Documents of an index that a content id (or its beginning), a file of text, or a text names."""
    chain = chain_of(run.store, label)
    if _IDENTITY.fullmatch(wanted.lower()):
        return find_ids(chain, wanted.lower())
    path = Path(wanted)
    is_file = len(wanted) < 1000 and path.is_file()
    return find_text(chain, path.read_text(encoding="utf-8") if is_file else wanted)


def take_out(run: Run, label: str, wanted: Sequence[str], sources: Sequence[str]) -> Version:
    """Publish the next version of an index without some documents.

    Args:
        run: whose work directory has the index.
        label: its newest version.
        wanted: content ids, or files with one in each line.
        sources: patterns of sources that are taken out whole.

    Raises:
        RunError: for ids and patterns of sources that the index does not have, a version that is not the newest, or
            one of a read-only store.
    """
    chain = chain_of(run.store, label)
    ids = _read_ids(wanted)
    if not ids and not sources:
        raise RunError(f"no content id in {', '.join(wanted)}; nothing was published")
    made_by = f"removal-{key_of(chain[-1].hash, sorted(one.hex() for one in ids), sorted(sources))}"
    try:
        home = home_of(run.store, chain[-1], "take documents out with a recipe whose work directory it is")
        before = check_publishable(home, chain[-1].name, chain[-1], made_by)
        if before is not None:
            return before
        with tempfile.TemporaryDirectory(prefix="removal-", suffix=".tmp", dir=run.store.workdir) as folder:
            entries, removed = Path(folder) / "entries", Path(folder) / "removed"
            number, missing, idle = write_removal(chain, ids, sources, entries, removed)
            _refuse_missing(chain, missing, idle)
            facts = {
                "config": dict(chain[-1].manifest["config"]), "matching": None, "sources": {}, "made_by": made_by,
                "documents": int(chain[-1].manifest["documents"]) - number, "added": 0, "removed": number,
            }  # fmt: skip
            return publish(home, chain[-1].name, chain[-1], entries, removed, facts)
    except PublishedIndexError as error:
        raise RunError(str(error)) from None


def _refuse_missing(chain: Sequence[Version], ids: Collection[bytes], patterns: Collection[str]) -> None:
    """Refuse ids and patterns that mean no document of an index, so that a slip of the pen does not pass for done."""
    label = chain[-1].label
    if ids:
        named = ", ".join(sorted(one.hex() for one in ids)[:5])
        raise RunError(
            f"index {label} has no document {named}; nothing was published. "
            f"`gristmill index RECIPE {label} --find ID` looks one up"
        )
    if patterns:
        there = sorted({name for version in chain for name in version.manifest["sources"]})
        raise RunError(
            f"index {label} has no document of a source {' or '.join(sorted(patterns))}; nothing was published. "
            f"Sources that were added to it: {', '.join(there)}"
        )


def _read_ids(wanted: Sequence[str]) -> set[bytes]:
    found = set()
    for one in wanted:
        lines = Path(one).read_text(encoding="utf-8").split() if Path(one).is_file() else [one]
        for word in lines:
            if len(word) != _WHOLE_ID or not _IDENTITY.fullmatch(word.lower()):
                raise RunError(f"{word!r} is neither a content id (32 hexadecimal digits) nor a file of them")
            found.add(bytes.fromhex(word))
    return found
