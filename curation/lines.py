r"""Drop lines or paragraphs of documents by SQL over signals of single lines: a text edit.

>>> rules, _ = preset_rules("c4_lines", "en", {})
>>> edit = edit_lines(pa.array(["Home\\nA sentence of some words."], pa.large_string()), rules, "line", clean=True)
>>> edit.text.to_pylist(), edit.num_lines.tolist(), edit.num_dropped.tolist()
(['A sentence of some words.'], [2], [1])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from curation.line_kernels import NUMBERS, SignalColumns, edited_text, line_spans, measure_spans
from curation.rules import Rule, RuleError, decide, preset_rules, reasons, signal_names
from curation.signals.c4 import LINE_REASONS, PHRASES
from curation.text.properties import property_table
from curation.text.segment import frozen, utf8_buffers

__all__ = ["LINE_SIGNALS", "LineEdit", "Rule", "edit_lines", "measure_lines", "preset_rules", "token_counter"]

LINES_VERSION = 1  # raise when an edit may come out differently for the same rules
LINE_SIGNALS: dict[str, str] = {
    "characters": "code points of the line, its break left out",
    "words": "words (letters of unspaced scripts count each)",
    "segments": "words and symbols",
    "longest_word": "characters of the longest run without white space",
    "letter_share": "alphabetic characters / characters; null for an empty line, as all shares",
    "digit_share": "decimal digits / characters",
    "uppercase_share": "upper-case letters / alphabetic characters",
    "symbol_share": "characters that are neither alphabetic, digits nor white space / characters",
    "position": "number of the line in its document, from 0",
    "repeats": "how many earlier lines of the document are equal to it",
    "starts_bullet": "begins with `•` or `-` after white space",
    "ends_terminal": "ends with a sentence terminator of any script, before white space",
    "ends_ellipsis": "ends with `...` or `…`, before white space",
    "javascript": "holds the word, in either case",
    "lorem_ipsum": "holds the words, in either case",
    "policy": "holds one of C4's phrases on terms of use, privacy or cookies",
    "curly_bracket": "holds `{`",
    **{f"c4_{reason}": f"the first of C4's checks that the line fails: {reason}" for reason in LINE_REASONS[1:]},
    "tokens": "tokens of the step's tokenizer",
    "tokens_per_word": "tokens / words parted by white space",
    "language": "code of the line's language by the step's `model`; `und` without a letter",
    "language_score": "probability of that language",
}
_BOOLEANS = ("starts_bullet", "ends_terminal", "ends_ellipsis", "javascript", "lorem_ipsum", "policy", "curly_bracket")
_COUNTS = ("characters", "words", "segments", "longest_word", "position", "repeats")


@dataclass(frozen=True)
class LineEdit:
    """Texts without the dropped lines, row-aligned, and what was done.

    Arrays are int64 (rows,); `by_reason` and `bytes_by_reason` (UTF-8 bytes) count each dropped line under its first
    true reason by name; a row whose every line was dropped is the empty text, a null row stays null.
    """

    text: pa.Array
    num_lines: np.ndarray
    num_dropped: np.ndarray
    num_undecided: np.ndarray
    by_reason: dict[str, int]
    bytes_by_reason: dict[str, int]


TokenCounter = Callable[[list[str]], list[int]]
Identifier = Callable[[pa.Array], tuple[pa.Array, pa.Array]]  # texts -> codes and scores of their languages


def token_counter(path: str | Path) -> TokenCounter:
    """Counts tokens with a Hugging Face `tokenizer.json` or a SentencePiece `.model`: whole texts, no special ones."""
    if str(path).endswith(".json"):
        from curation.bpe.encoder import encode_texts, library_of, open_or_reason

        tokenizer = library_of(Path(path).read_bytes())
        own, _ = open_or_reason(tokenizer)
        return lambda texts: encode_texts(own, tokenizer, pa.array(texts, pa.large_string()))[1].tolist()
    from sentencepiece import SentencePieceProcessor

    processor: Any = SentencePieceProcessor(model_file=str(path))
    return lambda texts: [len(ids) for ids in processor.encode(texts, num_threads=1)]


def _spans(text: pa.Array, unit: str) -> SignalColumns:
    """Lines or paragraphs of all rows.

    Raises:
        ValueError: for another unit.
    """
    if unit not in ("line", "paragraph"):
        raise ValueError(f"unit '{unit}' is not line or paragraph")
    content, offsets = utf8_buffers(text)
    present = frozen(~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool))
    return SignalColumns(content, *line_spans(content, offsets, present, unit == "paragraph"))


def _frame(
    spans: SignalColumns, tokens: TokenCounter | None, identify: Identifier | None, wanted: set[str]
) -> pl.DataFrame:
    """Signals of all lines as columns; tokens and languages only where wanted."""
    numbers, verdicts, phrases = measure_spans(spans, property_table(), PHRASES)
    columns: dict[str, pl.Series] = {}
    for k, name in enumerate(NUMBERS):
        column = pl.Series(name, np.ascontiguousarray(numbers[:, k]))
        if name in _COUNTS:
            column = column.cast(pl.Int64)
        elif name in _BOOLEANS:
            column = column.cast(pl.Boolean)
        columns[name] = column if name in _COUNTS or name in _BOOLEANS else column.fill_nan(None)
    for verdict, reason in enumerate(LINE_REASONS):
        if reason in ("lorem_ipsum", "javascript", "curly_bracket", "policy"):
            columns[reason] = pl.Series(reason, (phrases >> verdict & 1).astype(bool))
        if verdict:
            columns[f"c4_{reason}"] = pl.Series(f"c4_{reason}", verdicts == verdict)
    if wanted & {"language", "language_score"}:
        if identify is None:
            raise RuleError("`language` and `language_score` of lines need a model that identifies languages")
        codes, scores = identify(pa.array(_strings(spans), pa.large_string()))
        columns |= {"language": pl.Series("language", codes), "language_score": pl.Series("language_score", scores)}
    if wanted & {"tokens", "tokens_per_word"}:
        if tokens is None:
            raise RuleError("`tokens` and `tokens_per_word` need the step's `tokenizer`: name a file")
        lines = _strings(spans)
        columns["tokens"] = pl.Series("tokens", tokens(lines), pl.Int64)
        split = pl.Series("split", [len(line.split()) for line in lines], pl.Int64)
        # 0 words: no ratio
        columns["tokens_per_word"] = (columns["tokens"] / split.replace(0, None)).alias("tokens_per_word")
    return pl.DataFrame([columns[name] for name in LINE_SIGNALS if name in columns])


def _strings(spans: SignalColumns) -> list[str]:
    bounds = zip(spans.starts.tolist(), spans.stops.tolist(), strict=True)
    return [spans.content[start:stop].tobytes().decode() for start, stop in bounds]


def measure_lines(
    text: pa.Array, unit: str = "line", tokens: TokenCounter | None = None, identify: Identifier | None = None
) -> pl.DataFrame:
    """Signals of every line of every text, in order: columns `row` and LINE_SIGNALS.

    Tokens only with a counter, languages only with what identifies them.

    Memory: about 200 bytes a line.
    """
    spans = _spans(text, unit)
    wanted = ({"tokens"} if tokens else set()) | ({"language"} if identify else set())
    return _frame(spans, tokens, identify, wanted).insert_column(0, pl.Series("row", spans.rows))


def edit_lines(
    text: pa.Array,
    rules: Sequence[Rule],
    unit: str = "line",
    *,
    clean: bool = False,
    tokens: TokenCounter | None = None,
    identify: Identifier | None = None,
) -> LineEdit:
    """Drop the lines for which a rule is true.

    Args:
        text: large_string, nulls allowed.
        rules: conditions over LINE_SIGNALS; null keeps the line and is counted as undecided.
        unit: `line` (as str.splitlines) or `paragraph` (parted by blank lines).
        clean: strip kept lines, remove citation marks (`[12]`, `[edit]`) and join lines by line feeds, as C4 does; else
            a text of which nothing is dropped stays the same bytes, and a dropped line goes with its break.
        tokens: counts tokens of lines, for rules that use them.
        identify: languages of lines, for rules that use them; the whole line is read, so a short one tells little.

    Returns:
        The edit. Memory: the text once more, and about 200 bytes a line.

    Raises:
        RuleError: for a rule that cannot be used.
    """
    spans = _spans(text, unit)
    drop, undecided = decide(_frame(spans, tokens, identify, set(signal_names(rules))), rules)
    dropped = drop != 0
    size, content, offsets = edited_text(spans, dropped, len(text), clean, property_table())
    mask = np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
    by_reason, sizes = _by_first_reason(drop, spans, reasons(rules))
    return LineEdit(
        _array(content[:size], offsets, mask),
        np.bincount(spans.rows, minlength=len(text)),
        np.bincount(spans.rows[dropped], minlength=len(text)),
        np.bincount(spans.rows[undecided != 0], minlength=len(text)),
        by_reason,
        sizes,
    )


def _array(content: np.ndarray, offsets: np.ndarray, mask: np.ndarray) -> pa.Array:
    """A large_string array of these buffers, null where `mask` is true."""
    valid = pa.py_buffer(np.packbits(~mask, bitorder="little")) if mask.any() else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.large_string(), len(mask), buffers, int(mask.sum()))


def _by_first_reason(drop: np.ndarray, spans: SignalColumns, names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Dropped lines and their bytes, each under its lowest bit."""
    counts, sizes = {}, {}
    left = drop != 0
    for bit, name in enumerate(names):
        here = left & (drop >> np.uint64(bit) & np.uint64(1)).astype(bool)
        counts[name] = int(here.sum())
        sizes[name] = int((spans.stops - spans.starts)[here].sum())
        left &= ~here
    return counts, sizes
