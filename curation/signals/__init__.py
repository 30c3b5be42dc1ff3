"""Signals: numbers measured on documents, one family a file, each family one pass over the UTF-8 bytes.

>>> import pyarrow as pa
>>> measure(pa.array(["Ein Satz. Noch einer."], pa.large_string()), ["word_count"], "de")["word_count"].to_pylist()
[4]
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.signals import c4, characters, fineweb, gopher, redpajama
from curation.signals.signal import Family, Signal, Texts
from curation.text.dictionary import Dictionary, joined_letters
from curation.text.segment import frozen, utf8_buffers

FAMILIES: tuple[Family, ...] = (gopher.GOPHER, c4.C4, fineweb.FINEWEB, redpajama.REDPAJAMA, characters.CHARACTERS)
SIGNALS: dict[str, Signal] = {signal.name: signal for family in FAMILIES for signal in family.signals}
_TYPES = {"float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}

__all__ = ["FAMILIES", "SIGNALS", "Family", "Signal", "measure"]


def measure(
    text: pa.Array, names: Sequence[str], language: str, dictionary: Dictionary | None = None
) -> dict[str, pa.Array]:
    """Measure signals of row-aligned texts.

    Args:
        text: large_string (other string types are cast), nulls allowed.
        names: signals to measure, of SIGNALS.
        language: code such as `de`; chooses stop words and nothing else.
        dictionary: cuts Han text into its words for all signals of words; None: each letter is a word.

    Returns:
        One array per name, in the order asked; null where the text is null or the signal undefined (such as a mean over
        no words), never NaN. Memory grows with the largest document: about 40 bytes for each of its segments.

    Raises:
        KeyError: for a name that is no signal.
    """
    unknown = [name for name in names if name not in SIGNALS]
    if unknown:
        raise KeyError(_did_you_mean(unknown[0]))
    present = ~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
    buffers = utf8_buffers(text)
    texts = Texts(*buffers, present, joined_letters(*buffers, frozen(present), dictionary))
    columns: dict[str, np.ndarray] = {}
    for family in FAMILIES:
        wanted = frozenset(names) & {signal.name for signal in family.signals}
        if wanted:
            columns |= family.measure(texts, language, wanted, columns)
    return {name: _typed(columns[name], texts.present, SIGNALS[name]) for name in names}


def _typed(values: np.ndarray, present: np.ndarray, signal: Signal) -> pa.Array:
    """The signal's Arrow array: null where there is no text or no value."""
    missing = ~present | np.isnan(values)
    if signal.dtype != "float64":
        values = np.where(missing, 0.0, values).astype(np.int64 if signal.dtype == "int64" else np.bool_)
    return pa.array(values, _TYPES[signal.dtype], mask=missing)


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, SIGNALS, 3, 0.6)
    hint = f"; did you mean {', '.join(close)}?" if close else "; `docs/signals.md` lists them all"
    return f"no signal is called '{name}'{hint}"
