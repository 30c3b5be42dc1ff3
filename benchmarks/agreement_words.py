"""Why two tokenizers lead to two decisions: where their words or sentences differ, and which differences suffice.

The places of a text in which two segmentations differ are put into classes by what stands there. A decision's
explanation is found by trial: the text is segmented as ours, but as theirs in the places of one class alone (then of
more and more classes), and the filter is asked again, until it decides as it does on their segmentation.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from curation.text.dictionary import Dictionary
from curation.text.properties import property_table
from curation.text.scan import segments_of
from curation.text.segment import frozen
from curation.text.sentences import next_sentence
from curation.text.spans import trim_start

Span = tuple[int, int]
# What stands where words differ, the first that fits.
_CLASSES = (
    ("LaTeX", re.compile(r"[\\${}^]")),
    ("Han words", re.compile(r"[\u3400-\u9fff]")),
    ("Markdown, tables and code", re.compile(r"[*|`_#=<>~\[\]/+@]")),
    ("numbers", re.compile(r"\d")),
    ("apostrophes", re.compile(r"['’]")),
    ("hyphens and dashes", re.compile(r"[-–—‑]")),
    ("full stops and ellipses", re.compile(r"[.…]")),
    ("runs of symbols", re.compile(r"^[\W]+$")),
)


def tokenizer_of(words: Callable[[str], list[str]], sentences: Callable[[str], Sequence[Span]]) -> Any:
    """A tokenizer for datatrove's slot."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Given(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return words(text)

        def span_tokenize(self, text: str) -> list[Span]:
            return list(sentences(text))

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[start:stop] for start, stop in sentences(text)]

    return Given("any")


def our_words(text: str, dictionary: Dictionary | None = None) -> list[str]:
    """Our segments, symbols among them."""
    return [segment for segment, _ in segments_of(text, dictionary)]


def our_sentences(text: str) -> list[Span]:
    """Our sentences as places in the string."""
    raw = text.encode()
    buf, table, found = frozen(np.frombuffer(raw, np.uint8)), property_table(), []
    at, byte, place = trim_start(buf, 0, len(raw), table), 0, 0
    while at < len(raw):
        stop = next_sentence(buf, at, len(raw), table)
        start = place + len(raw[byte:at].decode())
        byte, place = stop, start + len(raw[at:stop].decode())
        found.append((start, place))
        at = trim_start(buf, stop, len(raw), table)
    return found


def places(text: str, parts: Sequence[str]) -> list[Span]:
    """Where the parts stand, one after the other, nothing but white space and controls between them."""
    found, at = [], 0
    for part in parts:
        start = text.index(part, at)
        at = start + len(part)
        found.append((start, at))
    return found


def regions(ours: Sequence[Span], theirs: Sequence[Span]) -> Iterator[tuple[Sequence[Span], Sequence[Span]]]:
    """The smallest runs of spans of the two that overlap; equal spans are runs of one and one."""
    i = j = 0
    while i < len(ours) or j < len(theirs):
        first_i, first_j = i, j
        if j == len(theirs) or (i < len(ours) and ours[i][0] <= theirs[j][0]):
            end, i = ours[i][1], i + 1
        else:
            end, j = theirs[j][1], j + 1
        while True:
            if i < len(ours) and ours[i][0] < end:
                end, i = max(end, ours[i][1]), i + 1
            elif j < len(theirs) and theirs[j][0] < end:
                end, j = max(end, theirs[j][1]), j + 1
            else:
                break
        yield ours[first_i:i], theirs[first_j:j]


def word_class(piece: str) -> str:
    """What a piece of text is in which words differ."""
    return next((name for name, pattern in _CLASSES if pattern.search(piece)), "other words")


def sentence_class(text: str, end: int) -> str:
    """What stands before a sentence's end that only one of two has."""
    before, after = text[:end].rstrip(), text[end:].lstrip()
    if after[:1].islower():
        return "a lower-case letter follows"
    if re.search(r"\d\.$", before):
        return "a number and its full stop"
    if re.search(r"\b[^\W\d_]{1,4}\.$", before):
        return "a short word and its full stop"
    if re.search(r"[\"'”’»“‘)\]」』）]$", before) or re.match(r"[\"'”’»“‘)\]」』）]", after):
        return "a closing quote or bracket"
    return "other ends"


class Mixture:
    """Two segmentations of one text, and all between them.

    `classes` are those in which they differ, the most frequent first (ties by name).
    """

    def __init__(self, text: str, theirs: Sequence[str], dictionary: Dictionary | None = None) -> None:
        self.text = text
        pairs = regions(places(text, our_words(text, dictionary)), places(text, theirs))
        self.parts = [(tuple(a), tuple(b), None if a == b else self._class(a, b)) for a, b in pairs]
        self.classes = _by_number(name for _, _, name in self.parts if name)

    def _class(self, ours: Sequence[Span], theirs: Sequence[Span]) -> str:
        both = [*ours, *theirs]
        return word_class(self.text[min(a for a, _ in both) : max(b for _, b in both)])

    def words(self, chosen: Sequence[str]) -> list[str]:
        """Our words, but theirs in the places of the chosen classes."""
        return [self.text[a:b] for x, y, name in self.parts for a, b in (y if name in chosen else x)]


def mixed_sentences(text: str, theirs: Sequence[Span], chosen: Sequence[str] | None) -> tuple[list[Span], list[str]]:
    """Our sentences with their ends in the chosen classes (None: in all), and the classes of all differences."""
    ours, other = _ends(text, our_sentences(text)), _ends(text, theirs)
    differences = {end: sentence_class(text, end) for end in sorted(ours ^ other)}
    ends = other if chosen is None else ours ^ {end for end, name in differences.items() if name in chosen}
    cuts = [0, *sorted(ends)]
    return list(pairwise(cuts)), _by_number(differences.values())


def _ends(text: str, spans: Sequence[Span]) -> set[int]:
    """Ends of sentences, moved over the white space that follows, the text's own end among them."""
    skips = [m.span() for m in re.finditer(r"\s+", text)]
    starts = [start for start, _ in skips]
    found = set()
    for _, end in spans:
        at = bisect_left(starts, end + 1) - 1
        found.add(skips[at][1] if at >= 0 and skips[at][0] <= end < skips[at][1] else end)
    return found


def _by_number(names: Iterator[str] | Any) -> list[str]:
    return [name for name, _ in sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0]))]


def sufficient(classes: Sequence[str], decides_as_theirs: Callable[[Sequence[str]], bool]) -> tuple[str, ...] | None:
    """The first class that alone makes the decision theirs, or the first few together; None if even all do not."""
    for name in classes:
        if decides_as_theirs([name]):
            return (name,)
    for number in range(2, len(classes) + 1):
        if decides_as_theirs(classes[:number]):
            return tuple(classes[:number])
    return None
