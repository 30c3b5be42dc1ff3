# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Perplexity of documents: our own models through a kernel over mapped arrays, foreign ones through kenlm.

A document is one sentence (`ccnet`) or its lines (`lines`); perplexity is 10^(-sum of log10 P / (pieces +
sentences)), so lines weigh by their length. Nothing to score (no text, or only whitespace) is null; a score is never
NaN or infinite.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.perplexity.lookup import score_lines
from curation.perplexity.model import Model, ModelError, open_model, read_card
from curation.perplexity.normalize import document_lines
from curation.perplexity.pieces import Encoded, Pieces, SentencePieces, WordPieces, load_pieces, word_hashes

LARGEST = 1e9
"""Perplexities are capped here: beyond it a number says no more, and 10^x must not overflow."""


@dataclass(frozen=True)
class LineScores:
    """Per line its log10 probability (float64) and tokens with its end (int64); offsets: each text's lines."""

    log10_probability: np.ndarray
    num_tokens: np.ndarray
    offsets: np.ndarray


@kernel
def _find_tokens(hashes, known, tokens, found):
    """Token of each word hash by binary search; unknown words are token 0."""
    for i in range(len(hashes)):
        low, high = 0, len(known)
        while low < high:
            middle = (low + high) >> 1
            if known[middle] < hashes[i]:
                low = middle + 1
            else:
                high = middle
        found[i] = tokens[low] if low < len(known) and known[low] == hashes[i] else 0


class OwnModel:
    """A model folder with its pieces; immutable, shared by all workers through the page cache."""

    def __init__(self, folder: Path, pieces: Pieces, scoring: str, longest: int | None = None):
        self.model: Model = open_model(folder)
        self._longest = min(longest or self.model.order, self.model.order)
        self.pieces, self.single = pieces, scoring == "ccnet"
        if isinstance(pieces, WordPieces) != bool(self.model.card["words"]):
            kind = "words" if self.model.card["words"] else "pieces"
            raise ModelError(
                f"{folder}: trained on {kind}, not {pieces.path or 'words'}; give the pieces it was trained with"
            )
        unigrams, middle, highest = (np.asarray(array) for array in self.model.lookup)
        self._lookup = (unigrams, middle, middle.view(np.float32), highest, highest.view(np.float32))
        self._seed = np.uint64(self.model.card["hash_seed"])
        if isinstance(pieces, WordPieces):
            finder = np.asarray(self.model.tokens)
            self._known, self._tokens = finder["hash"].copy(), finder["token"].copy()
        else:
            self._tokens = np.asarray(self.model.tokens)

    def _encode(self, lines: pa.Array) -> Encoded:
        if isinstance(self.pieces, WordPieces):
            hashes, offsets, _ = word_hashes(lines)
            found = np.empty(len(hashes), np.int64)
            _find_tokens(hashes, self._known, self._tokens, found)
            return Encoded(found, offsets)
        return self.pieces.encode(lines)

    def score_lines(self, lines: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """log10 probability (float64) and number of tokens with the end (int64) of each line."""
        encoded = self._encode(lines)
        tokens = self._tokens
        if isinstance(self.pieces, WordPieces):
            tokens = np.arange(self.model.num_tokens, dtype=np.uint32)
        elif len(encoded.ids) and int(encoded.ids.max()) >= len(tokens):
            raise ModelError(
                f"{self.model.folder}: trained with {len(tokens)} pieces, but {self.pieces.path} gave piece "
                f"{int(encoded.ids.max())}; give the pieces it was trained with"
            )
        scores = np.empty(len(lines), np.float64)
        score_lines(
            encoded.ids, encoded.offsets, tokens, *self._lookup, self.model.order, self._longest, self._seed,
            self.single, scores,
        )  # fmt: skip
        return scores, np.diff(encoded.offsets) + 1


class ForeignModel:
    """A KenLM `.bin` or `.arpa` model, scored by kenlm itself over piece strings, as CCNet does."""

    def __init__(self, path: Path, pieces: Pieces):
        import kenlm

        if not path.is_file():
            raise ModelError(f"{path}: no such model file")
        self.pieces = pieces
        try:
            self.kenlm: Any = kenlm.Model(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: kenlm cannot read this model: {str(error).strip()}") from error

    def score_lines(self, lines: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """log10 probability (float64) and number of tokens with the end (int64) of each line."""
        # CCNet counts what str.split gives; a piece holds a space only where its model's normaliser keeps one
        sentences, lengths = _sentences(self.pieces, lines)
        score = self.kenlm.score
        scores = np.fromiter((score(sentence) for sentence in sentences), np.float64, len(sentences))
        return scores, lengths + 1


def _sentences(pieces: Pieces, lines: pa.Array) -> tuple[list[str], np.ndarray]:
    """Token strings of each line between spaces, and how many they are (int64)."""
    if isinstance(pieces, SentencePieces):
        return pieces.sentences(lines)
    encoded = pieces.encode(lines)
    lengths = np.diff(encoded.offsets)
    if isinstance(pieces, WordPieces):
        return lines.to_pylist(), lengths
    names = pieces.strings()
    words, ends = [names[i] for i in encoded.ids.tolist()], encoded.offsets.tolist()
    return [" ".join(words[a:b]) for a, b in pairwise(ends)], lengths


@dataclass(frozen=True)
class Scorer:
    """Scores documents under one model. Plain values only: workers pickle it, and open the model on first use.

    model: a model folder of ours, or a `.arpa` or `.bin` file. pieces: `words`, a SentencePiece `.model`, a
    `tokenizer.json`, or None for the pieces that lie in a model folder of ours. scoring: ccnet | lines.
    longest: ask a model of ours for no longer n-grams, as if it had that order.
    """

    model: str
    pieces: str | None = None
    scoring: str = "ccnet"
    longest: int | None = None
    _opened: list[OwnModel | ForeignModel] = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def open(self) -> OwnModel | ForeignModel:
        """The model, read at the first call."""
        if not self._opened:
            path = Path(self.model)
            if path.is_dir():
                card = read_card(path)
                pieces = load_pieces(self.pieces or _own_pieces(path))
                _check_pieces(path, card, pieces)
                if card.get("estimator") == "lmplz":
                    self._opened.append(ForeignModel(path / "model.arpa", pieces))
                else:
                    self._opened.append(OwnModel(path, pieces, self.scoring, self.longest))
            elif self.pieces is None:
                raise ModelError(
                    f"{path}: a foreign model needs its pieces: a SentencePiece .model, tokenizer.json or words"
                )
            else:
                self._opened.append(ForeignModel(path, load_pieces(self.pieces)))
        return self._opened[0]

    def score_lines(self, text: pa.Array) -> LineScores:
        """Scores of the sentences of each document: the lines that are not empty, or (`ccnet`) the whole text."""
        made = document_lines(text, self.scoring)
        scores, num_tokens = self.open().score_lines(made.lines)
        return LineScores(scores, num_tokens, made.offsets)

    def score(self, text: pa.Array) -> pa.Array:
        """Perplexity of each document.

        Args:
            text: large strings, nulls allowed.

        Returns:
            float64, null where there is no text or nothing to score. `ccnet`: rounded to one decimal, as CCNet does.
        """
        return document_perplexity(self.score_lines(text), rounded=self.scoring == "ccnet")


def _own_pieces(folder: Path) -> str | Path:
    if (folder / "words").exists():
        return "words"
    for name in ("pieces.model", "pieces.json"):
        if (folder / name).exists():
            return folder / name
    raise ModelError(f"{folder}: no pieces beside the model; name the ones it was trained with")


def _check_pieces(folder: Path, card: dict[str, Any], pieces: Pieces) -> None:
    """Other pieces than the model was trained with would be scored as if their ids meant the same."""
    trained = (card.get("pieces") or {}).get("sha256")
    if trained is None or pieces.path is None or pieces.path.parent == folder:
        return
    given = hashlib.sha256(pieces.path.read_bytes()).hexdigest()
    if given != trained:
        raise ModelError(
            f"{folder}: trained with pieces {trained[:16]} (SHA-256), not {pieces.path}, which is {given[:16]}; give "
            "the pieces it was trained with, or none: a model folder has its own"
        )


def load_scorer(
    model: str | Path, pieces: str | Path | None = None, scoring: str = "ccnet", longest: int | None = None
) -> Scorer:
    """A scorer whose model and pieces can be read (they are opened once here, so that errors come early)."""
    scorer = Scorer(str(model), None if pieces is None else str(pieces), scoring, longest)
    document_lines(pa.array([], pa.large_string()), scoring)
    scorer.open()
    return scorer


def document_perplexity(scores: LineScores, rounded: bool) -> pa.Array:
    """Length-weighted perplexity of each document from its lines; null where no line has a token."""
    log10_sums = _sums(scores.log10_probability, scores.offsets)
    tokens = _sums(scores.num_tokens.astype(np.float64), scores.offsets)
    pieces = tokens - np.diff(scores.offsets)
    perplexity = _power(log10_sums, tokens)
    if rounded:
        # Python's round is exact in decimals; numpy's multiplies first and differs in the last place
        perplexity = np.array([round(value, 1) for value in perplexity.tolist()], np.float64)
    return pa.array(perplexity, pa.float64(), mask=pieces <= 0)


def line_perplexity(scores: LineScores) -> np.ndarray:
    """Perplexity of each line, float64."""
    return _power(scores.log10_probability, scores.num_tokens.astype(np.float64))


def line_lists(scores: LineScores) -> pa.Array:
    """Perplexities of each document's lines as lists of float64, in order; null where there are no lines."""
    no_lines = pa.array(np.diff(scores.offsets) == 0)
    return pa.LargeListArray.from_arrays(
        pa.array(scores.offsets, pa.int64()), pa.array(line_perplexity(scores), pa.float64()), mask=no_lines
    )


def share_above(scores: LineScores, cutoff: float) -> pa.Array:
    """Share of each document's lines whose perplexity is above `cutoff`; null where there are no lines."""
    above = _sums((line_perplexity(scores) > cutoff).astype(np.float64), scores.offsets)
    lines = np.diff(scores.offsets)
    return pa.array(above / np.maximum(lines, 1), pa.float64(), mask=lines == 0)


def _power(log10_sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    exponent = -log10_sums / np.maximum(tokens, 1)
    return np.array([10.0**value if value < 9 else LARGEST for value in exponent.tolist()], np.float64)


@kernel
def _sum_rows(values, offsets, sums):
    for row in range(len(offsets) - 1):
        total = 0.0
        for at in range(offsets[row], offsets[row + 1]):
            total += values[at]
        sums[row] = total


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    sums = np.empty(len(offsets) - 1, np.float64)
    _sum_rows(values, offsets, sums)
    return sums
