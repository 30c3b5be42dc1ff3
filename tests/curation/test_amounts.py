"""Amounts: exact numbers with units, and errors that say what to write."""

from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.amounts import Amount, Unit, amount, in_tokens, told_tokens

SPAN = ("tokens", "train steps", "sequences")


@pytest.mark.parametrize(
    ("written", "number", "unit"),
    [
        ("3T", 3_000_000_000_000, "tokens"),
        ("2.7T", 2_700_000_000_000, "tokens"),
        ("300 M", 300_000_000, "tokens"),
        ("5 K tokens", 5_000, "tokens"),
        ("7 tokens", 7, "tokens"),
        ("1287460 train steps", 1_287_460, "train steps"),
        ("1.5K train steps", 1_500, "train steps"),
        ("1 train step", 1, "train steps"),
        ("1024 sequences", 1024, "sequences"),
        ("60 GiB", 60 * 2**30, "bytes"),
        ("60 GB", 60 * 10**9, "bytes"),
        ("1.5 KiB", 1536, "bytes"),
        ("15 min", 900, "seconds"),
        ("48 h", 172_800, "seconds"),
        ("20 points", 20, "points"),
        ("50 shards", 50, "shards"),
        ("1_000 tokens", 1000, "tokens"),
    ],
)
def test_amount_with_unit_is_exact(written, number, unit):
    assert amount(written) == Amount(number, unit)


def test_amount_bare_zero_takes_the_wanted_unit():
    assert amount(0, SPAN) == Amount(0, "tokens")
    assert amount("0", ("bytes",)) == Amount(0, "bytes")


@pytest.mark.parametrize(
    ("written", "units", "fix"),
    [
        (5000, SPAN, "'5000 tokens' or '5000 train steps' or '5000 sequences'"),
        ("5000", ("bytes",), "'5000 GiB'"),
        (2.7e12, SPAN, "'2700000000000 tokens'"),
        ("3 TB", SPAN, "did you mean 3T?"),
        ("3TiB", SPAN, "did you mean 3T?"),
        ("3 GB", SPAN, "did you mean 3B?"),
        ("300m", SPAN, "did you mean 300M?"),
        ("60B", ("bytes",), "did you mean 60 GiB?"),
        ("10G", ("bytes",), "did you mean 10 GiB?"),
        ("64 mib", ("bytes",), "did you mean 64 MiB?"),
        ("2000 steps", SPAN, "did you mean 2000 train steps?"),
        ("15 minutes", ("seconds",), "did you mean 15 min?"),
        ("15 min", SPAN, "counts seconds"),
        ("0.5 train steps", SPAN, "only whole train steps count"),
        ("1.23456789K", SPAN, "only whole tokens count"),
        ("-1M", SPAN, "not negative"),
        ("many", SPAN, "3T or 300M"),
        ("", SPAN, "3T or 300M"),
        (True, SPAN, "3T or 300M"),
        (None, SPAN, "3T or 300M"),
        (["3T"], SPAN, "3T or 300M"),
        ("3 Q", SPAN, "unknown unit 'Q'"),
    ],
)
def test_amount_that_cannot_be_read_says_the_fix(written, units, fix):
    with pytest.raises(ValueError, match=r".+") as error:
        amount(written, units)
    assert fix in str(error.value)


@given(number=st.integers(0, 10**18), unit=st.sampled_from(get_args(Unit)))
def test_amount_written_and_read_again_is_the_same(number, unit):
    size = Amount(number, unit)
    assert amount(str(size), (unit,)) == size


@given(thousandths=st.integers(1, 10**7), letter=st.sampled_from("KMBT"))
def test_amount_with_decimals_equals_fraction_arithmetic(thousandths, letter):
    factor = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}[letter]
    written = f"{thousandths // 1000}.{thousandths % 1000:03d}{letter}"
    assert amount(written).number == Fraction(thousandths, 1000) * factor


def test_amount_in_tokens_of_train_steps_and_of_no_tokens():
    # a train step of 4 sequences of 8 tokens: 32 tokens
    assert in_tokens(Amount(9, "sequences"), batch_tokens=32, context=8) == 72
    assert in_tokens(Amount(3, "train steps"), batch_tokens=32, context=8) == 96
    with pytest.raises(ValueError, match="counts bytes"):
        in_tokens(Amount(3, "bytes"), batch_tokens=32, context=8)


@pytest.mark.parametrize(
    ("number", "told", "up"),
    [
        (7, "7 tokens", "7 tokens"), (999, "999 tokens", "999 tokens"), (599_100, "599K tokens", "600K tokens"),
        (325_582_848_000, "326B tokens", "326B tokens"), (999_900, "1M tokens", "1M tokens"),
    ],
)  # fmt: skip
def test_tokens_are_told_to_three_digits_as_a_recipe_writes_them(number, told, up):
    assert told_tokens(number) == told
    assert told_tokens(number, up=True) == up
    assert in_tokens(amount(up if number < 1000 else up.removesuffix(" tokens")), batch_tokens=1, context=1) >= number
