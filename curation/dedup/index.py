"""A named index: a chain of immutable versions of signatures with document ids, to dedup a new dump against.

    FOLDER/NAME/000003.json            manifest of the third version: config, counts, sources, parent, checksums
    FOLDER/NAME/000003-<hash>.parquet  documents it adds: ids, exact hash, band hashes, sketch
    FOLDER/NAME/000003-<hash>.removed.parquet   documents of earlier versions that it takes out

`name@3` means what versions 1 to 3 added, without what they removed. The manifest is the last file to be put in place,
by a link that fails where one exists, so a version is there whole or not at all and is never changed; it holds the hash
of its parent, so a version names the content of its whole chain. Nothing in it tells of time or machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash

from curation.dedup.inputs import MatchInput
from curation.dedup.minhash import Options, described
from curation.fields import did_you_mean

_LABEL = re.compile(r"([\w.-]+)@([1-9]\d*)")
_ALWAYS_COUNTS = ("normalize", "unit", "version", "unicode")  # what exact hashes of normalised text depend on


class PublishedIndexError(ValueError):
    """An index that does not exist, is broken, would be overwritten, or was made with another config."""


@dataclass(frozen=True)
class Version:
    """One version of an index: its name, number and manifest, and where that lies."""

    name: str
    number: int
    path: Path
    manifest: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"

    @property
    def hash(self) -> str:
        """Hash of the manifest, and through its parent's hash and checksums of all that the version holds."""
        return str(self.manifest["hash"])

    @property
    def entries(self) -> Path:
        """Documents that the version adds."""
        return self.path.with_name(self.manifest["files"]["entries"]["path"])

    @property
    def removed(self) -> Path | None:
        """Documents of earlier versions that it takes out, or None."""
        file = self.manifest["files"].get("removed")
        return None if file is None else self.path.with_name(file["path"])


def parse_label(label: str) -> tuple[str, int]:
    """Name and number of `name@3`.

    Raises:
        PublishedIndexError: for anything else.
    """
    match = _LABEL.fullmatch(label)
    if match is None:
        raise PublishedIndexError(f"{label!r} is no version of an index; write NAME@NUMBER, such as web@3")
    return match[1], int(match[2])


def names_in(folder: Path) -> dict[str, list[int]]:
    """Indexes below a folder, with the numbers of their versions."""
    found = {path.name: numbers_of(folder, path.name) for path in sorted(folder.glob("*")) if path.is_dir()}
    return {name: numbers for name, numbers in found.items() if numbers}


def numbers_of(folder: Path, name: str) -> list[int]:
    """Numbers of the published versions of an index, rising."""
    return sorted(int(path.stem) for path in (folder / name).glob("*.json") if path.stem.isdecimal())


def open_chain(folders: Sequence[Path], label: str) -> list[Version]:
    """Versions 1 to `name@number`, each checked to continue the one before. Reads manifests only.

    Args:
        folders: where indexes lie; a name is looked up in the first folder that has it.
        label: `name@3`.

    Raises:
        PublishedIndexError: for a version that is not there, or a manifest that is broken or does not fit its parent.
    """
    name, number = parse_label(label)
    folder = next((folder for folder in folders if numbers_of(folder, name)), None)
    if folder is None:
        known = [f"{found}@{numbers[-1]}" for one in folders for found, numbers in names_in(one).items()]
        hint = did_you_mean(label, known) if known else "; there is none"
        raise PublishedIndexError(f"no index {name!r} in {' or '.join(map(str, folders))}{hint}")
    there = numbers_of(folder, name)
    if number not in there:
        raise PublishedIndexError(
            f"index {label} does not exist; {name} has version{'s' * (len(there) > 1)} {', '.join(map(str, there))}"
        )
    chain: list[Version] = []
    for version_number in range(1, number + 1):
        version = read_manifest(folder, name, version_number)
        parent = chain[-1].hash if chain else None
        if version.manifest["parent_hash"] != parent:
            raise PublishedIndexError(
                f"{version.path}: its parent's hash is {version.manifest['parent_hash']}, and that of "
                f"{chain[-1].label if chain else 'none'} is {parent}; the chain is broken: restore the files"
            )
        chain.append(version)
    return chain


def read_manifest(folder: Path, name: str, number: int) -> Version:
    """One version, its manifest checked against its own hash."""
    path = folder / name / f"{number:06d}.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        sound = manifest["hash"] == manifest_hash(manifest)
    except FileNotFoundError:
        raise PublishedIndexError(f"{path} is missing, and later versions of {name} build on it; restore it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PublishedIndexError(f"{path}: the manifest of {name}@{number} cannot be read ({error})") from error
    if not sound:
        raise PublishedIndexError(f"{path}: the manifest of {name}@{number} was changed; its hash does not fit it")
    return Version(name, number, path, manifest)


def check_files(chain: Sequence[Version]) -> None:
    """Compare every file of a chain with its manifest's size and checksum; reads all of it.

    Raises:
        PublishedIndexError: for a file that is missing, cut off or changed.
    """
    for version in chain:
        for told in version.manifest["files"].values():
            path = version.path.with_name(told["path"])
            if not path.exists():
                raise PublishedIndexError(f"{path} of index {version.label} is missing; restore it")
            size = path.stat().st_size
            if size != told["bytes"]:
                raise PublishedIndexError(
                    f"{path} of index {version.label} is cut off or changed: it has {size:,} bytes, and "
                    f"{told['bytes']:,} were published"
                )
            if file_checksum(path) != told["checksum"]:
                raise PublishedIndexError(
                    f"{path} of index {version.label} is corrupt: its checksum is not the published one"
                )


def config_of(options: Options, exact_column: str = "exact") -> dict[str, Any]:
    """What an index must have in common with who reads it, as its manifest says it."""
    if exact_column == "content_id":
        return {"compares": "raw text"}
    return {"compares": "shingles" if options.bands else "normalised text", **described(options)}


def check_config(version: Version, wanted: Mapping[str, Any]) -> None:
    """Refuse an index of another config. Every index has the hash of the raw text; one of shingles also that of the
    normalised text, so exact steps read it too.

    Raises:
        PublishedIndexError: with both configs, and what differs.
    """
    stored = version.manifest["config"]
    if wanted["compares"] == "raw text":
        return
    names: Sequence[str] = sorted(stored.keys() | wanted.keys())
    if wanted["compares"] == "normalised text" and stored["compares"] != "raw text":
        names = _ALWAYS_COUNTS
    differing = [name for name in names if stored.get(name) != wanted.get(name)]
    if differing:
        raise PublishedIndexError(
            f"index {version.label} was made with another config ({', '.join(differing)} differ)\n"
            f"  it has: {json.dumps(stored, sort_keys=True)}\n  wanted: {json.dumps(wanted, sort_keys=True)}\n"
            "use its config in this step, or publish a new index with this one"
        )


def chain_inputs(chain: Sequence[Version], left_out: Mapping[int, np.ndarray] | None = None) -> list[MatchInput]:
    """Inputs of a matching, one a version, without what later versions removed.

    Args:
        chain: of `open_chain`.
        left_out: version number -> bool by entry, entries to leave out besides.

    Memory: one byte a document of versions of which anything is left out.
    """
    alive = alive_masks(chain)
    for number, mask in (left_out or {}).items():
        alive[number] = ~mask if number not in alive else alive[number] & ~mask
    return [
        MatchInput(one.label, one.entries.name, str(one.entries), alive=alive.get(one.number), fixed=True)
        for one in chain
    ]


def alive_masks(chain: Sequence[Version]) -> dict[int, np.ndarray]:
    """Version number -> which of its entries no later version removed (bool); versions that are whole are left out."""
    rows = {one.number: pq.read_metadata(one.entries).num_rows for one in chain}
    masks: dict[int, np.ndarray] = {}
    for version in chain:
        if version.removed is None:
            continue
        table = pq.read_table(version.removed, columns=["version", "entry"])
        numbers, entries = table.column("version").to_numpy(), table.column("entry").to_numpy()
        for number in np.unique(numbers).tolist():
            mask = masks.setdefault(number, np.ones(rows[number], bool))
            mask[entries[numbers == number]] = False
    return masks


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Hash of a manifest without its own hash: 32 hexadecimal digits."""
    told = {name: value for name, value in manifest.items() if name != "hash"}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def file_checksum(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in pieces of 4 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
