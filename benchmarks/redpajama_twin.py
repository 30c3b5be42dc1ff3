"""RedPajama-V2's signals in plain Python, written from their published definitions: slow, and independent of ours.

Tests and `benchmarks.agreement` compare our kernels with it. `letter` is a pattern of the letters that stand alone as
words: ours stand alone in scripts without spaces; the published code has no such letters (`letter=None`). In its
place may stand a function that puts blanks between words.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

from curation.text.stop_words import STOP_WORDS

BULLETS = tuple("\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013")
Letters = str | Callable[[str], str] | None
HAN = "[\u3400-\u9fff]"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Of a letter that stands alone, in NFD: the voiced kana are two code points.
_MARKS = "[" + "".join(chr(x) for x in range(0x110000) if unicodedata.category(chr(x)).startswith("M")) + "]*"


def normalised(text: str) -> str:
    """Without ASCII punctuation, in lower case, white space made one blank, NFD."""
    kept = text.translate(_PUNCTUATION).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", kept))


def _spaced(text: str, letter: Letters, marks: str = "") -> str:
    """Blanks around letters that stand alone."""
    if callable(letter):
        return letter(text)
    return text if letter is None else re.sub(f"({letter}{marks})", r" \1 ", text)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _ngram_shares(words: list[str]) -> dict[str, float | None]:
    total, found = sum(map(len, words)), {}
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            gram, times = counts.most_common(1)[0] if grams else ((), 0)
            found[f"rps_doc_frac_chars_top_{n}gram"] = sum(map(len, gram)) * times / total if times > 1 else 0.0
        else:
            covered = {k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(i, i + n)}
            found[f"rps_doc_frac_chars_dupe_{n}grams"] = sum(len(words[k]) for k in covered) / total if grams else 0.0
    return found


def _line_shares(text: str, letter: Letters) -> dict[str, float | None]:
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    normal = [normalised(line) for line in lines]
    words = [_spaced(line, letter, _MARKS).split() for line in normal]
    count = len(lines)
    return {
        "rps_doc_frac_lines_end_with_ellipsis": _share(sum(x.rstrip().endswith(("...", "…")) for x in lines), count),
        "rps_lines_ending_with_terminal_punctution_mark_mean": _share(
            sum(x.rstrip().endswith((".", "!", "?", "”")) for x in lines), count
        ),
        "rps_lines_javascript_counts_sum": sum(x.count("javascript") for x in words),
        "rps_lines_num_words_mean": _share(sum(map(len, words)), count),
        "rps_lines_numerical_chars_fraction_mean": _share(
            sum(sum(map(str.isnumeric, x)) / len(x) for x in normal if x), count
        ),
        "rps_lines_start_with_bulletpoint_mean": _share(sum(x.lstrip().startswith(BULLETS) for x in lines), count),
        "rps_lines_uppercase_letter_fraction_mean": _share(
            sum(sum(map(str.isupper, x)) / len(x) for x in lines), count
        ),
    }


def twin(text: str, language: str, letter: Letters = HAN) -> dict[str, float | None]:
    """All document signals and aggregated line signals of one text; None where a share has no denominator."""
    raw, norm = re.findall(r"\w+|[^\w\s]+", _spaced(text, letter)), normalised(text)
    words = _spaced(norm, letter, _MARKS).split()  # a normalised word keeps its marks
    symbols = text.count("#") + text.count("...") + text.count("…")
    shares = [count / len(words) for count in Counter(words).values()]
    return {
        **dict.fromkeys(("ccnet_length", "ccnet_original_length"), len(text)),  # no step edited the text
        **dict.fromkeys(("ccnet_nlines", "ccnet_original_nlines"), text.count("\n") + 1),
        "rps_doc_word_count": len(words),
        "rps_doc_mean_word_length": _share(sum(map(len, words)), len(words)),
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "rps_doc_symbol_to_word_ratio": _share(symbols, len(raw)),
        "rps_doc_frac_no_alph_words": 1 - sum(bool(re.search("[a-zA-Z]", w)) for w in raw) / len(raw) if raw else None,
        "rps_doc_frac_unique_words": _share(len(set(words)), len(words)),
        "rps_doc_unigram_entropy": -sum(x * math.log(x) for x in shares) if words else None,
        "rps_doc_frac_all_caps_words": _share(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_stop_word_fraction": sum(w in STOP_WORDS[language] for w in raw) / len(raw) if raw else 0.0,
        "rps_doc_lorem_ipsum": norm.count("lorem ipsum") / len(norm) if norm else 0.0,
        "rps_doc_curly_bracket": (text.count("{") + text.count("}")) / len(text) if text else 0.0,
        **_ngram_shares(words),
        **_line_shares(text, letter),
    }
