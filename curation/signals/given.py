"""Signals of RedPajama-V2 that need a file of the user: word lists, domain lists, importance weights, classifiers.

Definitions after RedPajama-V2 (Weber et al. 2024, arXiv:2411.12372; RedPajama-Data 6d2cee9):
* `rps_doc_ldnoobw_words`: sequences of normalised words that stand in a list, one entry a line. Entries are taken as
  they are written, so one with capitals, ASCII punctuation or composed accents (not NFD) is never met, as there.
* `rps_doc_ut1_blacklist`: the categories of the document's host in a list of domains. There a number of a category;
  here the names, joined by commas, "" for a host that is not listed, null without an URL.
* `rps_doc_*_importance`: see `curation.signals.importance`.
* `rps_doc_ml_*_score`: how sure a fastText classifier is that the text, put on one line, is not of `__label__cc`: the
  probability of its best label, or 1 less it where that is `__label__cc`. A classifier without such a label, which
  the definition does not know, scores its first label by name.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import re
import string
import unicodedata
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash

from curation.kernels import kernel
from curation.signals.normalised import normalised_words
from curation.signals.redpajama import IMPLEMENTATION
from curation.signals.signal import GivenFileError, Signal

# By the end of the name. 2: list entries as written, raw words, the best label of a classifier.
_VERSIONS = {"words": 2, "importance": 2, "score": 2}
_WORD_BASE = 0x9E3779B97F4A7C15  # odd, of the polynomial over words
_WEB_LABEL = "__label__cc"  # RedPajama-V2's label of web pages as they come
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# (texts, URLs) of a row batch -> the signal
GivenMeasure = Callable[[pa.Array, pa.Array], pa.Array]


def _signal(name: str, description: str, dtype: str = "float64") -> Signal:
    return Signal(name, "given", dtype, _VERSIONS.get(name.rpartition("_")[2], 1), IMPLEMENTATION, description)


GIVEN_SIGNALS = {
    signal.name: signal
    for signal in (
        _signal("rps_doc_ldnoobw_words", "word sequences that stand in a list, one entry a line", "int64"),
        _signal("rps_doc_ut1_blacklist", 'categories of the URL\'s host in lists of domains, "" for none', "string"),
        *(
            _signal(f"rps_doc_{target}_importance", "log of the odds of hashed word 1- and 2-grams, summed")
            for target in ("books", "openwebtext", "wikipedia")
        ),
        *(
            _signal(f"rps_doc_ml_{target}_score", "a fastText classifier's probability of not being `__label__cc`")
            for target in ("wikiref", "palm", "wikipedia")
        ),
    )
}


def open_given(name: str, path: str) -> GivenMeasure:
    """The function that measures one of GIVEN_SIGNALS with a file.

    Raises:
        GivenFileError: if the file does not fit the signal.
    """
    if name == "rps_doc_ldnoobw_words":
        return _list_measure(path)
    if name == "rps_doc_ut1_blacklist":
        return _domain_measure(path)
    if name.endswith("_importance"):
        from curation.signals.importance import read_weights

        weights = read_weights(path)
        return lambda text, urls: weights.measure(text)
    return _classifier_measure(path)


# ---------------------------------------------------------------- a list of words


def _list_measure(path: str) -> GivenMeasure:
    lines = {line.strip() for line in Path(path).read_text(encoding="utf-8").split("\n")}
    met = sorted(line for line in lines if line and line == _normalised(line))
    entries = normalised_words(pa.array(met, pa.large_string()))
    keys: dict[int, set[int]] = {}
    for start, stop in pairwise(entries.offsets.tolist()):
        if stop > start:
            keys.setdefault(stop - start, set()).add(int(_sequence(entries.hashes, start, stop - start)))
    if not keys:
        raise GivenFileError(
            f"{path}: none of its {len(lines):,} lines is a word or a sequence of words that can be met: write them in "
            "lower case, without ASCII punctuation, accents decomposed (NFD)"
        )
    tables = [(size, np.array(sorted(known), np.uint64)) for size, known in sorted(keys.items())]

    def measure(text: pa.Array, urls: pa.Array) -> pa.Array:
        words = normalised_words(text)
        found = np.zeros(len(text), np.int64)
        for size, known in tables:
            _count_sequences(words.hashes, words.offsets, size, known, found)
        return pa.array(found, pa.int64(), mask=np.asarray(text.is_null()))

    return measure


@kernel
def _sequence(hashes: np.ndarray, start: int, size: int) -> np.uint64:
    """Hash of a sequence of words."""
    value = np.uint64(0)
    for i in range(start, start + size):
        value = value * np.uint64(_WORD_BASE) + hashes[i]
    return value


@kernel
def _count_sequences(hashes: np.ndarray, offsets: np.ndarray, size: int, known: np.ndarray, found: np.ndarray) -> None:
    """Add to `found` each row's sequences of `size` words that are in `known` (sorted)."""
    for row in range(found.shape[0]):
        for i in range(offsets[row], offsets[row + 1] - size + 1):
            value = _sequence(hashes, i, size)
            place = np.searchsorted(known, value)
            found[row] += place < known.shape[0] and known[place] == value


def _normalised(entry: str) -> str:
    """The entry as RedPajama-V2 normalises text."""
    kept = entry.translate(_PUNCTUATION).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", kept))


# ---------------------------------------------------------------- lists of domains


def _domain_measure(path: str) -> GivenMeasure:
    """Categories by domain: a folder as UT1's (`CATEGORY/domains`), or a file of lines `domain category`.

    Memory: 16 bytes a domain, some 60 while the lists are read.
    """
    names: list[str] = []
    hashes, bits = array("Q"), array("Q")
    for category, domain in _domains(Path(path)):
        if category not in names:
            names.append(category)
        if len(names) > 64:
            raise GivenFileError(f"{path}: more than 64 categories; keep the ones that you use")
        hashes.append(xxhash.xxh3_64_intdigest(domain.encode()))
        bits.append(1 << names.index(category))
    if not hashes:
        raise GivenFileError(f"{path}: no domains; it wants a folder CATEGORY/domains, or lines `domain category`")
    known, place = np.unique(np.frombuffer(hashes, np.uint64), return_inverse=True)
    mask = np.zeros(len(known), np.uint64)
    np.bitwise_or.at(mask, place, np.frombuffer(bits, np.uint64))

    def measure(text: pa.Array, urls: pa.Array) -> pa.Array:
        return pa.array([_listed(url, known, mask, names) for url in urls.to_pylist()], pa.string())

    return measure


def _domains(path: Path) -> Iterator[tuple[str, str]]:
    """Category and domain, list by list or line by line."""
    if path.is_dir():
        for file in sorted(path.glob("*/domains")):
            yield from ((file.parent.name, domain) for domain in _lines(file))
        return
    for line in _lines(path):
        domain, _, category = line.partition(" ")
        yield category.strip() or "listed", domain


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if cut := " ".join(line.lower().split()):
                yield cut


def _listed(url: str | None, known: np.ndarray, mask: np.ndarray, names: list[str]) -> str | None:
    """Categories of a URL's host or of a domain above it."""
    host = host_of(url)
    if host is None:
        return None
    parts, bits = host.split("."), 0
    for first in range(len(parts)):
        value = np.uint64(xxhash.xxh3_64_intdigest(".".join(parts[first:]).encode()))
        place = int(np.searchsorted(known, value))
        if place < len(known) and known[place] == value:
            bits |= int(mask[place])
    return ",".join(sorted(name for bit, name in enumerate(names) if bits >> bit & 1))


def host_of(url: str | None) -> str | None:
    """Host of a URL in lower case, with or without a scheme before it; None where there is none."""
    if not url:
        return None
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname
    except ValueError:
        return None
    return host.rstrip(".") if host else None


# ---------------------------------------------------------------- classifiers


def _classifier_measure(path: str) -> GivenMeasure:
    import fasttext

    model = fasttext.load_model(path)
    labels = model.labels
    if len(labels) < 2:
        raise GivenFileError(f"{path}: a classifier with one label tells nothing")
    number = 1 if _WEB_LABEL in labels else -1  # predictions to ask for: the best, or all
    first = min(labels)  # fastText lists labels by how often they were met in training, which says nothing of them

    def score(text: str | None) -> float | None:
        line = " ".join((text or "").splitlines()).strip()
        found = model.f.predict(line + "\n", number, 0.0, "strict") if line else []
        if number == -1:
            found = [(p, label) for p, label in found if label == first]
        if not found:
            return None
        probability, label = min(found[0][0], 1.0), found[0][1]
        return round(1 - probability if label == _WEB_LABEL else probability, 8)

    return lambda text, urls: pa.array([score(one) for one in text.to_pylist()], pa.float64())
