"""Bits of decisions against plain Python."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.rule_bits import decision_bits


@given(st.integers(1, 64), st.integers(0, 37), st.integers(0, 13), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_decision_bits_of_any_columns_equal_plain_python(rules, num_rows, offset, random) -> None:
    columns = [[random.choice([True, False, None]) for _ in range(offset + num_rows)] for _ in range(rules)]
    bits = list(range(rules))
    random.shuffle(bits)
    truths = [pl.Series(column, dtype=pl.Boolean)[offset:] for column in columns]  # slices begin inside a byte
    drop, undecided = decision_bits(truths, bits, num_rows)
    for row in range(num_rows):
        found = [(bit, column[offset + row]) for bit, column in zip(bits, columns, strict=True)]
        assert int(drop[row]) == sum(1 << bit for bit, value in found if value)
        assert int(undecided[row]) == sum(1 << bit for bit, value in found if value is None)
