"""The overlap between sources and indexes as a stage: one table of counts, and examples with the text they share."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from curation.dedup.index import chain_inputs, check_config, check_files, config_of, open_chain
from curation.dedup.inputs import MatchInput
from curation.dedup.overlap import CompareOptions, Overlap, Pair, find_overlap
from curation.stage import Counts, Output
from curation.stages.dedup import kept_mask, match_input, texts_at
from curation.stages.inputs import GlobalInputs

TABLE = ".overlap.json"
_EXCERPT = 200  # characters of common text that are shown
_SHARED_WORDS = 5  # of a piece that two texts share
_UNIT = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]|\w+")  # a letter of a script without spaces, or a word
_SCANNED = 200_000  # characters of each text that are searched for what they share


@dataclass(frozen=True)
class OverlapOptions:
    """What is compared: sources, then index versions, in the order they are shown."""

    collections: tuple[str, ...]
    compare: CompareOptions


def make_overlap(inputs: GlobalInputs, options: OverlapOptions, output: Output) -> Counts:
    """Write the table of overlap between the run's sources and index versions. Memory: as `find_overlap` says."""
    of_rows = options.compare.exact_column == "content_id"
    given = [
        match_input(inputs, shard, task, of_rows, kept_mask(shard)) for shard, task in zip(inputs.shards, inputs.tasks)
    ]
    collection_of = [options.collections.index(shard.source) for shard in inputs.shards]
    wanted = config_of(options.compare.signatures, options.compare.exact_column)
    for number, label in enumerate(options.collections):
        if "@" in label:
            chain = open_chain([inputs.artifact(f"index.{label}").parent.parent], label)
            check_config(chain[-1], wanted)
            check_files(chain)
            known = chain_inputs(chain)
            given += known
            collection_of += [number] * len(known)
    path = output.path(TABLE)
    with tempfile.TemporaryDirectory(prefix="overlap-", suffix=".tmp", dir=path.parent) as folder:
        found = find_overlap(
            given, collection_of, options.compare, Path(folder), inputs.memory,
            lambda place, rows: texts_at(inputs.shards[place], rows) if place < len(inputs.shards) else None,
        )  # fmt: skip
    table = _told(found, options) | {"pairs": _examples(found, options, given, inputs)}
    path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return {"rows": int(found.documents.sum())}


def _told(found: Overlap, options: OverlapOptions) -> dict[str, Any]:
    names = options.collections
    counts = {"exact": found.exact, "near": found.near, "characters": found.shared_characters}
    return {
        "similarity": options.compare.similarity if options.compare.signatures.bands else None,
        "config": config_of(options.compare.signatures, options.compare.exact_column),
        "collections": {
            name: {"documents": int(found.documents[place]), "characters": int(found.characters[place])}
            for place, name in enumerate(names)
        },
        "overlap": [
            {"of": of, "in": other, **{word: int(table[row, column]) for word, table in counts.items()}}
            for row, of in enumerate(names)
            for column, other in enumerate(names)
        ],
    }


# ---------------------------------------------------------------- examples


def _examples(
    found: Overlap, options: OverlapOptions, given: list[MatchInput], inputs: GlobalInputs
) -> list[dict[str, Any]]:
    texts = _texts([end for pairs in found.pairs.values() for pair in pairs for end in (pair.one, pair.other)], inputs)
    return [
        {
            "of": options.collections[row],
            "in": options.collections[column],
            "similarity": round(pair.similarity, 4),
            "documents": [_identity(end, given, inputs) for end in (pair.one, pair.other)],
            "common": _common(pair, texts),
        }
        for (row, column), pairs in sorted(found.pairs.items())
        for pair in pairs
    ]


def _texts(ends: list[tuple[int, int]], inputs: GlobalInputs) -> dict[tuple[int, int], str]:
    """Texts of some (input, place); each shard is read once."""
    wanted: dict[int, set[int]] = {}
    for number, place in ends:
        if number < len(inputs.shards):
            wanted.setdefault(number, set()).add(place)
    found: dict[tuple[int, int], str] = {}
    for number, places in wanted.items():
        ordered = np.array(sorted(places))
        texts = [text for part in texts_at(inputs.shards[number], ordered) for text in part.to_pylist()]
        found |= {(number, int(place)): text for place, text in zip(ordered, texts)}
    return found


def _identity(end: tuple[int, int], given: list[MatchInput], inputs: GlobalInputs) -> dict[str, Any]:
    """Who a document is: source, shard, row, content id, and its own id where its source is read here."""
    number, place = end
    one = given[number]
    if one.fixed:
        entry = _row(one.signatures, ["source", "shard", "row", "content_id"], place)
        return {**entry, "content_id": entry["content_id"].hex(), "index": one.source}
    shard = inputs.shards[number]
    entry = _row(shard.layers[0], ["row", "content_id", "origin_id"], place)
    own = {"source": shard.source, "shard": shard.shard}
    return {**own, **entry, "content_id": entry["content_id"].hex()}


def _row(path: str, columns: list[str], place: int) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if place < rows:
                found: dict[str, Any] = file.read_row_group(group, columns=columns).slice(place, 1).to_pylist()[0]
                return found
            place -= rows
    raise IndexError(path)


def _common(pair: Pair, texts: dict[tuple[int, int], str]) -> str | None:
    """The longest piece that two texts share, cut; of texts that are not both at hand, the beginning of one."""
    both = [texts[end] for end in (pair.one, pair.other) if end in texts]
    if not both:
        return None
    piece = both[0] if len(both) == 1 or pair.similarity == 1.0 else longest_common(both[0], both[1])
    words = " ".join(piece.split())
    return words[:_EXCERPT] + ("…" if len(words) > _EXCERPT else "")


def longest_common(one: str, other: str) -> str:
    """The longest run of words of `one` whose every five words in a row stand in `other` too; "" if there is none.

    Words are compared in lower case, letters of scripts without spaces one by one; 200,000 characters of each are read.
    """
    spans = [(found.start(), found.end()) for found in _UNIT.finditer(one[:_SCANNED])]
    words = [one[start:end].lower() for start, end in spans]
    others = [found[0].lower() for found in _UNIT.finditer(other[:_SCANNED])]
    size = min(_SHARED_WORDS, len(words), len(others))
    if not size:
        return ""
    known = {tuple(others[place : place + size]) for place in range(len(others) - size + 1)}
    best, begun = (0, 0), None
    for place in range(len(words) - size + 2):
        shared = place <= len(words) - size and tuple(words[place : place + size]) in known
        if shared and begun is None:
            begun = place
        elif not shared and begun is not None:
            best = max(best, (place - begun, -begun))
            begun = None
    length, start = best[0], -best[1]
    return one[spans[start][0] : spans[start + length + size - 2][1]] if length else ""
