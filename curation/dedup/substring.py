"""Substring dedup: spans of n or more words (or characters) that stand earlier in the corpus go.

ExactSubstr's spans (Lee et al. 2022, arXiv:2107.06499) with a stated policy of which copy stays: the first in order
of preference and then canonical order. A unit is removed where it lies in a window of n units that stands earlier, in
another document or in its own. So every removed unit has a kept copy: that of its first window, or of that one's.

Three steps as for paragraphs: `units` for each shard, `find` over all of them, `edit` for each shard.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup.fold import unicode_version
from curation.dedup.minhash import SignatureError
from curation.dedup.paragraph import flat_lists, read_lists
from curation.dedup.units import cut_units, unit_hashes
from curation.dedup.windows import find_repeats, spans_of

VERSION = 1
METADATA_KEY = b"gristmill.substrings"
LEAST_MEMORY = 64 << 20
_BYTES_PER_UNIT = 16  # on disk while spans are found: its hash, and where its window stands first
_BYTES_PER_DOCUMENT = 24
_SPANS = pa.schema(
    [
        ("spans", pa.large_list(pa.int32())),
        ("duplicate_source", pa.string()),
        ("duplicate_shard", pa.string()),
        ("duplicate_row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class SubstringOptions:
    """What counts as a repeated span.

    Args:
        size: units of the shortest span (Lee et al.: 50 tokens).
        unit: "words" (with what follows them) or "characters".
        normalize: "raw" (white space does not count), "words", "numbers" or "base"; characters only raw.
        min_words: a document that loses a span and keeps fewer words loses these too.
    """

    size: int = 50
    unit: str = "words"
    normalize: str = "raw"
    min_words: int = 0

    def __post_init__(self) -> None:
        if self.unit not in ("words", "characters") or self.normalize not in ("raw", "words", "numbers", "base"):
            raise SignatureError(f"unit {self.unit!r} with normalize {self.normalize!r} is unknown for substrings")
        if self.unit == "characters" and self.normalize != "raw":
            raise SignatureError(
                f"normalize is {self.normalize!r}; spans of characters are compared raw, words may be folded"
            )
        if self.size < 2:
            raise SignatureError(f"a span of {self.size} {self.unit}; it needs 2 or more")


class SubstringInput(NamedTuple):
    """One shard's units; rows whose `alive` (bool by row) is false take no part and keep their text.

    Shards of a smaller `preference` come first, then those of a smaller source and shard. `rows` is a Parquet file
    whose column `row` has the rows' numbers, where some of the shard were not read.
    """

    source: str
    shard: str
    units: str
    alive: np.ndarray | None = None
    preference: int = 0
    rows: str | None = None


def units(text: pa.Array, options: SubstringOptions) -> pa.RecordBatch:
    """Hashes of a text array's units, row-aligned: column `units`, a large_list of uint64 (null without text)."""
    found, ends = unit_hashes(text, options.unit, options.normalize)
    absent = np.asarray(text.is_null().to_numpy(zero_copy_only=False))
    starts = pa.array(np.concatenate([[0], ends]).astype(np.int64), mask=np.concatenate([absent, [False]]))
    lists = pa.LargeListArray.from_arrays(starts, pa.array(found))
    metadata = {METADATA_KEY: json.dumps(_described(options)).encode()}
    return pa.RecordBatch.from_arrays([lists], schema=pa.schema([pa.field("units", lists.type)], metadata=metadata))


def _described(options: SubstringOptions) -> dict[str, object]:
    kept = {name: dataclasses.asdict(options)[name] for name in ("unit", "normalize")}
    return {**kept, "version": VERSION, "unicode": unicode_version()}


def find(
    given: Sequence[SubstringInput],
    options: SubstringOptions,
    output_paths: Sequence[str],
    memory: int,
    *,
    scratch: str | None = None,
) -> dict[str, int]:
    """Find the spans to remove, over all shards, and write one row-aligned file for each.

    Memory: `memory` for the tables (less of it means more passes over the units, which lie on disk) and 24 bytes a
    document; more than half of it for these is refused. Disk: 16 bytes a unit.

    Args:
        given: unit files in any order.
        options: those the units were made with.
        output_paths: Parquet file to write for each input: `spans` (units of the row from, to, from, to …; null where
            there is none) and the document that has the first copy of the longest one.
        memory: bytes to stay within.
        scratch: folder for temporary files.

    Returns:
        Counts of units, repeated units, spans and passes.

    Raises:
        SignatureError: for broken files, other options, too little memory or disk.
    """
    if memory < LEAST_MEMORY:
        raise SignatureError(
            f"substring dedup needs {LEAST_MEMORY / 2**20:.0f} MiB or more; memory is {memory / 2**20:.0f} MiB; "
            "raise execution.memory"
        )
    order = sorted(range(len(given)), key=lambda i: (given[i].preference, given[i].source, given[i].shard))
    checked = [_checked_units(one.units, options) for one in given]
    total, documents = sum(count for count, _ in checked), sum(rows for _, rows in checked)
    if 2 * documents * _BYTES_PER_DOCUMENT > memory:
        needed = 2 * documents * _BYTES_PER_DOCUMENT / 2**30
        raise SignatureError(
            f"{documents:,} documents x {_BYTES_PER_DOCUMENT} bytes are more than half of the memory of "
            f"{memory / 2**30:.3g} GiB; raise execution.memory by {needed - memory / 2**30:.3g} GiB"
        )
    with tempfile.TemporaryDirectory(prefix="substrings-", suffix=".tmp", dir=scratch) as name:
        folder = Path(name)
        _check_disk(total, folder)
        corpus = _gather(given, order, options.size, folder)
        passes = 0
        if len(corpus.units):
            passes = find_repeats(corpus.units, corpus.ends, options.size, memory, corpus.origin)
        removed, spans = _write_spans(given, order, output_paths, corpus, options.size)
    return {"units": total, "units_removed": removed, "spans": spans, "passes": passes}


def _check_disk(total: int, folder: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, total * _BYTES_PER_UNIT
    if needed > free:
        raise SignatureError(
            f"substring dedup of {total:,} units needs {needed / 2**30:.3g} GiB below {folder.parent} while it works, "
            f"and {free / 2**30:.3g} GiB are free; make room or set execution.workdir to a larger disk"
        )


class _Corpus(NamedTuple):
    """Documents that have a window, in order: their units, where each one's end, whose they are, first copies.

    `row` is the place among the rows that were read, `number` the row's number in its shard.
    """

    units: np.ndarray
    ends: np.ndarray
    input: np.ndarray
    row: np.ndarray
    number: np.ndarray
    origin: np.ndarray


def _gather(given: Sequence[SubstringInput], order: Sequence[int], size: int, folder: Path) -> _Corpus:
    """Write the units of all documents with a window to one file."""
    lengths, inputs, rows, numbers = [], [], [], []
    with (folder / "units").open("wb") as file:
        for place in order:
            row, path = 0, given[place].rows
            number = None if path is None else pq.read_table(path, columns=["row"]).column(0).to_numpy()
            for lists in read_lists(given[place].units, "units"):
                values, ends = flat_lists(lists)
                counts = np.diff(ends, prepend=0)
                used = counts >= size
                alive = given[place].alive
                if alive is not None:
                    used &= alive[row : row + len(lists)]
                values[np.repeat(used, counts)].tofile(file)
                chosen = np.flatnonzero(used)
                lengths.append(counts[chosen])
                inputs.append(np.full(len(chosen), place, np.int32))
                rows.append((chosen + row).astype(np.int32))
                numbers.append(chosen + row if number is None else number[chosen + row])
                row += len(lists)
    ends = np.cumsum(np.concatenate(lengths)) if lengths else np.zeros(0, np.int64)
    total = int(ends[-1]) if len(ends) else 0
    # A sparse file: what no window is a copy of takes no room on most file systems.
    origin = np.memmap(folder / "origin", np.int64, "w+", shape=max(total, 1))
    found = np.memmap(folder / "units", np.uint64, "r") if total else np.zeros(0, np.uint64)
    none = np.zeros(0, np.int32)
    whose, places, numbered = (np.concatenate(parts) if parts else none for parts in (inputs, rows, numbers))
    return _Corpus(found, ends, whose, places, numbered, origin)


def _write_spans(
    given: Sequence[SubstringInput], order: Sequence[int], output_paths: Sequence[str], corpus: _Corpus, size: int
) -> tuple[int, int]:
    """Write every input's spans; returns how many units they have, and how many there are."""
    removed = spans = document = 0
    sources, shards = (np.array([getattr(one, name) for one in given], object) for name in ("source", "shard"))
    for place in order:
        first = 0
        with pq.ParquetWriter(output_paths[place], _SPANS, compression="zstd", write_page_checksum=True) as writer:
            for lists in read_lists(given[place].units, "units"):
                last = document
                while last < len(corpus.ends) and corpus.input[last] == place and corpus.row[last] < first + len(lists):
                    last += 1
                found, found_ends, copy_of = spans_of(corpus.ends, document, last, size, corpus.origin)
                at = corpus.row[document:last] - first
                kept_in = np.searchsorted(corpus.ends, copy_of, side="right")
                told = np.flatnonzero(copy_of >= 0)
                who = kept_in[told]
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [
                            _span_lists(len(lists), at, found, found_ends),
                            _scattered(len(lists), at[told], pa.array(sources[corpus.input[who]], pa.string())),
                            _scattered(len(lists), at[told], pa.array(shards[corpus.input[who]], pa.string())),
                            _scattered(len(lists), at[told], pa.array(corpus.number[who], pa.int64())),
                        ],
                        schema=_SPANS,
                    )
                )
                removed += int((found[:, 1] - found[:, 0]).sum())
                spans += len(found)
                document = last
                first += len(lists)
    return removed, spans


def _span_lists(num_rows: int, at: np.ndarray, found: np.ndarray, found_ends: np.ndarray) -> pa.Array:
    counts = np.zeros(num_rows, np.int64)
    counts[at] = 2 * np.diff(found_ends, prepend=0)
    starts = pa.array(np.concatenate([[0], np.cumsum(counts)]), mask=np.append(counts == 0, False))
    return pa.LargeListArray.from_arrays(starts, pa.array(found.reshape(-1).astype(np.int32)))


def _scattered(num_rows: int, at: np.ndarray, values: pa.Array) -> pa.Array:
    index, absent = np.zeros(num_rows, np.int64), np.ones(num_rows, bool)
    index[at], absent[at] = np.arange(len(at)), False
    return values.take(pa.array(index, mask=absent))


def _checked_units(path: str, options: SubstringOptions) -> tuple[int, int]:
    """Number of units (an upper bound: empty rows count one) and rows of a file, after a look at its options."""
    try:
        with pq.ParquetFile(path) as file:
            stored = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
            total = sum(file.metadata.row_group(number).column(0).num_values for number in range(file.num_row_groups))
            rows = file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise SignatureError(
            f"unit file {path} is corrupt or cut off ({error}); delete it and run the step again"
        ) from error
    if stored != _described(options):
        raise SignatureError(
            f"{path} was made with other options\n  it has: {json.dumps(stored, sort_keys=True)}\n"
            f"  wanted: {json.dumps(_described(options), sort_keys=True)}\nmake its units again"
        )
    return int(total), int(rows)


def edit(text: pa.Array, spans: pa.Array, options: SubstringOptions) -> pa.RecordBatch:
    """Texts without the spans.

    Args:
        text: large_string array that the units were made of.
        spans: large_list of int32 for each row, as `find` writes it; null removes nothing.
        options: those the spans were found with.

    Returns:
        Columns `text` (null where it was; "" where less than `min_words` words are left of a text that lost a span)
        and `characters_removed` (int64).

    Raises:
        SignatureError: where a row's spans lie beyond its units.
    """
    values, ends = flat_lists(spans)
    edited, removed, wrong = cut_units(text, values.reshape(-1, 2), ends // 2, options.unit, options.normalize)
    if wrong >= 0:
        raise SignatureError(f"row {wrong}: its spans lie beyond its text; find the spans of this text again")
    if options.min_words:
        edited, removed = _without_leftovers(edited, removed, options.min_words)
    return pa.record_batch([edited, pa.array(removed)], ["text", "characters_removed"])


def _without_leftovers(edited: pa.Array, removed: np.ndarray, min_words: int) -> tuple[pa.Array, np.ndarray]:
    """Empty what is left of a text that lost a span and has too few words now."""
    import pyarrow.compute as pc

    _, ends = unit_hashes(edited, "words", "raw")
    short = (removed > 0) & (np.diff(ends, prepend=0) < min_words)
    left = np.asarray(pc.fill_null(pc.utf8_length(edited), 0).to_numpy(zero_copy_only=False))
    both = np.where(short, removed + left, removed)
    mask = pa.array(short & np.asarray(edited.is_valid().to_numpy(zero_copy_only=False)))
    return pc.if_else(mask, pa.scalar("", pa.large_string()), edited), both
