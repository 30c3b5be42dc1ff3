"""A named index: an immutable chain of versions of signatures with document ids, to dedup a new dump against.

`FOLDER/NAME/000003.parquet` holds the signatures of the documents that the third run kept and where each came from;
`000003.json` its options, counts, checksum and the version before it. `name@3` means versions 1 to 3 together. Matching
against an index never drops what is in it: a document of the new dump that is similar to one of them is a duplicate of
it, and the layer names that one's source, shard and row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.dedup.inputs import Inputs, MatchInput, band_names
from curation.dedup.minhash import METADATA_KEY, Options, described


class PublishedIndexError(ValueError):
    """An index that does not exist, is broken, would be overwritten, or was made with other options."""


@dataclass(frozen=True)
class Version:
    """One version of an index: its name, number, files and manifest."""

    name: str
    number: int
    path: Path
    manifest: dict[str, Any]

    @property
    def label(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"


def open_index(folder: str, label: str, options: Options) -> list[MatchInput]:
    """Inputs of all versions up to `name@number`, checked.

    Args:
        folder: where indexes lie.
        label: `name@3`.
        options: signature options of the run that wants it.

    Raises:
        PublishedIndexError: for a version that is missing or broken, a broken chain, or other options (both are shown).
    """
    inputs = []
    for version in _chain(Path(folder), *_parse(label)):
        stored, wanted = version.manifest["options"], described(options)
        if stored != wanted:
            differing = [name for name in sorted(stored.keys() | wanted.keys()) if stored.get(name) != wanted.get(name)]
            raise PublishedIndexError(
                f"index {version.label} was made with other options ({', '.join(differing)} differ)\n"
                f"  it has: {json.dumps(stored, sort_keys=True)}\n  wanted: {json.dumps(wanted, sort_keys=True)}\n"
                "use its options in this step, or publish a new index with these"
            )
        if _checksum(version.path) != version.manifest["checksum"]:
            raise PublishedIndexError(
                f"{version.path} of index {version.label} is corrupt: its checksum is not the published one"
            )
        inputs.append(MatchInput(version.label, version.path.name, str(version.path), fixed=True))
    return inputs


def publish(
    folder: str,
    name: str,
    given: Sequence[MatchInput],
    layers: Sequence[str],
    options: Options,
    *,
    previous: str | None = None,
    suffix: str = "",
) -> str:
    """Write the kept documents' signatures as the next version of an index.

    Args:
        folder: where indexes lie.
        name: of the index: letters, digits, `_`, `-` and `.`.
        given: the inputs of the matching, without `fixed` ones.
        layers: the layer that matching wrote for each.
        options: of the signatures.
        previous: version that the documents were matched against, `name@2`; it must be the newest. Null starts a chain.
        suffix: of the layers' columns.

    Returns:
        The new version, `name@3`. Memory: one row batch.

    Raises:
        PublishedIndexError: where the version exists already, or `previous` is not the newest one.
    """
    number = _next_number(Path(folder), name, previous)
    path = Path(folder) / name / f"{number:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.with_suffix(".json").exists():
        raise PublishedIndexError(
            f"index {name}@{number} exists already; versions are never rewritten: match against it and publish the next"
        )
    temporary = path.with_suffix(".tmp")
    documents = 0
    with pq.ParquetWriter(temporary, _schema(options), compression="zstd", write_page_checksum=True) as writer:
        for batch in _kept_rows(given, layers, options, suffix):
            documents += batch.num_rows
            writer.write_batch(batch)
    manifest = {
        "name": name,
        "version": number,
        "previous": previous,
        "previous_checksum": _chain(Path(folder), name, number - 1)[-1].manifest["checksum"] if previous else None,
        "options": described(options),
        "documents": documents,
        "checksum": _checksum(temporary),
    }
    temporary.rename(path)
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return f"{name}@{number}"


def _schema(options: Options) -> pa.Schema:
    fields = [pa.field("source", pa.string()), pa.field("shard", pa.string()), pa.field("row", pa.int64())]
    fields += [
        pa.field("content_id", pa.binary(16)),
        pa.field("exact", pa.binary(16)),
        pa.field("num_shingles", pa.int32()),
    ]
    fields += [pa.field(name, pa.uint64()) for name in band_names(options)]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(described(options)).encode()})


def _kept_rows(
    given: Sequence[MatchInput], layers: Sequence[str], options: Options, suffix: str
) -> Iterator[pa.RecordBatch]:
    inputs = Inputs(given, options, "exact")
    names = ["exact", "num_shingles", *band_names(options)]
    with_content = inputs.has("content_id")
    for number, one in enumerate(inputs.inputs):
        start = int(inputs.offsets[number])
        drop = pq.read_table(layers[inputs.places[number]], columns=[f"drop{suffix}"]).column(0).to_numpy()
        alive = inputs.alive(number)
        for document, batch in inputs.rows(number, names):
            here = slice(document - start, document - start + batch.num_rows)
            kept = (drop[here] == 0) & np.asarray(batch.column("exact").is_valid().to_numpy(zero_copy_only=False))
            kept = kept if alive is None else kept & alive[here]
            rows = np.flatnonzero(kept)
            taken = batch.take(pa.array(rows))
            content = (
                inputs.values("content_id", document + rows).combine_chunks()
                if with_content and len(rows)
                else taken.column("exact")
            )
            where = [pa.array([one.source] * len(rows), pa.string()), pa.array([one.shard] * len(rows), pa.string())]
            numbers = pa.array(rows + here.start, pa.int64())
            yield pa.RecordBatch.from_arrays([*where, numbers, content, *taken.columns], schema=_schema(options))


def _parse(label: str) -> tuple[str, int]:
    match = re.fullmatch(r"([\w.-]+)@([1-9]\d*)", label)
    if match is None:
        raise PublishedIndexError(f"{label!r} is no version of an index; write NAME@NUMBER, such as web@3")
    return match[1], int(match[2])


def _chain(folder: Path, name: str, number: int) -> list[Version]:
    """Versions 1 to `number`, each checked to continue the one before."""
    chain: list[Version] = []
    for version_number in range(1, number + 1):
        path = folder / name / f"{version_number:06d}.parquet"
        try:
            manifest = json.loads(path.with_suffix(".json").read_text())
        except FileNotFoundError:
            there = sorted(int(found.stem) for found in (folder / name).glob("*.json"))
            raise PublishedIndexError(
                f"index {name}@{version_number} does not exist in {folder}; versions there: {there or 'none'}"
            ) from None
        before = chain[-1].manifest["checksum"] if chain else None
        if manifest["previous_checksum"] != before or not path.exists():
            raise PublishedIndexError(
                f"index {name}@{version_number} does not continue {name}@{version_number - 1}: its chain is broken"
            )
        chain.append(Version(name, version_number, path, manifest))
    return chain


def _next_number(folder: Path, name: str, previous: str | None) -> int:
    if not re.fullmatch(r"[\w.-]+", name):
        raise PublishedIndexError(f"index name {name!r}: only letters, digits, _, - and . can stand in it")
    newest = max((int(found.stem) for found in (folder / name).glob("*.json")), default=0)
    if previous is None:
        if newest:
            raise PublishedIndexError(
                f"index {name}@{newest} exists; match against it (index.against: [{name}@{newest}]) to publish the next"
            )
        return 1
    previous_name, number = _parse(previous)
    if previous_name != name or number != newest:
        raise PublishedIndexError(f"a version of {name} must follow its newest, {name}@{newest}, not {previous}")
    return newest + 1


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
