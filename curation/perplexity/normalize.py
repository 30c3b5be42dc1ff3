# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Text as language models see it: CCNet's normaliser exactly, and one that keeps lines and accents.

`ccnet`: strip, lower case, no accents, every digit 0, the Unicode punctuation map, no control characters. The last
step also deletes newlines, so lines are glued and a document is one sentence; CCNet's published models and cutoffs
were made so. `lines`: the same but for accents, which are letters in many languages, and newlines, which end a
sentence.

Both are one table from character to replacement, made once from Python's own functions (`make_tables`) and shipped,
so that results do not depend on the Unicode version of the Python that runs.
Source: Wenzek et al. 2020 (arXiv:1911.00359), cc_net/text_normalizer.py; behaviour as measured, not its code.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from curation.kernels import kernel

TABLES = Path(__file__).parent / "characters.npz"

PUNCTUATION = dict(
    zip("，。、„”“«»１」「《》´∶：？！（）；–．～’━〈〉【】％►", ',.,""""""""""\'::?!();-.~\'-<>[]%-', strict=True)
) | {"—": " - ", "．": ". ", "…": "..."}
"""CCNet's map of punctuation to ASCII, with its own slip: a full-width digit one is a quote. (Digits have become 0
before the map is applied, so the slip is never seen.)"""

_CONTROLS = {*range(32), *range(127, 160)}
_DIGIT = re.compile(r"\d")
_KEEP, _DROP, _SPACE, _HARD = 0, 1, 2, 3
_PAGES = (sys.maxunicode + 1) >> 8


def ccnet_plain(text: str) -> str:
    """Normalise one text as CCNet does, with Python's own functions: what tables and rare characters rest on."""
    return _plain(text.strip(), accents=False, keep="")


def _plain(text: str, accents: bool, keep: str) -> str:
    text = text.lower()
    if not accents:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = "".join(PUNCTUATION.get(c, c) for c in _DIGIT.sub("0", text))
    return "".join(c for c in text if c in keep or ord(c) not in _CONTROLS)


def lines_plain(text: str) -> list[str]:
    """The lines of one text, normalised with accents kept and stripped; empty lines are left out."""
    lines = (_plain(line, accents=True, keep="").strip() for line in text.split("\n"))
    return [line for line in lines if line]


def make_tables(path: Path = TABLES) -> None:
    """Write the character tables for this Python's Unicode version.

    Per table: `pages` uint16 (page of 256 characters -> block), `blocks` uint32 (block, character): 0 for itself, else
    1 + place in `pool` · 8 + bytes; a hard character (whose replacement depends on its neighbours) has place 2^24 - 1.
    """
    arrays: dict[str, np.ndarray] = {"unicode": np.array(unicodedata.unidata_version)}
    for name, accents in (("ccnet", False), ("lines", True)):
        pool, places, blocks = bytearray(), {}, np.zeros((_PAGES, 256), np.uint32)
        for code in range(sys.maxunicode + 1):
            character = chr(code)
            if 0xD800 <= code < 0xE000:
                continue
            if _is_hard(character, accents):
                blocks[code >> 8, code & 255] = _HARD_ENTRY
                continue
            replacement = _plain(character, accents, keep="").encode()
            if replacement == character.encode():
                continue
            if replacement not in places:
                places[replacement] = len(pool)
                pool += replacement
            blocks[code >> 8, code & 255] = 1 + (places[replacement] << 4 | len(replacement))
        distinct, pages = np.unique(blocks, axis=0, return_inverse=True)
        arrays |= {f"{name}_pages": pages.reshape(-1).astype(np.uint16), f"{name}_blocks": distinct}
        arrays[f"{name}_pool"] = np.frombuffer(bytes(pool), np.uint8)
    spaces = [code for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    arrays["spaces"] = np.array(spaces, np.uint32)
    np.savez_compressed(path, **cast("dict[str, Any]", arrays))


_HARD_ENTRY = (1 << 32) - 1


def _is_hard(character: str, accents: bool) -> bool:
    """Characters that a table cannot replace one by one: final sigma, and marks that are reordered but not removed."""
    if character == "Σ":
        return True
    if accents:
        return False
    return any(
        unicodedata.combining(c) and unicodedata.category(c) != "Mn" for c in unicodedata.normalize("NFD", character)
    )


@functools.cache
def _table(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(TABLES) as tables:
        return (
            tables[f"{name}_pages"],
            np.ascontiguousarray(tables[f"{name}_blocks"]),
            tables[f"{name}_pool"],
            tables["spaces"],
        )


@kernel
def code_point(text, at):
    """The character at `at` and its bytes; the text is valid UTF-8."""
    byte = np.uint32(text[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return ((byte & np.uint32(0x1F)) << np.uint32(6)) | (text[at + 1] & np.uint32(0x3F)), 2
    if byte < 0xF0:
        return (
            ((byte & np.uint32(0x0F)) << np.uint32(12))
            | ((text[at + 1] & np.uint32(0x3F)) << np.uint32(6))
            | (text[at + 2] & np.uint32(0x3F))
        ), 3
    return (
        ((byte & np.uint32(0x07)) << np.uint32(18))
        | ((text[at + 1] & np.uint32(0x3F)) << np.uint32(12))
        | ((text[at + 2] & np.uint32(0x3F)) << np.uint32(6))
        | (text[at + 3] & np.uint32(0x3F))
    ), 4


@kernel
def _is_space(code, spaces):
    if code < 0x80:
        return code == 32 or 9 <= code <= 13 or 28 <= code <= 31
    for space in spaces:  # noqa: SIM110 - numba has no any() of a generator
        if space == code:
            return True
    return False


@kernel
def _strip(text, begin, end, spaces):
    """Bounds of text[begin:end] without whitespace at its ends."""
    while begin < end:
        code, size = code_point(text, begin)
        if not _is_space(code, spaces):
            break
        begin += size
    while end > begin:
        at = end - 1
        while (text[at] & 0xC0) == 0x80:
            at -= 1
        code, size = code_point(text, at)
        if not _is_space(code, spaces):
            break
        end = at
    return begin, end


@kernel
def _replace(text, begin, end, pages, blocks, pool, out, written):
    """Append the replacements of text[begin:end] to `out`; the new length, or -1 at a hard character."""
    at = begin
    ascii_block = blocks[pages[0]]
    while at < end:
        byte = text[at]
        if byte < 0x80:
            entry = ascii_block[byte]
            at += 1
            if entry == 0:
                out[written] = byte
                written += 1
                continue
            size = 1
        else:
            code, size = code_point(text, at)
            entry = blocks[pages[code >> 8], code & 255]
            at += size
        if entry == 0:
            for i in range(at - size, at):
                out[written] = text[i]
                written += 1
            continue
        if entry == 0xFFFFFFFF:
            return -1
        entry -= 1
        place = entry >> 4
        for i in range(place, place + (entry & 15)):
            out[written] = pool[i]
            written += 1
    return written


@kernel
def _normalize(  # noqa: PLR0913
    text, offsets, valid, by_line, pages, blocks, pool, spaces, out, bounds, line_offsets, hard
):
    """Normalise all texts; `bounds` are the ends of the lines in `out`, `line_offsets` the first line of each text.

    Without `by_line` a text is one line. A text with a hard character has no lines and is marked in `hard`.
    """
    written = 0
    lines = 0
    bounds[0] = 0
    for row in range(len(offsets) - 1):
        line_offsets[row] = lines
        if not valid[row]:
            continue
        first_line, first_byte = lines, written
        at, end = offsets[row], offsets[row + 1]
        while at < end or (at == end and not by_line):
            stop = end
            if by_line:
                stop = at
                while stop < end and text[stop] != 10:
                    stop += 1
            begin, last = _strip(text, at, stop, spaces)
            after = _replace(text, begin, last, pages, blocks, pool, out, written)
            if after < 0:
                lines, written = first_line, first_byte
                hard[row] = True
                break
            if by_line:
                # a control character at the end may have stood behind a space
                low, high = _strip(out, written, after, spaces)
                for i in range(high - low):
                    out[written + i] = out[low + i]
                after = written + high - low
            if after > written or not by_line:
                lines += 1
                bounds[lines] = after
                written = after
            at = stop + 1
    line_offsets[len(offsets) - 1] = lines
    return lines


class Lines:
    """Normalised lines (large strings without nulls) of texts; `offsets`, int64: each text's first line and the end."""

    def __init__(self, lines: pa.Array, offsets: np.ndarray):
        self.lines, self.offsets = lines, offsets


def _normalized(texts: pa.Array, table: str, by_line: bool) -> Lines:
    pages, blocks, pool, spaces = _table(table)
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.empty(0, np.uint8)
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    size = int(offsets[-1] - offsets[0]) if len(texts) else 0
    most_lines = len(texts) + (int(np.count_nonzero(text[offsets[0] : offsets[-1]] == 10)) if by_line else 0)
    out = np.empty(3 * size + 16, np.uint8)  # 3: a Hangul syllable becomes three jamo; pages never written cost nothing
    bounds = np.empty(most_lines + 1, np.int64)
    line_offsets = np.zeros(len(texts) + 1, np.int64)
    hard = np.zeros(len(texts), np.bool_)
    lines = _normalize(text, offsets, valid, by_line, pages, blocks, pool, spaces, out, bounds, line_offsets, hard)
    result = pa.LargeStringArray.from_buffers(lines, pa.py_buffer(bounds[: lines + 1]), pa.py_buffer(out))
    if hard.any():
        return _with_hard_texts(texts, result, line_offsets, hard, by_line)
    return Lines(result, line_offsets)


def _with_hard_texts(texts: pa.Array, lines: pa.Array, offsets: np.ndarray, hard: np.ndarray, by_line: bool) -> Lines:
    """Put the lines of hard texts, made by Python's functions, between the others."""
    parts, sizes, done = [], np.diff(offsets), 0
    for row in np.flatnonzero(hard).tolist():
        parts.append(lines.slice(done, int(offsets[row]) - done))
        text = texts[row].as_py()
        made = lines_plain(text) if by_line else [ccnet_plain(text)]
        parts.append(pa.array(made, pa.large_string()))
        sizes[row], done = len(made), int(offsets[row])
    parts.append(lines.slice(done))
    return Lines(pa.concat_arrays(parts), np.concatenate(([0], np.cumsum(sizes))))


def ccnet(texts: pa.Array) -> pa.Array:
    """Normalise texts exactly as CCNet does.

    Args:
        texts: large strings, nulls allowed.

    Returns:
        Large strings of the same length, null where the text is null.
    """
    texts = texts.cast(pa.large_string())
    result = _normalized(texts, "ccnet", by_line=False)
    if texts.null_count == 0:
        return result.lines
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    at = np.where(valid, result.offsets[:-1], -1)
    return result.lines.take(pa.array(at, pa.int64(), mask=~valid))


def document_lines(texts: pa.Array, scoring: str) -> Lines:
    """The sentences that models learn and score: whole texts (`ccnet`), or their lines that are not empty (`lines`)."""
    if scoring not in ("ccnet", "lines"):
        raise ValueError(f"scoring {scoring!r}: ccnet (CCNet's models and cutoffs) or lines")
    texts = texts.cast(pa.large_string())
    return _normalized(texts, scoring, by_line=scoring == "lines")
