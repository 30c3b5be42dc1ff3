"""Amounts of the recipe: a number with a unit, such as `3T`, `2000 train steps`, `60 GiB` or `15 min`.

`K M B T` are thousand, million, billion (1e9) and trillion (1e12), and mean tokens where no other unit follows.
Bytes are always written with two or three letters (`60 GiB`, `60 GB`), so `10B` is never ten bytes.
Arithmetic is exact: an amount is a whole number of its smallest unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Unit = Literal["tokens", "train steps", "sequences", "bytes", "seconds", "points", "shards"]

_MULTIPLES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_WORDS: dict[str, tuple[Unit, int]] = {
    "token": ("tokens", 1),
    "tokens": ("tokens", 1),
    "train step": ("train steps", 1),
    "train steps": ("train steps", 1),
    "sequence": ("sequences", 1),
    "sequences": ("sequences", 1),
    "point": ("points", 1),
    "points": ("points", 1),
    "shard": ("shards", 1),
    "shards": ("shards", 1),
    "byte": ("bytes", 1),
    "bytes": ("bytes", 1),
    "s": ("seconds", 1),
    "min": ("seconds", 60),
    "h": ("seconds", 3600),
    "d": ("seconds", 86400),
}
for _power, _letter in enumerate("KMGTP", start=1):
    _WORDS[f"{_letter}iB"] = ("bytes", 1024**_power)
    _WORDS[f"{_letter}B"] = ("bytes", 1000**_power)
# What people write for a unit that is spelt otherwise here.
_SLIPS = {
    "k": "K", "m": "M", "b": "B", "t": "T", "g": "GiB", "G": "GiB", "gb": "GB", "mb": "MB", "kb": "KB", "tb": "TB",
    "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB", "Ki": "KiB", "Mi": "MiB", "Gi": "GiB", "Ti": "TiB",
    "step": "train steps", "steps": "train steps", "iterations": "train steps", "seqs": "sequences",
    "samples": "sequences", "sec": "s", "seconds": "s", "second": "s", "minute": "min", "minutes": "min", "mins": "min",
    "hour": "h", "hours": "h", "day": "d", "days": "d", "bn": "B", "mn": "M", "files": "shards", "times": "points",
}  # fmt: skip
_EXAMPLES: dict[Unit, str] = {
    "tokens": "3T or 300M",
    "train steps": "2000 train steps",
    "sequences": "1024 sequences",
    "bytes": "60 GiB",
    "seconds": "15 min",
    "points": "20 points",
    "shards": "50 shards",
}
_SHAPE = re.compile(r"\s*(?P<number>[+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-z ]*?)\s*")


@dataclass(frozen=True, slots=True)
class Amount:
    """A whole number of one unit: `Amount(2_700_000_000_000, "tokens")` is `2.7T`."""

    number: int
    unit: Unit

    def __str__(self) -> str:
        """The amount as a recipe writes it: `2.7T`, `2000 train steps`, `64 MiB`, `15 min`."""
        return _written(self)


def amount(written: object, units: Sequence[Unit] = get_args(Unit)) -> Amount:
    """Read an amount whose unit must be one of `units`; a bare 0 needs none.

    Raises:
        ValueError: with what is wrong and what to write instead.
    """
    if isinstance(written, Amount):
        return _of_unit(written, str(written), units)
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise ValueError(f"an amount is wanted, such as {_examples(units)}")
    match = _SHAPE.fullmatch(str(written))
    if match is None:
        raise ValueError(f"not an amount; write a number and a unit, such as {_examples(units)}")
    number, unit = Fraction(match["number"].replace("_", "")), " ".join(match["unit"].split())
    if number < 0:
        raise ValueError("an amount is not negative")
    if not unit:
        return _without_unit(number, units)
    multiple, word = _split_unit(unit, match["number"], units)
    kind, factor = _WORDS[word]
    whole = number * multiple * factor
    if whole.denominator != 1:
        raise ValueError(f"{str(written).strip()} is {float(whole):g} {kind}, and only whole {kind} count")
    return _of_unit(Amount(int(whole), kind), f"{match['number']}{unit}", units)


def in_tokens(size: Amount, *, batch_tokens: int, context: int) -> int:
    """Tokens of an amount given in tokens, sequences of `context` tokens or train steps of `batch_tokens` tokens."""
    per_unit = {"tokens": 1, "sequences": context, "train steps": batch_tokens}
    if size.unit not in per_unit:
        raise ValueError(f"{size} counts {size.unit}, which are no tokens")
    return size.number * per_unit[size.unit]


def told_tokens(number: float, *, up: bool = False) -> str:
    """A number of tokens to three digits, as a recipe would write it: 325582848000 -> `326B tokens`.

    Args:
        number: of tokens.
        up: round up, where a budget so large is to be enough.
    """
    return f"{in_three_digits(number, math.ceil if up else round)} tokens"


def in_three_digits(number: float | Fraction, to_whole: Callable[[Fraction], int] = round) -> str:
    """A number of tokens as a recipe writes it, rounded to three digits: to the nearest, or by `ceil` or `floor`.

    >>> in_three_digits(4_719_999), in_three_digits(4_719_999, math.floor)
    ('4.72M', '4.71M')
    """
    grain = 10 ** max(0, len(str(int(number))) - 3)
    whole = to_whole(Fraction(number) / grain)
    return str(Amount(whole * grain, "tokens")).removesuffix(" tokens")


def _split_unit(unit: str, number: str, units: Sequence[Unit]) -> tuple[int, str]:
    """`M` -> (1e6, tokens), `K sequences` -> (1e3, sequences), `GiB` -> (1, GiB)."""
    first, _, rest = unit.partition(" ")
    if unit in _WORDS:
        return 1, unit
    if first in _MULTIPLES and (not rest or rest in _WORDS):
        return _MULTIPLES[first], rest or "tokens"
    slip = _SLIPS.get(unit) or _SLIPS.get(unit.lower())
    if slip is not None and slip in _MULTIPLES and "tokens" not in units:
        slip = None
    meant = f"did you mean {_join(number, slip)}?" if slip else f"write {_examples(units)}"
    raise ValueError(f"unknown unit {unit!r}; {meant}")


def _without_unit(number: Fraction, units: Sequence[Unit]) -> Amount:
    """0 of anything is 0; any other bare number could mean several things."""
    if number == 0:
        return Amount(0, units[0])
    bare = int(number) if number.denominator == 1 else float(number)
    plain: dict[Unit, str] = {"bytes": f"{bare} GiB", "seconds": f"{bare} min"}
    choices = " or ".join(repr(plain.get(unit, f"{bare} {unit}")) for unit in units)
    raise ValueError(f"a number without a unit; did you mean {choices}?")


def _of_unit(size: Amount, written: str, units: Sequence[Unit]) -> Amount:
    """Refuse an amount of another kind, and guess `3 TB` -> `3T` where tokens are wanted."""
    if size.unit in units:
        return size
    wanted = " or ".join(units)
    letters = re.sub(r"[^A-Za-z]", "", written)
    if size.unit == "bytes" and "tokens" in units and letters in ("KB", "MB", "TB", "GB", "KiB", "MiB", "GiB", "TiB"):
        multiple = {"G": "B"}.get(letters[0], letters[0])
        raise ValueError(
            f"{letters} counts bytes, {wanted} are wanted; did you mean {written[: -len(letters)]}{multiple}?"
        )
    if size.unit == "tokens" and "bytes" in units:
        multiple = {"B": "G"}.get(letters[:1], letters[:1])
        raise ValueError(f"this counts tokens, bytes are wanted; did you mean {written.rstrip(letters)} {multiple}iB?")
    raise ValueError(f"this counts {size.unit}, {wanted} are wanted, such as {_examples(units)}")


def _examples(units: Sequence[Unit]) -> str:
    return " or ".join(_EXAMPLES[unit] for unit in units)


def _join(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit in _MULTIPLES else f"{number} {unit}"


def _written(size: Amount) -> str:
    """The shortest exact way to write an amount."""
    if size.unit == "tokens":
        for letter in ("T", "B", "M", "K"):
            scaled = Fraction(size.number, _MULTIPLES[letter])
            if scaled >= 1 and (scaled * 1000).denominator == 1:
                return f"{_decimal(scaled)}{letter}"
        return f"{size.number} tokens" if size.number else "0"
    scales = {"bytes": ("PiB", "TiB", "GiB", "MiB", "KiB"), "seconds": ("d", "h", "min")}
    for word in scales.get(size.unit, ()):
        if size.number and size.number % _WORDS[word][1] == 0:
            return f"{size.number // _WORDS[word][1]} {word}"
    return f"{size.number} {'s' if size.unit == 'seconds' else size.unit}"


def _decimal(number: Fraction) -> str:
    """A fraction with at most three decimals, exactly: 27/10 -> 2.7."""
    thousandths = int(number * 1000)
    return f"{thousandths // 1000}.{thousandths % 1000:03d}".rstrip("0").rstrip(".")
