"""Paragraph dedup: which lines of which documents are copies, and the texts without them.

Two published semantics. **Keep-none** (CCNet): a line whose normalised form stands in two or more documents of a group
of shards is removed from all of them, also the first; one repeated within a single document keeps its first copy.
**Keep-first** (Dolma): the first copy in canonical order stays, the others go; found with a Bloom filter, so that a
line seen for the first time goes too with the stated probability; paragraphs under `min_words` words are never touched.
Blank lines are no copies of each other.

Three steps: `hashes` for each shard, `find` over all of them, `paragraph_edit.edit` for each shard.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dedup.bloom import bits_and_probes, seen_before
from curation.dedup.fold import unicode_version
from curation.dedup.minhash import SignatureError
from curation.dedup.paragraph_hash import line_hashes
from curation.dedup.spill import HashFile
from curation.kernels import kernel

VERSION = 2
METADATA_KEY = b"gristmill.paragraphs"
_VALUES_AT_ONCE = 1 << 22  # hashes read at once: 32 MiB
_PART_RECORDS = 1 << 22  # a filter of 16 MiB at one in a million; fixed, because the filter's size decides its errors


@dataclass(frozen=True)
class ParagraphOptions:
    """What counts as a copy of a paragraph, and which copy stays.

    Args:
        keep: "first" or "none".
        normalize: "raw" (the bytes, Dolma) or "ccnet" (64 bits of SHA-1 over CCNet's normalised line).
        min_words: paragraphs with fewer words are exempt (LLäMmlein: 3).
        false_positives: of the Bloom filter of keep-first; null compares all 64 bits instead.
        group: keep-none looks for copies within so many shards, in canonical order (CCNet: 50); null is all.
    """

    keep: str = "first"
    normalize: str = "raw"
    min_words: int = 3
    false_positives: float | None = 1e-6
    group: int | None = None

    def __post_init__(self) -> None:
        if self.keep not in ("first", "none"):
            raise SignatureError(f"keep {self.keep!r} is unknown for paragraphs; write first or none")
        if self.normalize not in ("raw", "ccnet"):
            raise SignatureError(f"normalize {self.normalize!r} is unknown for paragraphs; write raw or ccnet")
        if self.false_positives is not None and not 1e-12 <= self.false_positives < 1:
            raise SignatureError(f"false_positives is {self.false_positives}; needs 1e-12 to below 1, or null")
        if self.min_words < 0 or (self.group is not None and self.group < 1):
            raise SignatureError(f"min_words {self.min_words} and group {self.group}: need at least 0 and 1")


DOLMA = ParagraphOptions()
CCNET = ParagraphOptions(keep="none", normalize="ccnet", min_words=0, group=50)


class ParagraphInput(NamedTuple):
    """One shard's paragraph hashes; rows whose `alive` (bool by row) is false take no part and keep their text.

    Shards of a smaller `preference` come first, then those of a smaller source and shard.
    """

    source: str
    shard: str
    hashes: str
    alive: np.ndarray | None = None
    preference: int = 0


def hashes(text: pa.Array, options: ParagraphOptions) -> pa.RecordBatch:
    """Paragraph hashes of a text array, row-aligned.

    Returns:
        Column `paragraphs`, a large_list of uint64 for each row (null without text), 0 for exempt paragraphs; the
        options stand in the schema's metadata. Memory: 8 bytes a paragraph.
    """
    found, ends = line_hashes(text, options.normalize, options.min_words)
    absent = np.asarray(text.is_null().to_numpy(zero_copy_only=False))
    starts = pa.array(np.concatenate([[0], ends]).astype(np.int64), mask=np.concatenate([absent, [False]]))
    lists = pa.LargeListArray.from_arrays(starts, pa.array(found))
    metadata = {METADATA_KEY: json.dumps(_described(options)).encode()}
    return pa.RecordBatch.from_arrays(
        [lists], schema=pa.schema([pa.field("paragraphs", lists.type)], metadata=metadata)
    )


def _described(options: ParagraphOptions) -> dict[str, object]:
    kept = {name: dataclasses.asdict(options)[name] for name in ("normalize", "min_words")}
    return {**kept, "version": VERSION, "unicode": unicode_version()}


def find(
    given: Sequence[ParagraphInput],
    options: ParagraphOptions,
    output_paths: Sequence[str],
    memory: int,
    *,
    scratch: str | None = None,
) -> dict[str, int]:
    """Mark the paragraphs to remove, over all shards, and write one row-aligned file for each.

    Args:
        given: hash files in any order; copies are looked for in canonical order (source, shard, row).
        options: those the hashes were made with.
        output_paths: Parquet file to write for each input: column `remove`, a large_list of bool as long as the row's
            paragraphs.
        memory: bytes to stay within; one part of the hashes takes up to 400 MiB.
        scratch: folder for temporary files; 17 bytes a paragraph.

    Returns:
        Counts of paragraphs, exempt and removed ones.

    Raises:
        SignatureError: for broken files, other options, or too little memory.
    """
    if memory < 100 * _PART_RECORDS // 4:
        raise SignatureError(
            f"paragraph dedup needs {25 * _PART_RECORDS / 2**20:.0f} MiB or more; memory is {memory / 2**20:.0f} MiB"
        )
    order = sorted(range(len(given)), key=lambda i: (given[i].preference, given[i].source, given[i].shard))
    counts = [_checked_paragraphs(one.hashes, options) for one in given]
    group = options.group if options.keep == "none" and options.group else max(len(order), 1)
    totals = {"paragraphs": 0, "exempt": 0, "removed": 0}
    for first in range(0, len(order), group):
        chosen = order[first : first + group]
        with tempfile.TemporaryDirectory(prefix="paragraphs-", suffix=".tmp", dir=scratch) as folder:
            flags = np.memmap(Path(folder) / "flags", bool, "w+", shape=max(sum(counts[place] for place in chosen), 1))
            records = HashFile(Path(folder), "lines", _num_parts(counts, chosen), np.dtype(np.int64))
            paragraphs, exempt = _gather(given, chosen, records, flags)
            for part in range(records.parts):
                _mark_part(records, part, options, flags)
            totals["removed"] += _write_flags(given, chosen, output_paths, flags)
        totals["paragraphs"] += paragraphs
        totals["exempt"] += exempt
    return totals


def _num_parts(counts: Sequence[int], chosen: Sequence[int]) -> int:
    parts = 1
    while sum(counts[place] for place in chosen) > parts * _PART_RECORDS:
        parts *= 2
    return parts


def _gather(
    given: Sequence[ParagraphInput], chosen: Sequence[int], records: HashFile, flags: np.memmap
) -> tuple[int, int]:
    """Spill each document's distinct hashes with their position; flags later copies within a document at once."""
    position = exempt = 0
    for place in chosen:
        row = 0
        for lists in read_lists(given[place].hashes, "paragraphs"):
            values, ends = flat_lists(lists)
            alive = np.ones(len(lists), bool)
            mask = given[place].alive
            if mask is not None:
                alive = mask[row : row + len(lists)]
            first, repeated = np.zeros(len(values), bool), np.zeros(len(values), bool)
            _mark_repeats(values, ends, alive, first, repeated)
            exempt += int(np.count_nonzero(values == 0))
            flags[position : position + len(values)] = repeated
            numbers = np.flatnonzero(first)
            records.add(values[numbers], numbers + position)
            position += len(values)
            row += len(lists)
    return position, exempt


@kernel
def _mark_repeats(
    values: np.ndarray, ends: np.ndarray, alive: np.ndarray, first: np.ndarray, repeated: np.ndarray
) -> None:
    """First and later copies of each hash within its document, by an open-addressed table."""
    longest, start = 0, 0
    for row in range(ends.shape[0]):
        longest = max(longest, ends[row] - start)
        start = ends[row]
    size = 16
    while size < 2 * longest:
        size *= 2
    table, owner = np.zeros(size, np.uint64), np.full(size, -1, np.int64)
    start = 0
    for row in range(ends.shape[0]):
        room = 16
        while room < 2 * (ends[row] - start):
            room *= 2
        for index in range(start, ends[row]):
            if not alive[row] or values[index] == 0:
                continue
            slot = np.int64(values[index] & np.uint64(room - 1))
            while owner[slot] == row and table[slot] != values[index]:
                slot = (slot + 1) & (room - 1)
            if owner[slot] == row:
                repeated[index] = True
            else:
                owner[slot], table[slot], first[index] = row, values[index], True
        start = ends[row]


def _mark_part(records: HashFile, part: int, options: ParagraphOptions, flags: np.memmap) -> None:
    """Flag the copies among one part's hashes.

    Parts have as many distinct hashes as `_PART_RECORDS` and a few by chance. One with more records has lines that
    stand in very many documents; it is read in pieces, in the canonical order in which the records were added.
    """
    most = _PART_RECORDS + _PART_RECORDS // 16
    if options.keep == "first" and options.false_positives is not None:
        bits, probes = bits_and_probes(min(records.size(part), most), options.false_positives)
        field = np.zeros(bits // 64, np.uint64)
        for keys, positions in records.pieces(part, most):
            found = np.zeros(len(keys), bool)
            seen_before(keys, field, probes, found)
            flags[positions[found]] = True
        return
    if records.size(part) > most:
        _mark_in_pieces(records, part, most, options.keep, flags)
        return
    runs = records.runs(part)
    marked = np.ones(len(runs.members), bool)
    if options.keep == "first":
        marked[runs.starts[:-1]] = False
    flags[runs.members[marked]] = True


def _mark_in_pieces(records: HashFile, part: int, most: int, keep: str, flags: np.memmap) -> None:
    """Flag the copies of a part that is read some records at a time. Memory: a piece and 32 bytes a distinct hash."""
    seen = repeated = np.zeros(0, np.uint64)
    for keys, positions in records.pieces(part, most):
        distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
        known = np.isin(distinct, seen, assume_unique=True)
        if keep == "first":
            again = np.ones(len(keys), bool)
            again[first[~known]] = False
            flags[positions[again]] = True
        else:
            repeated = np.union1d(repeated, distinct[known | (counts > 1)])
        seen = np.union1d(seen, distinct)
    if keep == "none":
        for keys, positions in records.pieces(part, most):
            flags[positions[np.isin(keys, repeated)]] = True


def _write_flags(
    given: Sequence[ParagraphInput], chosen: Sequence[int], output_paths: Sequence[str], flags: np.memmap
) -> int:
    position = removed = 0
    schema = pa.schema([pa.field("remove", pa.large_list(pa.bool_()))])
    for place in chosen:
        with pq.ParquetWriter(output_paths[place], schema, compression="zstd", write_page_checksum=True) as writer:
            for lists in read_lists(given[place].hashes, "paragraphs"):
                values, ends = flat_lists(lists)
                marked = np.asarray(flags[position : position + len(values)])
                starts = pa.array(np.concatenate([[0], ends]), mask=np.append(lists.is_null().to_numpy(False), False))
                writer.write_batch(
                    pa.record_batch([pa.LargeListArray.from_arrays(starts, pa.array(marked))], schema=schema)
                )
                removed += int(np.count_nonzero(marked))
                position += len(values)
    return removed


def read_lists(path: str, column: str) -> Iterator[pa.LargeListArray]:
    """A list column of a file, some rows of a row group at a time: about `_VALUES_AT_ONCE` values.

    Raises:
        SignatureError: for a file that cannot be read, with its name.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            place = file.schema_arrow.get_field_index(column)
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                rows = max(1, group.num_rows * _VALUES_AT_ONCE // max(group.column(place).num_values, 1))
                for batch in file.iter_batches(min(rows, 1 << 16), row_groups=[number], columns=[column]):
                    yield batch.column(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise SignatureError(
            f"file of hashes {path} is corrupt or cut off ({error}); delete it and run the step again"
        ) from error


def flat_lists(lists: pa.LargeListArray) -> tuple[np.ndarray, np.ndarray]:
    """Values one after another and where each row's end; null rows are empty."""
    sizes = np.asarray(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    values = lists.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)), np.cumsum(sizes).astype(np.int64)


def _checked_paragraphs(path: str, options: ParagraphOptions) -> int:
    """Number of paragraphs in a file (an upper bound: empty rows count one), after a look at its options."""
    try:
        with pq.ParquetFile(path) as file:
            stored = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
            total = sum(file.metadata.row_group(number).column(0).num_values for number in range(file.num_row_groups))
    except (pa.ArrowInvalid, OSError) as error:
        raise SignatureError(
            f"paragraph file {path} is corrupt or cut off ({error}); delete it and run the step again"
        ) from error
    if stored != _described(options):
        raise SignatureError(
            f"{path} was made with other options\n  it has: {json.dumps(stored, sort_keys=True)}\n"
            f"  wanted: {json.dumps(_described(options), sort_keys=True)}\nmake its paragraph hashes again"
        )
    return int(total)
