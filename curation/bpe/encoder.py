"""An encoder of our own for a loaded tokenizer: opened once, checked against the library, then fed with Arrow text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers

from curation.bpe.check import hard_strings
from curation.bpe.model import NotReproducedError, Pattern, read_model, unassigned
from curation.bpe.parts import BYTES_BEHIND, MOST_IDS, Model, empty_cache, encode_documents
from curation.bpe.words import WHOLE, cut_words
from curation.kernels import kernel

CACHE_SLOTS = 1 << 17
"""Parts that are remembered, 64 bytes each: 8 MiB."""


@dataclass(frozen=True)
class BpeEncoder:
    """Tables of a tokenizer and its cache; ids do not depend on what was encoded before.

    Attributes:
        model, pattern: see `curation.bpe.model.read_model`.
        cache: see `curation.bpe.parts.empty_cache`.
        markers: strings that the library finds in text before it cuts words (added tokens; not special ones, where it
            was told so); documents with one are left to the library.
        unknown_composition: characters whose NFC is not known, by code point, where the tokenizer wants NFC.
    """

    model: Model
    pattern: Pattern
    cache: np.ndarray
    markers: tuple[str, ...] = ()
    unknown_composition: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def takes_all(self) -> bool:
        """Whether no document is left to the library."""
        return not self.markers and not self.pattern.composed


def library_of(stored: bytes) -> tokenizers.Tokenizer:
    """The library's tokenizer of a `tokenizer.json`, to encode whole texts as text.

    A shipped file may cut at 512 tokens or pad, which would silently change whatever is counted; and a web page that
    *says* `<|endoftext|>` is encoded as those characters.

    Raises:
        ValueError: if the library cannot read it.
    """
    library = tokenizers.Tokenizer.from_buffer(stored)
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    return library


def open_encoder(library: tokenizers.Tokenizer) -> BpeEncoder:
    """Make an encoder that gives the ids of a library's tokenizer (without truncation and padding), and check it.

    Raises:
        NotReproducedError: if the tokenizer does anything that is not reproduced exactly, or a hard string differs.
    """
    encoder = make_encoder(library)
    strings = hard_strings()
    own = ~not_own(encoder, strings)
    taken = [string for string, ours in zip(strings, own.tolist()) if ours]
    _check_words(encoder, library, taken)
    _check_ids(encoder, library, taken)
    return encoder


def open_or_reason(library: tokenizers.Tokenizer) -> tuple[BpeEncoder | None, str]:
    """An encoder of ours; or None, for `encode_texts` to leave all to the library, and the reason."""
    try:
        return open_encoder(library), ""
    except NotReproducedError as error:
        return None, str(error)


def make_encoder(library: tokenizers.Tokenizer) -> BpeEncoder:
    """`open_encoder` without the check."""
    stored: dict[str, Any] = json.loads(library.to_str())
    for setting in ("truncation", "padding"):
        if stored.get(setting):
            raise NotReproducedError(f"its {setting} is on")
    model, pattern = read_model(stored)
    as_text = library.encode_special_tokens
    looked_for = [token for token in stored["added_tokens"] if not (token["special"] and as_text)]
    unknown = unassigned() if pattern.composed else np.zeros(0, bool)
    return BpeEncoder(model, pattern, empty_cache(CACHE_SLOTS), _markers(looked_for, pattern), unknown)


def _check_words(encoder: BpeEncoder, library: tokenizers.Tokenizer, strings: Sequence[str]) -> None:
    """Compare where words end. Ids alone would not tell: no merge may join what was cut in the wrong place, yet."""
    if encoder.model.family == WHOLE:
        return
    text, ends = laid_out(encoder, pa.array(strings, pa.large_string()))
    sizes = np.empty(len(text), np.int64)
    model = encoder.model
    words = sizes[: cut_words(text, ends, model.kinds, model.family, model.digits, sizes)]
    if not encoder.pattern.byte_level:  # the library counts characters there
        begun = np.concatenate(([0], np.cumsum((text & 0xC0) != 0x80)))
        words = np.diff(begun[np.concatenate(([0], np.cumsum(words)))])
    taken = 0
    for string in strings:
        wanted = [len(word) for word, _ in library.pre_tokenizer.pre_tokenize_str(string)] if string else []
        if words[taken : taken + len(wanted)].tolist() != wanted:
            raise NotReproducedError(f"{string!r} is cut into other words than the library's")
        taken += len(wanted)


def _check_ids(encoder: BpeEncoder, library: tokenizers.Tokenizer, strings: list[str]) -> None:
    ids, lengths = encode_own(encoder, pa.array(strings, pa.large_string()))
    wanted = library.encode_batch_fast(strings, add_special_tokens=False)
    ends = np.cumsum(lengths)
    for string, end, length, encoding in zip(strings, ends.tolist(), lengths.tolist(), wanted, strict=True):
        if ids[end - length : end].tolist() != encoding.ids:
            raise NotReproducedError(f"{string!r} does not get the library's ids")


def encode_texts(
    encoder: BpeEncoder | None, library: tokenizers.Tokenizer, text: pa.Array
) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of documents by an encoder of ours, or by the library where there is none or a document is not for it.

    Args:
        encoder: from `open_encoder` of the same library's tokenizer, or None.
        library: the tokenizer.
        text: large_string, without nulls.

    Returns:
        Ids after each other, uint32 (n,); number of each document's, int64 (d,); documents that the library encoded.
    """
    if encoder is None:
        return *_by_library(library, text), len(text)
    if encoder.takes_all:
        return *encode_own(encoder, text), 0
    left = not_own(encoder, text.to_pylist())
    if not left.any():
        return *encode_own(encoder, text), 0
    own_ids, own_lengths = encode_own(encoder, text.filter(pa.array(~left)))
    other_ids, other_lengths = _by_library(library, text.filter(pa.array(left)))
    lengths = np.empty(len(text), np.int64)
    lengths[~left], lengths[left] = own_lengths, other_lengths
    ids = np.empty(int(lengths.sum()), np.uint32)
    here = np.repeat(left, lengths)
    ids[~here], ids[here] = own_ids, other_ids
    return ids, lengths, int(left.sum())


def _by_library(library: tokenizers.Tokenizer, text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    encodings = library.encode_batch_fast(text.to_pylist(), add_special_tokens=False)
    lengths = np.fromiter((len(encoding) for encoding in encodings), np.int64, len(encodings))
    each = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(each, np.uint32, int(lengths.sum())), lengths


def encode_own(encoder: BpeEncoder, text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Ids of documents, uint32 (n,), after each other, and the number of each one's, int64 (d,).

    Memory: the text, and 4 bytes for each id (12 while it runs); a single part of n bytes that no merge ends in takes
    36 n while it is merged. Documents of `not_own` must have been taken out.

    Raises:
        pa.ArrowInvalid: if the text is not valid UTF-8.
    """
    behind, ends = laid_out(encoder, text)
    most = MOST_IDS if not encoder.pattern.byte_level and encoder.model.symbols[0x20] < 0 else 1
    out = np.empty(most * len(behind), np.uint32)
    lengths = np.empty(len(ends), np.int64)
    filled = encode_documents(behind, ends, encoder.model, encoder.cache, out, lengths)
    return out[:filled].copy(), lengths


def laid_out(encoder: BpeEncoder, text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Documents for kernels: their bytes spaces before, BYTES_BEHIND more, uint8; the ends of all, int64."""
    text = text.cast(pa.large_string())
    text.validate(full=True)
    stored, ends = _joined(text)
    if encoder.pattern.prefix == "never":
        laid_out = np.zeros(len(stored) + BYTES_BEHIND, np.uint8)
        laid_out[: len(stored)] = stored
    else:
        laid_out = np.zeros(len(stored) + len(ends) + BYTES_BEHIND, np.uint8)
        put_prefixes(stored, ends, encoder.pattern.prefix == "always", encoder.pattern.byte_level, laid_out)
    return laid_out, ends


def _joined(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of documents after each other, uint8, and the end of each, int64."""
    _, offsets, content = text.buffers()
    if content is None or not len(text):
        return np.zeros(0, np.uint8), np.zeros(len(text), np.int64)
    places = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(content, np.uint8)[places[0] : places[-1]], places[1:] - places[0]


def not_own(encoder: BpeEncoder, documents: Sequence[str]) -> np.ndarray:
    """Which documents the library must encode, bool (d,): those with markers, or that NFC would or may change."""
    left = np.zeros(len(documents), bool)
    for number, document in enumerate(documents):
        left[number] = any(marker in document for marker in encoder.markers) or (
            encoder.pattern.composed and not document.isascii() and _may_change(encoder, document)
        )
    return left


def _may_change(encoder: BpeEncoder, document: str) -> bool:
    codes = np.frombuffer(document.encode("utf-32-le", "surrogatepass"), np.uint32)
    return not unicodedata.is_normalized("NFC", document) or bool(encoder.unknown_composition[codes].any())


def _markers(added: list[dict[str, Any]], pattern: Pattern) -> tuple[str, ...]:
    """Strings of added tokens that are looked for in text.

    Raises:
        NotReproducedError: if they are looked for in text that was changed before.
    """
    found = set()
    for token in added:
        if token["normalized"] and pattern.prefix == "always":
            raise NotReproducedError(f"its added token {token['content']!r} is looked for in normalised text")
        found |= {token["content"], unicodedata.normalize("NFC", token["content"])}
    return tuple(sorted(found - {""}))


@kernel
def put_prefixes(text: Any, ends: Any, always: Any, byte_level: Any, out: Any) -> Any:
    """Copy documents with a space before each that is not empty, unless it begins with one; `ends` follows."""
    start = filled = 0
    for number in range(len(ends)):
        stop = ends[number]
        if stop > start:
            marked = not byte_level and stop - start > 2 and text[start] == 0xE2
            marked = marked and text[start + 1] == 0x96 and text[start + 2] == 0x81
            if always or not (text[start] == 0x20 or marked):
                out[filled] = 0x20
                filled += 1
            out[filled : filled + stop - start] = text[start:stop]
            filled += stop - start
        start = stop
        ends[number] = filled
