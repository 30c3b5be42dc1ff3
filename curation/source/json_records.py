"""JSON shards to blocks of records: lines of objects, one array, one record, or one object of id -> text or record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.source.chunks import BrokenStream
from curation.source.json_grammar import ABSENT, FALSE, NULL, NUMBER, STRING, TRUE
from curation.source.json_scan import (
    BAD_JSON,
    BLANK,
    OBJECT_RECORD,
    OTHER_VALUE,
    copy_values,
    scan_records,
    scan_values,
    split_members,
)
from curation.source.reader import Reading
from curation.source.records import (
    CODES,
    Mask,
    Records,
    binary_array,
    held_records,
    numbers,
    unheld_record,
    without_too_large,
)
from curation.source.spans import Block, Bytes, JsonElements, Lines, Positions, Unheld, cut


def jsonl(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """One JSON object a line."""
    for block in cut(chunks, Lines(), reading.reader.max_document):
        if isinstance(block, Unheld):
            yield unheld_record(block)
            continue
        records = _json_objects(block, reading)
        if len(records):
            yield records


def json_value(chunks: Iterator[bytes], reading: Reading) -> Iterator[Records]:
    """One array of objects, one object that is a record, or one object of id -> text or id -> object.

    An object is a record where it has the column of the text with a string.
    """
    opening, rest = _opening_bracket(chunks)
    if opening not in (b"[", b"{"):
        raise BrokenStream("unreadable", f"the file begins with {opening!r}, neither an array nor an object")
    if opening == b"{":
        record, rest = _one_record(rest, reading)
        if record is not None:
            yield record
            return
    elements = JsonElements()
    for block in cut(rest, elements, reading.reader.max_document):
        if isinstance(block, Unheld):
            yield unheld_record(block)
            continue
        records = _json_objects(block, reading) if opening == b"[" else _json_members(block, reading)
        if len(records):
            yield records
    if elements.bytes_behind:
        raise BrokenStream("unreadable", "more than one JSON value in the file; is its format jsonl?")


def _opening_bracket(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    for chunk in chunks:
        stripped = chunk.lstrip(b" \t\r\n")
        if stripped:
            return stripped[:1], _chain(stripped[1:], chunks)
    return b"", chunks


def _chain(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from chunks


def _one_record(chunks: Iterator[bytes], reading: Reading) -> tuple[Records | None, Iterator[bytes]]:
    """The record that an object behind its bracket is, or None and all its chunks: too long, broken, or none.

    Memory: the file, as far as `max_document`.
    """
    held, size, end, elements = [b"{"], 1, 0, JsonElements()
    broken: list[BrokenStream] = []
    try:
        for chunk in chunks:
            separators = elements.separators(np.frombuffer(chunk, np.uint8))
            if not end and elements.at_end() == "nothing":
                end = size + int(separators[-1]) + 1
            held.append(chunk)
            size += len(chunk)
            if size > reading.reader.max_document:
                break
    except BrokenStream as error:
        broken.append(error)
    again = _again(held[1:], broken, chunks)
    if not end or broken or elements.bytes_behind or size > reading.reader.max_document:
        return None, again
    block = Block(np.frombuffer(b"".join(held), np.uint8), np.zeros(1, np.int64), np.full(1, end, np.int64))
    scan = _scan(block.buffer, block.begins, block.ends, reading)
    if scan.status[0] != OBJECT_RECORD or scan.kinds[scan.names.index(reading.text), 0] != STRING:
        return None, again
    return _scanned(block, scan, np.zeros(1, bool), reading), iter(())


def _again(held: list[bytes], broken: list[BrokenStream], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks that were read ahead, and what came behind them."""
    yield from held
    for error in broken:
        raise error
    yield from chunks


@dataclass
class _Scan:
    """What the scanner found in the spans of a block: its results, and the names in the order of their rows."""

    names: list[str]
    status: Bytes
    kinds: Bytes
    starts: Positions
    stops: Positions


def _scan(buffer: Bytes, begins: Positions, ends: Positions, reading: Reading) -> _Scan:
    names = sorted({reading.text, *(name for name, _ in reading.wanted())})
    return _Scan(names, *scan_records(buffer, begins, ends, names))


def _json_objects(block: Block, reading: Reading) -> Records:
    """Records of JSON objects given as spans."""
    ends, too_large = without_too_large(block, reading.reader.max_document)
    return _scanned(block, _scan(block.buffer, block.begins, ends, reading), too_large, reading)


def _json_members(block: Block, reading: Reading) -> Records:
    """Records of `"id": value` spans: a value that is a string is the text, an object is a record of its own."""
    ends, too_large = without_too_large(block, reading.reader.max_document)
    name_starts, name_stops, values = split_members(block.buffer, block.begins, ends)
    nameless = values < 0
    values = np.where(nameless, block.begins, values)  # scanned as they stand, blank spans stay blank
    scan = _scan(block.buffer, values, ends, reading)
    kinds, starts, stops = scan_values(block.buffer, values, ends)
    strings, text = kinds == STRING, scan.names.index(reading.text)
    scan.status[strings] = OBJECT_RECORD
    for found, value in ((scan.kinds, kinds), (scan.starts, starts), (scan.stops, stops)):
        found[text, strings] = value[strings]
    own = scan.names.index(reading.reader.column("id"))
    unnamed = (scan.kinds[own] == ABSENT) | (scan.kinds[own] == NULL)
    scan.kinds[own, unnamed] = STRING
    scan.starts[own, unnamed], scan.stops[own, unnamed] = name_starts[unnamed], name_stops[unnamed]
    scan.status[nameless & (scan.status != BLANK)] = BAD_JSON
    return _scanned(block, scan, too_large, reading)


def _scanned(block: Block, scan: _Scan, too_large: Mask, reading: Reading) -> Records:
    """Records of scanned spans; blank spans are left out and counted."""
    kept = (scan.status != BLANK) | too_large
    reading.counts.blank += int((~kept).sum())
    if not kept.all():
        block, too_large = Block(block.buffer, block.begins[kept], block.ends[kept]), too_large[kept]
        scan.status, scan.kinds = scan.status[kept], scan.kinds[:, kept]
        scan.starts, scan.stops = scan.starts[:, kept], scan.stops[:, kept]
    at = scan.names.index(reading.text)
    reasons = _json_reasons(scan.status, scan.kinds[at])
    reasons[too_large] = CODES["too_large"]
    scan.kinds[:, ~np.isin(reasons, [0, CODES["missing_text"], CODES["non_string_text"]])] = ABSENT
    texts, lone = _json_texts(block.buffer, scan.kinds[at], scan.starts[at], scan.stops[at])
    columns = {
        (name, kind): _json_column(block.buffer, scan.kinds[i], scan.starts[i], scan.stops[i], kind)
        for name, kind in reading.wanted()
        for i in (scan.names.index(name),)
    }
    return held_records(block, texts, reasons, lone, columns)


def _json_reasons(status: Bytes, text_kinds: Bytes) -> Bytes:
    reasons = np.zeros(len(status), np.uint8)
    reasons[(text_kinds == ABSENT) | (text_kinds == NULL)] = CODES["missing_text"]
    reasons[(text_kinds > STRING) & (text_kinds != NULL)] = CODES["non_string_text"]
    reasons[status == BAD_JSON] = CODES["bad_json"]
    reasons[status == OTHER_VALUE] = CODES["not_a_record"]
    return reasons


def _json_texts(buffer: Bytes, kinds: Bytes, starts: Positions, stops: Positions) -> tuple[pa.Array, Positions]:
    """Strings as large_binary, null where the value is none; and lone surrogates replaced in each."""
    is_string = kinds == STRING
    offsets, values, lone = copy_values(buffer, starts, np.where(is_string, stops, starts), is_string)
    return binary_array(offsets, values, is_string), lone


def _json_column(buffer: Bytes, kinds: Bytes, starts: Positions, stops: Positions, kind: str) -> pa.Array:
    """Values of one kind; `text` takes any value (as written where it is no string), the others are null on misfits."""
    if kind == "bool":
        return pa.array(kinds == TRUE, mask=(kinds != TRUE) & (kinds != FALSE))
    valid = kinds == NUMBER if kind == "number" else (kinds != ABSENT) & (kinds != NULL)
    offsets, values, _ = copy_values(buffer, starts, np.where(valid, stops, starts), kinds == STRING)
    array = binary_array(offsets, values, valid)
    return numbers(array.cast(pa.large_string())) if kind == "number" else array
