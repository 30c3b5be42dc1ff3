"""A tokenizer as the rest of `mixing` uses it: any Hugging Face `tokenizer.json`, text to ids and back.

Everything here runs on one thread: the workers of a stage are processes, and ids must not depend on their number.
Special tokens are placed by us (`mixing.shards`), never found in text: a web page that *says* `<|endoftext|>` is
encoded as those characters and does not end a document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
import xxhash

from curation.bpe.encoder import BpeEncoder, encode_texts, library_of, not_own, open_or_reason
from mixing.long_text import encode_long

# `tokenizers` reads this at every call; without it each worker would start one thread per core.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Names that are looked for, in this order, when a folder has no tokenizer_config.json.
_KNOWN_NAMES = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "[EOS]"),
    "pad": ("<pad>", "<|padding|>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
}
# Words that BPE remembers (the library's default is 10,000): German and Chinese text has many, and a hit is free.
_CACHED_WORDS = 200_000
# Text given to the library at once: an `Encoding` costs some 400 bytes a token while it lives.
_CALL_BYTES = 1 << 20
# Encoders of this process by the tokenizer's identity: a worker opens many shards with one tokenizer.
_OPENED: dict[str, tuple[BpeEncoder | None, str]] = {}
_MOST_OPENED = 4


class TokenizerError(ValueError):
    """A tokenizer cannot be loaded, trained or used as asked."""


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer.

    Attributes:
        encoder: the library's object, single-threaded, without truncation, padding or template.
        vocabulary: rows an embedding needs: the largest id + 1 (ids may have holes).
        bos: id of the token before a document, or None; likewise `eos` (after it), `pad` and `unk`.
        identity: xxh3_128 of `tokenizer.json` and of the special ids, as hex digits.
    """

    encoder: tokenizers.Tokenizer
    vocabulary: int
    bos: int | None
    eos: int | None
    pad: int | None
    unk: int | None
    identity: str

    @cached_property
    def own(self) -> tuple[BpeEncoder | None, str]:
        """An encoder of our own with the same ids, or None and why the library encodes. Opening it takes a second."""
        if self.identity not in _OPENED:
            if len(_OPENED) >= _MOST_OPENED:
                _OPENED.clear()
            _OPENED[self.identity] = open_or_reason(self.encoder)
        return _OPENED[self.identity]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a token on disk: little-endian uint16 where the vocabulary fits, else uint32."""
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer from a Hugging Face folder, or from a `tokenizer.json` alone.

    Special tokens come from `tokenizer_config.json` or `special_tokens_map.json` beside it, else from well-known names.

    Raises:
        TokenizerError: if there is no readable `tokenizer.json`.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        stored = file.read_bytes()
        encoder = library_of(stored)
    except FileNotFoundError:
        raise TokenizerError(_missing(path, file)) from None
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file}: not a tokenizer.json that `tokenizers` can read: {error}") from error
    _remember_more_words(encoder)
    ids = _special_ids(encoder, _special_names(file.parent))
    vocabulary = max(encoder.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    identity = xxhash.xxh3_128_hexdigest(stored + json.dumps(ids, sort_keys=True).encode())
    return Tokenizer(encoder, vocabulary, ids["bos"], ids["eos"], ids["pad"], ids["unk"], identity)


def encode(tokenizer: Tokenizer, text: pa.Array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids, `tokenizer.dtype`, and lengths of documents as `encode_counting` yields them."""
    for ids, lengths, _ in encode_counting(tokenizer, text):
        yield ids, lengths


def encode_counting(tokenizer: Tokenizer, text: pa.Array) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Encode documents in order, in pieces of about 1 MiB of text, to the library's ids.

    Memory: the longest document, or 1 MiB of them, with its ids. Where the library encodes, longer documents go to it
    in pieces, to the same tokens (`mixing.long_text`): some 200 MiB, and the ids of the longest document.

    Args:
        tokenizer: from `load_tokenizer`.
        text: large_string, without nulls.

    Yields:
        ids, `tokenizer.dtype`, of some documents after each other; their lengths in tokens, int64; and how many of
        these documents the library encoded.
    """
    own = tokenizer.own[0]
    for start, stop in _pieces(text):
        piece = text[start:stop]
        if stop == start + 1 and (own is None or (not own.takes_all and not_own(own, piece.to_pylist())[0])):
            document = piece[0].as_py()
            if len(document) > 2 * _CALL_BYTES:
                ids = encode_long(tokenizer.encoder, document).astype(tokenizer.dtype)
                yield ids, np.array([len(ids)], np.int64), 1
                continue
        ids, lengths, by_library = encode_texts(own, tokenizer.encoder, piece)
        yield ids.astype(tokenizer.dtype), lengths, by_library


def decode(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray, *, keep_special: bool = False) -> str:
    """Text of token ids; special tokens are left out unless `keep_special`."""
    text: str = tokenizer.encoder.decode(list(map(int, ids)), skip_special_tokens=not keep_special)
    return text


def _pieces(text: pa.Array) -> Iterator[tuple[int, int]]:
    """Cut row numbers so that a piece holds about `_CALL_BYTES`, at least one document."""
    ends = np.cumsum(pc.binary_length(text).to_numpy(zero_copy_only=False).astype(np.int64))
    start = 0
    while start < len(text):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CALL_BYTES, side="right")))
        yield start, stop
        start = stop


def _remember_more_words(encoder: tokenizers.Tokenizer) -> None:
    """Enlarge the model's word cache where this version of the library allows it; ids stay the same."""
    resize = getattr(encoder.model, "_resize_cache", None)
    if resize is not None:
        resize(_CACHED_WORDS)


def _special_names(folder: Path) -> dict[str, str]:
    """Names of bos, eos, pad and unk as the files beside `tokenizer.json` give them."""
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            stored = json.loads((folder / file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise TokenizerError(f"{folder / file}: not valid JSON: {error}") from error
        for kind in _KNOWN_NAMES:
            name = stored.get(f"{kind}_token")
            name = name.get("content") if isinstance(name, dict) else name
            if name is not None:
                names[kind] = name
    return names


def _special_ids(encoder: tokenizers.Tokenizer, names: dict[str, str]) -> dict[str, int | None]:
    """Ids of the special tokens; a kind that neither the files nor the well-known names give is None."""
    known = {token.content for token in encoder.get_added_tokens_decoder().values()}
    ids: dict[str, int | None] = {}
    for kind, candidates in _KNOWN_NAMES.items():
        if kind in names:
            ids[kind] = encoder.token_to_id(names[kind])
            if ids[kind] is None:
                raise TokenizerError(
                    f"{kind}_token {names[kind]!r} is not in the vocabulary; correct tokenizer_config.json"
                )
        else:
            found: Iterable[str] = () if names else (name for name in candidates if name in known)
            ids[kind] = next((encoder.token_to_id(name) for name in found), None)
    return ids


def _missing(path: Path, file: Path) -> str:
    if (path / "tokenizer.model").exists():
        return (
            f"{path}: has tokenizer.model but no tokenizer.json; "
            "convert it once (transformers, protobuf): AutoTokenizer.from_pretrained(path).save_pretrained(path)"
        )
    return f"{file}: no such tokenizer.json; name a Hugging Face tokenizer folder or a tokenizer.json"
