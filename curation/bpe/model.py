"""From a tokenizer.json to the tables of `curation.bpe.parts`, or the reason why not.

Only what is reproduced exactly is taken: every field of the file is looked at, and one that is not known refuses the
file as a whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from curation.bpe.classes import NUM_CODE_POINTS
from curation.bpe.merges import pair_table
from curation.bpe.parts import Model, Names, fill_joins, fill_names
from curation.bpe.words import CL100K, DEEPSEEK, GPT2, OWN, WHOLE, kind_table

_SPACE = "▁"
_OWN_PATTERN = r" ?[\p{L}\p{M}&&[^\p{Han}]]+|\p{Han}+|DIGITS| ?[^\s\p{L}\p{M}\p{N}]+|[\r\n]+|[^\S\r\n]+(?=[^\S\r\n])|\s"
_CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    _OWN_PATTERN.replace("DIGITS", r"\p{N}"): (OWN, 1),
    _OWN_PATTERN.replace("DIGITS", r"\p{N}{1,3}"): (OWN, 3),
    _OWN_PATTERN.replace("DIGITS", r" ?\p{N}+"): (OWN, 0),
    _CL100K_PATTERN.replace("DIGITS", r"\p{N}"): (CL100K, 1),
    _CL100K_PATTERN.replace("DIGITS", r"\p{N}{1,3}"): (CL100K, 3),
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": (GPT2, 0),
}
_DEEPSEEK_PATTERNS = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"""
    + "\r\n"
    + r"""\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+["""
    + "\r\n"
    + r"""]*|\s*["""
    + "\r\n"
    + r"""]+|\s+(?!\S)|\s+""",
]
_JOINS_PER_MERGE = 16  # bits, so that about one in 20 is set


class NotReproducedError(ValueError):
    """A tokenizer.json holds something that `curation.bpe` does not reproduce; the message says what."""


@dataclass(frozen=True)
class Pattern:
    """How text becomes words.

    Attributes:
        family, digits: see `curation.bpe.words.word_end`.
        byte_level: whether words are spelt in bytes; else in characters, a space as U+2581.
        prefix: a space goes before the text: never, always, or `missing` (unless there is one).
        composed: whether text is brought to NFC first.
    """

    family: int
    digits: int
    byte_level: bool
    prefix: str = "never"
    composed: bool = False


def read_model(stored: Mapping[str, Any]) -> tuple[Model, Pattern]:
    """Tables and pattern of a tokenizer.json.

    Raises:
        NotReproducedError: if it does anything that is not reproduced here.
    """
    model = stored["model"]
    if model.get("type") != "BPE":
        raise NotReproducedError(f"its model is {model.get('type')}, not BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise NotReproducedError(f"its model has {name}")
    pattern = read_pattern(stored)
    vocabulary: dict[str, int] = model["vocab"]
    if len(set(vocabulary.values())) < len(vocabulary):
        raise NotReproducedError("two of its tokens have one id")
    symbols, unknown = _symbols(model, pattern)
    spelt, own = _spelt(vocabulary, pattern.byte_level)
    merges = _merges(model["merges"], vocabulary)
    if model.get("ignore_merges") and not pattern.byte_level:
        raise NotReproducedError("its model has ignore_merges over characters")
    tables = Model(
        pairs=pair_table(*merges),
        symbols=symbols,
        unknown=unknown,
        fuse=bool(model.get("fuse_unk")),
        joins=np.zeros(_joins_bytes(len(merges[0])), np.uint8),
        pieces=pattern.byte_level,
        names=_names(own if model.get("ignore_merges") else {}),
        kinds=kind_table(pattern.family),
        family=pattern.family,
        digits=pattern.digits,
    )
    fill_joins(tables.joins, *_ends_of_merges(merges, spelt, pattern.byte_level))
    return tables, pattern


def read_pattern(stored: Mapping[str, Any]) -> Pattern:
    """How a tokenizer.json cuts text into words.

    Raises:
        NotReproducedError: if it is a way not known here.
    """
    composed, prepended = _normalizer(stored.get("normalizer"))
    steps = _flat(stored.get("pre_tokenizer"), "pretokenizers")
    *splits, last = steps or [{}]
    kind = last.get("type")
    if prepended:
        if steps:
            raise NotReproducedError("it writes spaces as U+2581 in its normalizer and cuts words as well")
        return Pattern(WHOLE, 0, False, "always")
    if kind == "ByteLevel":
        family, digits = _byte_level_words(splits, last)
        prefix = "missing" if last.get("add_prefix_space", True) else "never"
        if prefix == "missing" and splits:
            raise NotReproducedError("it puts a space before every word that its patterns cut")
        return Pattern(family, digits, True, prefix, composed)
    if kind == "Metaspace":
        return Pattern(*_metaspace_words(splits, last), composed)
    raise NotReproducedError(f"its pre_tokenizer is {kind or 'none'} after {len(splits)} others")


def _normalizer(stored: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Whether text is brought to NFC; whether U+2581 goes before it and in place of spaces (Llama 2)."""
    steps = _flat(stored, "normalizers")
    if not steps:
        return False, False
    if [step["type"] for step in steps] == ["NFC"]:
        return True, False
    spaced = [
        {"type": "Prepend", "prepend": _SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
    ]
    if steps == spaced:
        return False, True
    raise NotReproducedError(f"its normalizer is {' + '.join(step['type'] for step in steps)}")


def _byte_level_words(splits: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> tuple[int, int]:
    """Family and digits of splits before ByteLevel, or of its own pattern."""
    if last.get("use_regex", True):
        if not splits:
            return GPT2, 0
        if list(splits) == [{"type": "Digits", "individual_digits": True}]:
            return GPT2, 1
        raise NotReproducedError("it cuts words before the pattern of ByteLevel cuts them again")
    patterns = [_regex(split) for split in splits]
    if patterns == _DEEPSEEK_PATTERNS:
        return DEEPSEEK, 3
    if len(patterns) == 1 and patterns[0] in _PATTERNS:
        return _PATTERNS[patterns[0]]
    if not patterns:
        return WHOLE, 0
    raise NotReproducedError(f"its pattern of words is not known: {' then '.join(patterns)[:80]!r}")


def _metaspace_words(splits: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> tuple[int, int, bool, str]:
    """Family, digits, no bytes, and prefix of splits before Metaspace."""
    scheme = last.get("prepend_scheme", "always")
    if last.get("replacement") != _SPACE or last.get("split", True):
        raise NotReproducedError("its Metaspace cuts words or writes spaces in another way")
    if not splits:
        return WHOLE, 0, False, "never" if scheme == "never" else "missing"
    patterns = [_regex(split) for split in splits]
    known = _PATTERNS.get(patterns[0]) if len(patterns) == 1 else None
    if known is None or scheme != "never":
        raise NotReproducedError("its pattern of words before Metaspace is not known")
    return (*known, False, "never")


def _regex(split: Mapping[str, Any]) -> str:
    """The pattern of a Split whose matches and what is between them are words."""
    if split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert"):
        raise NotReproducedError(f"its pre_tokenizer has {split.get('type')} {split.get('behavior', '')}".rstrip())
    pattern = split["pattern"].get("Regex")
    if pattern is None:
        raise NotReproducedError("it splits at a string")
    return str(pattern)


def _flat(stored: Mapping[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    """Steps of a normalizer or pre_tokenizer, sequences opened."""
    if stored is None:
        return []
    if stored.get("type") != "Sequence":
        return [dict(stored)]
    return [step for each in stored[inside] for step in _flat(each, inside)]


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _symbols(model: Mapping[str, Any], pattern: Pattern) -> tuple[np.ndarray, int]:
    """Ids of bytes, or of characters and byte tokens (see `Model`), and of the unknown token."""
    vocabulary = model["vocab"]
    if pattern.byte_level:
        symbols = np.full(256, -1, np.int32)
        for character, byte in byte_alphabet().items():
            symbols[byte] = vocabulary.get(character, -1)
        if (symbols < 0).any():
            raise NotReproducedError(f"{int((symbols < 0).sum())} of the 256 bytes have no token")
        return symbols, -1
    symbols = np.full(NUM_CODE_POINTS + 256, -1, np.int32)
    for token, number in vocabulary.items():
        if len(token) == 1:
            symbols[ord(token)] = number
    symbols[0x20] = symbols[ord(_SPACE)]
    tokens = [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    present = sum(number >= 0 for number in tokens)
    if model.get("byte_fallback") and present == 256:
        symbols[NUM_CODE_POINTS:] = tokens
        return symbols, -1
    if model.get("byte_fallback") and present:
        raise NotReproducedError(f"{256 - present} of the 256 byte tokens are missing")
    unknown = vocabulary.get(model.get("unk_token"), -1)
    if unknown < 0:
        raise NotReproducedError("characters without a token have neither bytes nor an unknown token")
    return symbols, unknown


def _spelt(vocabulary: Mapping[str, int], byte_level: bool) -> tuple[dict[int, bytes], dict[bytes, int]]:
    """Text of each id in bytes, and the id of each text; tokens outside the alphabet of bytes are left out."""
    if not byte_level:
        spelt = {number: token.encode("utf-8", "surrogatepass") for token, number in vocabulary.items()}
        return spelt, {}
    alphabet = byte_alphabet()
    spelt = {}
    for token, number in vocabulary.items():
        try:
            spelt[number] = bytes(map(alphabet.__getitem__, token))
        except KeyError:
            continue
    return spelt, {text: number for number, text in spelt.items()}


def _merges(stored: Sequence[Any], vocabulary: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids of left, right and result of each merge by rank, uint64 (m,)."""
    found = []
    for merge in stored:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        found.append((vocabulary[left], vocabulary[right], vocabulary[left + right]))
    columns = np.array(found, np.uint64).reshape(-1, 3)
    return columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy()


def _joins_bytes(merges: int) -> int:
    return 1 << max(10, (merges * _JOINS_PER_MERGE // 8).bit_length())


def _ends_of_merges(
    merges: tuple[np.ndarray, np.ndarray, np.ndarray], spelt: Mapping[int, bytes], byte_level: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the two sides of each merge have at its joint, for `fill_joins`; merges inside a character are left out."""
    first = {number: _first_of(text) for number, text in spelt.items()}
    last = {number: _last_of(text) for number, text in spelt.items()}
    found = set()
    for left, right in zip(merges[0].tolist(), merges[1].tolist()):
        a, b = last.get(left), first.get(right)
        if a is not None and b is not None:
            found |= {(a[0] + 2 * b[0], c, d) for c in _written(a[1], byte_level) for d in _written(b[1], byte_level)}
    columns = np.array(sorted(found), np.int64).reshape(-1, 3)
    return columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy()


def _written(end: int, byte_level: bool) -> tuple[int, ...]:
    """What text has where a merge ends so: U+2581 is also a space."""
    return (end, 0x20) if end == ord(_SPACE) and not byte_level else (end,)


def _first_of(text: bytes) -> tuple[int, int] | None:
    """(0, code point) of the first character, (1, first byte) where it is cut off, None inside a character."""
    if not text or 0x80 <= text[0] < 0xC0:
        return None
    size = _size_of(text[0])
    return (0, ord(text[:size].decode("utf-8", "surrogatepass"))) if _whole(text[:size], size) else (1, text[0])


def _last_of(text: bytes) -> tuple[int, int] | None:
    """(0, code point) of the last character, (1, last byte) of a piece of one, None where it ends inside one."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if not 0x80 <= byte < 0xC0:
            size = _size_of(byte)
            if size == back and _whole(text[-back:], size):
                return (0, ord(text[-back:].decode("utf-8", "surrogatepass")))
            return None if size > back else (1, text[-1])
    return (1, text[-1]) if text else None


def _size_of(lead: int) -> int:
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _whole(text: bytes, size: int) -> bool:
    """Whether some bytes are one character."""
    if len(text) != size:
        return False
    try:
        return len(text.decode("utf-8", "surrogatepass")) == 1
    except UnicodeDecodeError:
        return False


def _names(words: Mapping[bytes, int]) -> Names:
    """The table of words that are tokens by their name."""
    ends = np.concatenate(([0], np.cumsum([len(word) for word in words]))).astype(np.int64)
    slots = np.zeros(1 << (2 * len(words)).bit_length() if words else 0, np.int32)
    text = np.frombuffer(b"".join(words), np.uint8)
    ids = np.array(list(words.values()), np.uint32)
    names = Names(slots, ids, ends, text, max((len(word) for word in words), default=0))
    if words:
        fill_names(names)
    return names


def unassigned() -> np.ndarray:
    """Code points that Python's Unicode has no character for, bool (0x110000,): nothing is known of their NFC."""
    return np.array([unicodedata.category(chr(code)) == "Cn" for code in range(0x110000)])
