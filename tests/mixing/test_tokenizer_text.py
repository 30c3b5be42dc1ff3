from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from mixing.patterns import PatternError
from mixing.stages import text_shares
from mixing.tokenizer_text import take_text, text_limits

IDS = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(1000)]


def ids(start: int, stop: int) -> pa.Array:
    return pa.array(IDS[start:stop], pa.binary(16))


def texts(start: int, stop: int) -> pa.Array:
    return pa.array([f"{number:010}" for number in range(start, stop)], pa.large_string())


def taken(limits, rows) -> list[str]:
    return [text for array in take_text(rows, limits) for text in array.to_pylist()]


def test_tokenizer_text_follows_the_shares():
    sizes = {"de": [(ids(0, 600), np.full(600, 10))], "zh": [(ids(600, 1000), np.full(400, 10))]}
    limits, counts = text_limits(sizes, 2000, {"de": 3, "zh": 1})
    assert {name: count["wanted_bytes"] for name, count in counts.items()} == {"de": 1500, "zh": 500}
    rows = [("de", ids(0, 600), texts(0, 600)), ("zh", ids(600, 1000), texts(600, 1000))]
    chosen = taken(limits, rows)
    assert sum(int(text) < 600 for text in chosen) == counts["de"]["taken_bytes"] / 10 == pytest.approx(150, abs=1)
    assert sum(int(text) >= 600 for text in chosen) == counts["zh"]["taken_bytes"] / 10 == pytest.approx(50, abs=1)


def test_tokenizer_text_is_nested_and_does_not_depend_on_batches():
    before: set[str] = set()
    rows = [("de", ids(0, 300), texts(0, 300)), ("de", ids(300, 1000), texts(300, 1000))]
    for size in (500, 3000, 9000):
        one, _ = text_limits({"de": [(ids(0, 1000), np.full(1000, 10))]}, size, {"de": 1.0})
        two, _ = text_limits(
            {"de": [(ids(500, 1000), np.full(500, 10)), (ids(0, 500), np.full(500, 10))]}, size, {"de": 1.0}
        )
        assert one == two
        chosen = set(taken(one, rows))
        assert before < chosen
        before = chosen


def test_tokenizer_text_of_domains_that_no_share_names_is_left_out_and_errors_name_the_key():
    supply = {"web/head": 30.0, "web/tail": 10.0, "wiki": 10.0}
    assert text_shares({"web/head": 1.0}, supply) == {"web/head": 1.0}
    assert text_shares({"web": 0.8, "*": 0.2}, supply) == pytest.approx({"web/head": 0.6, "web/tail": 0.2, "wiki": 0.2})
    with pytest.raises(PatternError, match=r"^tokenizer\.text\.shares: 'books' \(weight 1\) names no domain"):
        text_shares({"books": 1.0}, supply)


def test_tokenizer_text_takes_all_where_there_is_less_and_says_so():
    limits, counts = text_limits({"de": [(ids(0, 10), np.full(10, 10))]}, 10**9, {"de": 1.0})
    assert counts["de"] == {"available_bytes": 100, "wanted_bytes": 10**9, "taken_bytes": 100}
    assert len(taken(limits, [("de", ids(0, 10), texts(0, 10))])) == 10


def test_tokenizer_text_leaves_out_domains_without_a_share_and_null_text():
    limits, _ = text_limits(
        {"de": [(ids(0, 2), np.full(2, 10))], "zh": [(ids(2, 4), np.full(2, 10))]}, 100, {"de": 1.0}
    )
    rows = [("de", ids(0, 2), pa.array(["a", None], pa.large_string())), ("zh", ids(2, 4), texts(2, 4))]
    assert taken(limits, rows) == ["a"]
