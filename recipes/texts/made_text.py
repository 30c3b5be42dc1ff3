"""Text made by code, for recipes that need no network: the same bytes on every machine.

A made text has what curation looks for: whole documents, near-duplicates of some, exact copies, a boilerplate
paragraph, short junk, scrambled words, documents in another language, and a few records that cannot be read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache

from recipes.texts import made_words as words

MADE_VERSION = 1
"""Raise when the made text changes."""

NUM_DOCUMENTS = 300


class Chance:
    """A seeded chooser on `Random.random` alone, the one method whose numbers Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._random.random() * n)

    def one(self, choices: list[str]) -> str:
        """One of them."""
        return choices[self.below(len(choices))]

    def several(self, choices: list[str], n: int) -> list[str]:
        """N different ones, in a random order."""
        rest = list(choices)
        return [rest.pop(self.below(len(rest))) for _ in range(n)]

    def happens(self, share: float) -> bool:
        """True in this share of calls."""
        return self._random.random() < share


@cache
def _phrases(text: str) -> tuple[str, ...]:
    """Phrases of a word list: parted by semicolons and line ends, or by spaces where there is no semicolon."""
    if ";" not in text:
        return tuple(text.split())
    return tuple(phrase.strip() for line in text.strip().splitlines() for phrase in line.split(";") if phrase.strip())


def _patterns(text: str) -> list[str]:
    return text.strip().splitlines()


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


class _Words:
    """Hands out the words of a document: each list shuffled once, then round and round, so that few pairs recur."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._left: dict[str, list[str]] = {}

    def next(self, text: str) -> str:
        if not self._left.get(text):
            phrases = list(_phrases(text))
            self._left[text] = self._chance.several(phrases, len(phrases))
        return self._left[text].pop()


def _german_sentence(pattern: str, pick: _Words) -> str:
    subject, subject2, person = (pick.next(words.GERMAN_PEOPLE).split("|") for _ in range(3))
    thing, thing2 = (pick.next(words.GERMAN_THINGS).split("|") for _ in range(2))
    time, place, manner = pick.next(words.GERMAN_TIMES), pick.next(words.GERMAN_PLACES), pick.next(words.GERMAN_MANNERS)
    return _capital(
        pattern.format(
            s=subject[0], S=_capital(subject[0]), s2=subject2[0], o=thing[1], o2=thing2[1], d=person[2],
            v=pick.next(words.GERMAN_VERBS), v2=pick.next(words.GERMAN_VERBS),
            t=time, T=_capital(time), p=place, P=_capital(place), m=manner, M=_capital(manner),
        )
    )  # fmt: skip


def _english_sentence(pattern: str, pick: _Words) -> str:
    subject = pick.next(words.ENGLISH_PEOPLE)
    time, place = pick.next(words.ENGLISH_TIMES), pick.next(words.ENGLISH_PLACES)
    return _capital(
        pattern.format(
            s=subject, S=_capital(subject), s2=pick.next(words.ENGLISH_PEOPLE),
            o=pick.next(words.ENGLISH_THINGS), o2=pick.next(words.ENGLISH_THINGS),
            v=pick.next(words.ENGLISH_VERBS), v2=pick.next(words.ENGLISH_VERBS),
            t=time, T=_capital(time), p=place, P=_capital(place), m=pick.next(words.ENGLISH_MANNERS),
        )
    )  # fmt: skip


def _chinese_sentence(pattern: str, pick: _Words) -> str:
    return pattern.format(
        s=pick.next(words.CHINESE_PEOPLE), s2=pick.next(words.CHINESE_PEOPLE),
        o=pick.next(words.CHINESE_THINGS), o2=pick.next(words.CHINESE_THINGS),
        v=pick.next(words.CHINESE_VERBS), v2=pick.next(words.CHINESE_VERBS),
        t=pick.next(words.CHINESE_TIMES), p=pick.next(words.CHINESE_PLACES), m=pick.next(words.CHINESE_MANNERS),
    )  # fmt: skip


def _prose(chance: Chance, patterns: str, sentence: Callable[[str, _Words], str], glue: str) -> str:
    """Two to five paragraphs of three to six sentences; a pattern comes again only when all have been used."""
    pick = _Words(chance)
    paragraphs, left = [], list[str]()
    for _ in range(2 + chance.below(4)):
        sentences = []
        for _ in range(3 + chance.below(4)):
            left = left or chance.several(_patterns(patterns), len(_patterns(patterns)))
            sentences.append(sentence(left.pop(), pick))
        paragraphs.append(glue.join(sentences))
    return "\n\n".join(paragraphs)


def _german(chance: Chance) -> str:
    return _prose(chance, words.GERMAN_PATTERNS, _german_sentence, " ")


def _english(chance: Chance) -> str:
    return _prose(chance, words.ENGLISH_PATTERNS, _english_sentence, " ")


def _chinese(chance: Chance) -> str:
    return _prose(chance, words.CHINESE_PATTERNS, _chinese_sentence, "")


_BODIES = (
    "    {a}_{b} = [{c} for {c} in {d} if {c} != {n}]\n    return {a}_{b}\n",
    "    {a}_{b} = 0\n    for {c} in sorted({d}):\n        {a}_{b} += {c} * {n}\n    return {a}_{b}\n",
    "    {a}_{b} = {{}}\n    for {c} in {d}:\n        {a}_{b}[{c}] = {a}_{b}.get({c}, 0) + {n}\n    return {a}_{b}\n",
    "    if not {d}:\n        raise ValueError('no {d} to {v}')\n    {c} = max({d})\n    return {c} - {n}\n",
    "    {a}_{b} = []\n    while {d}:\n        {c} = {d}.pop()\n        {a}_{b} += [{c} // {n}]\n    return {a}_{b}\n",
    "    {c} = len({d}) // {n}\n    return {d}[:{c}], {d}[{c}:]\n",
)


def _code(chance: Chance) -> str:
    """A module of four to nine functions that compile."""
    pick = _Words(chance)
    functions = []
    for _ in range(4 + chance.below(6)):
        a, b, c, d = (pick.next(words.CODE_NOUNS) for _ in range(4))
        verb = pick.next(words.CODE_VERBS)
        about = f'    """{verb.capitalize()} each {c} of the {d}, and keep the {a} by {b}."""\n'
        body = chance.one(list(_BODIES)).format(a=a, b=b, c=c, d=d, v=verb, n=2 + chance.below(97))
        functions.append(f"def {verb}_{a}_{b}({d}):\n{about}{body}")
    return "\n\n".join(functions)


_MAKERS: dict[str, Callable[[Chance], str]] = {"de": _german, "en": _english, "zh": _chinese, "code": _code}
_FOREIGN = {"de": "en", "en": "de", "zh": "en"}

_UNREADABLE = (
    b'{"id": "broken", "text": "a record that was cut off in the mid\n',
    b'{"id": "number", "text": 42}\n',
    b'{"id": "absent", "title": "a record without text"}\n',
    b'["a list", "is no record"]\n',
)


def _scrambled(chance: Chance, text: str, language: str) -> str:
    """The same words, or Chinese characters, in no order."""
    parts = list(text) if language == "zh" else text.split()
    return ("" if language == "zh" else " ").join(chance.several(parts, len(parts)))


def _near_copy(chance: Chance, text: str) -> str:
    """A copy in which one line in ten is left out and an ending added."""
    lines = text.split("\n")
    kept = [line for line in lines if not chance.happens(0.1)] or lines
    return "\n".join(kept) + f"\n\n({2001 + chance.below(20)})"


def _document(chance: Chance, language: str, before: list[str]) -> str:
    """One document: mostly fresh; the shares of the others are what the recipes' tests count on."""
    kind = chance.below(100)
    if kind < 10 and before:
        return _near_copy(chance, chance.one(before))
    if kind < 13 and before:
        return chance.one(before)
    if kind < 18:
        return chance.one(words.JUNK[language])
    if kind < 21 and language in _FOREIGN:
        return _MAKERS[_FOREIGN[language]](chance)
    text = _MAKERS[language](chance)
    if kind < 25 and language != "code":
        return _scrambled(chance, text, language)
    if kind < 37:
        parts = [words.BOILERPLATE[language], text]
        text = "\n\n".join(parts if language == "code" else reversed(parts))
    before.append(text)
    return text


def made_lines(name: str, num_documents: int = NUM_DOCUMENTS, seed: int = 1) -> Iterator[bytes]:
    """JSON lines of a made text: id, text, date, licence, and a few that cannot be read.

    Args:
        name: made_de, made_en, made_zh or made_code.
        num_documents: readable ones, of about 1.3 kB.
        seed: another one makes another text of the same kind.

    Raises:
        KeyError: for another name.
    """
    language = name.removeprefix("made_")
    if language not in _MAKERS or not name.startswith("made_"):
        raise KeyError(f"no text is made under the name {name!r}; there is {', '.join(f'made_{k}' for k in _MAKERS)}")
    chance = Chance(seed * 1000 + sorted(_MAKERS).index(language))
    before: list[str] = []
    for number in range(num_documents):
        text = _document(chance, language, before)
        date = f"{2001 + chance.below(20)}-{1 + chance.below(12):02}-{1 + chance.below(28):02}"
        record = {"id": f"{name}-{number}", "text": text, "date": date, "licence": "CC0-1.0"}
        yield json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if number % 75 == 74:
            yield _UNREADABLE[number // 75 % len(_UNREADABLE)]
    invalid = json.dumps({"id": f"{name}-latin1", "text": _MAKERS["de"](chance)}, ensure_ascii=False)
    if language == "de":
        yield invalid.encode("latin-1", "replace") + b"\n"
