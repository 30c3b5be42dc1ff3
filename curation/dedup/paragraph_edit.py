"""Texts without the paragraphs (lines) that were marked as copies.

A blank line that a removal leaves first, last or beside another blank line goes with it; the others stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import load_line_fold
from curation.dedup.minhash import SignatureError
from curation.dedup.paragraph import flat_lists
from curation.dedup.paragraph_hash import is_blank
from curation.dedup.shingle import made_text, text_buffers
from curation.kernels import inline_kernel, kernel


def edit(text: pa.Array, remove: pa.Array) -> pa.RecordBatch:
    """Texts without the marked paragraphs.

    Args:
        text: large_string array, that the hashes were made of.
        remove: large_list of bool for each row, as `find` writes it.

    Returns:
        Columns `text` (the kept lines joined by newlines, without the blank ones that a removal leaves at an end or
        beside another; null where it was), `paragraphs` and `removed` (int32; marked ones), `removed_bytes` (int64)
        and `emptied` (bool: nothing is left of its paragraphs; CCNet drops these documents).

    Raises:
        SignatureError: where a text has another number of paragraphs than marks.
    """
    content, offsets, valid = text_buffers(text)
    marks, ends = flat_lists(remove)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    new_offsets, removed = np.zeros(len(text) + 1, np.int64), np.zeros(len(text), np.int32)
    wrong = _edit(content, offsets, valid, marks, ends, load_line_fold(), out, new_offsets, removed)
    if wrong >= 0:
        raise SignatureError(f"row {wrong}: its text has another number of paragraphs than marks; hash this text again")
    absent = ~valid
    sizes = np.diff(ends, prepend=0).astype(np.int32)
    lost = np.where(absent, 0, np.diff(offsets) - np.diff(new_offsets))
    emptied = (np.diff(new_offsets) == 0) & (sizes > 0)
    columns = [
        made_text(out, new_offsets, valid),
        *(pa.array(values, mask=absent) for values in (sizes, removed, lost, emptied)),
    ]
    return pa.record_batch(columns, ["text", "paragraphs", "removed", "removed_bytes", "emptied"])


@inline_kernel
def _copy(content: np.ndarray, start: Any, stop: Any, out: np.ndarray, filled: Any) -> Any:
    """Copy some bytes; returns where the next ones go."""
    out[filled : filled + stop - start] = content[start:stop]
    return filled + stop - start


@kernel
def _edit(  # noqa: C901, PLR0913
    content: np.ndarray,
    offsets: np.ndarray,
    valid: np.ndarray,
    marks: np.ndarray,
    ends: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
    new_offsets: np.ndarray,
    removed: np.ndarray,
) -> Any:
    """Copy kept lines; returns the first row whose lines and marks differ in number, or -1."""
    filled, number = 0, 0
    for row in range(ends.shape[0]):
        if not valid[row]:  # its bytes may still lie in the buffer
            number, new_offsets[row + 1] = ends[row], filled
            continue
        place, kept = offsets[row], 0
        marked = False
        for index in range(number, ends[row]):
            marked |= marks[index]
        if not marked:  # the usual case: counted and copied without a look for where lines end
            lines = np.int64(offsets[row + 1] > place)
            for byte in content[place : offsets[row + 1]]:
                lines += byte == 10
            if lines != ends[row] - number:
                return row
            filled = _copy(content, place, offsets[row + 1], out, filled)
            number, new_offsets[row + 1] = ends[row], filled
            continue
        gap, beside, text_end = False, True, filled  # a removal since the last kept line; a blank line or an end before
        while number < ends[row]:
            stop = place
            while stop < offsets[row + 1] and content[stop] != 10:
                stop += 1
            blank = is_blank(content, place, stop, table)
            if marks[number]:
                removed[row] += 1
                gap = True
            elif not (blank and gap and beside):
                if kept > 0:
                    out[filled] = 10
                    filled += 1
                filled = _copy(content, place, stop, out, filled)
                kept += 1
                gap, beside = False, blank
                if not blank:
                    text_end = filled
            number += 1
            place = stop + 1
            if place > offsets[row + 1] and number < ends[row]:
                return row
        if place < offsets[row + 1] or (place == offsets[row + 1] and offsets[row + 1] > offsets[row]):
            return row
        if gap:
            filled = text_end
        new_offsets[row + 1] = filled
    return -1
