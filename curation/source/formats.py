"""The text formats, and plain text: a stream of chunks to blocks of records, columnar.

Each format is a function (chunks, Reading) -> Iterator[Records]. What a record is: jsonl, lines: a line that is not
blank; json: an element of the one array or object; csv, tsv: a record of RFC 4180 behind the header; text: the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from curation.kernels import kernel
from curation.source.csv_records import csv, tsv
from curation.source.json_records import json_value, jsonl
from curation.source.json_scan import copy_values
from curation.source.reader import Reading
from curation.source.records import (
    CODES,
    Mask,
    Records,
    binary_array,
    held_records,
    unheld_record,
    without_too_large,
)
from curation.source.spans import Block, Bytes, Lines, Positions, Unheld, cut


@kernel
def _edges(buffer: Any, begins: Any, ends: Any, first: Any, last: Any) -> Any:
    for k in range(len(begins)):
        i, stop = begins[k], ends[k]
        while i < stop and (buffer[i] == 32 or 9 <= buffer[i] <= 13):
            i += 1
        first[k] = i
        last[k] = stop - 1 if stop > begins[k] and buffer[stop - 1] == 13 else stop


def _line_edges(buffer: Bytes, begins: Positions, ends: Positions) -> tuple[Positions, Positions]:
    """The first byte of each line that is not white space, and its end without a carriage return, int64 (R,) each."""
    first, last = np.empty(len(begins), np.int64), np.empty(len(begins), np.int64)
    _edges(buffer, begins, ends, first, last)
    return first, last


def lines(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """One document a line; lines of white space are none."""
    for block in cut(chunks, Lines(), reading.reader.max_document):
        if isinstance(block, Unheld):
            yield unheld_record(block)
            continue
        ends, too_large = without_too_large(block, reading.reader.max_document)
        first, last = _line_edges(block.buffer, block.begins, ends)
        kept = (first < last) | too_large
        reading.counts.blank += int((~kept).sum())
        if kept.any():
            kept_block = Block(block.buffer, block.begins[kept], block.ends[kept])
            yield _plain_records(kept_block, block.begins[kept], last[kept], too_large[kept])


def _plain_records(block: Block, starts: Positions, stops: Positions, too_large: Mask) -> Records:
    stops = np.where(too_large, starts, stops)
    offsets, values, lone = copy_values(block.buffer, starts, stops, np.zeros(len(starts), bool))
    reasons = np.where(too_large, CODES["too_large"], 0).astype(np.uint8)
    return held_records(block, binary_array(offsets, values, ~too_large), reasons, lone, {})


class _Nowhere:
    """No record ends inside a file."""

    def separators(self, chunk: Bytes) -> Positions:
        return np.empty(0, np.int64)

    def at_end(self) -> str:
        return "record"


def whole_file(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """One document: the file. An empty file is a document with an empty text."""
    made = False
    for block in cut(chunks, _Nowhere(), reading.reader.max_document):
        made = True
        if isinstance(block, Unheld):
            yield unheld_record(block)
        else:
            yield _plain_records(block, block.begins, block.ends, np.zeros(1, bool))
    if not made:
        empty = np.zeros(1, np.int64)
        yield _plain_records(Block(np.empty(0, np.uint8), empty, empty), empty, empty, np.zeros(1, bool))


FORMATS: Mapping[str, Callable[[Iterator[bytes], Reading], Iterator[Records]]] = {
    "jsonl": jsonl,
    "json": json_value,
    "csv": csv,
    "tsv": tsv,
    "lines": lines,
    "text": whole_file,
}
"""Text formats by name; Parquet, which is columns already, is read in `parquet_records.py`."""
