"""Weights as integers of 1e-12: natural, natural^T, UniMax, from files; bad ones are refused by name."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.targets import DENOMINATOR
from mixing.weights import WeightError, natural, read_weights, to_integers, unimax

names = st.text("abcdef", min_size=1, max_size=3)
positive = st.one_of(st.floats(1e-9, 1e9), st.integers(1, 10**9), st.fractions(Fraction(1, 10**6), 100))


def test_to_integers_of_decimal_shares_is_exact():
    assert to_integers({"web": 0.1, "books": 0.2, "code": 0.7}) == {
        "web": 100_000_000_000,
        "books": 200_000_000_000,
        "code": 700_000_000_000,
    }


def test_to_integers_of_thirds_gives_the_odd_unit_to_the_first_name():
    assert to_integers({"b": 1, "c": 1, "a": 1}) == {"b": 333_333_333_333, "c": 333_333_333_333, "a": 333_333_333_334}


def test_to_integers_of_a_share_below_one_unit_keeps_one_unit():
    weights = to_integers({"tiny": 1e-30, "rest": 1})

    assert weights == {"tiny": 1, "rest": DENOMINATOR - 1}


@given(st.dictionaries(names, positive, min_size=1, max_size=30))
def test_to_integers_sums_to_the_denominator_and_rounds_by_less_than_one(weights):
    units = to_integers(weights)

    total = sum(Fraction(repr(w)) if isinstance(w, float) else Fraction(w) for w in weights.values())
    assert sum(units.values()) == DENOMINATOR
    assert all(units[name] > 0 for name in weights)
    for name, weight in weights.items():
        exact = (Fraction(repr(weight)) if isinstance(weight, float) else Fraction(weight)) * DENOMINATOR / total
        raised = sum(1 for other in units.values() if other == 1)
        assert abs(units[name] - exact) < 1 + raised


@given(st.dictionaries(names, positive, min_size=2, max_size=20), st.randoms())
def test_to_integers_in_any_order_gives_the_same_weights(weights, random):
    shuffled = list(weights.items())
    random.shuffle(shuffled)

    assert to_integers(dict(shuffled)) == to_integers(weights)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_to_integers_of_a_bad_weight_names_every_bad_domain(bad):
    with pytest.raises(WeightError, match=r"'web'.*'code'"):
        to_integers({"web": bad, "books": 1, "code": bad})


def test_to_integers_of_zeros_is_refused():
    with pytest.raises(WeightError, match="sum to 0"):
        to_integers({"web": 0, "books": 0.0})


def test_natural_weights_are_shares_of_the_supply():
    assert natural({"web": 3, "books": 1, "none": 0}) == {
        "web": 750_000_000_000,
        "books": 250_000_000_000,
        "none": 0,
    }


def test_natural_to_the_half_takes_square_roots():
    # roots 3 and 1
    assert natural({"web": 900, "books": 100}, 0.5) == {"web": 750_000_000_000, "books": 250_000_000_000}


def test_natural_to_the_zero_is_equal_over_domains_that_have_tokens():
    assert natural({"web": 900, "books": 1, "none": 0}, 0) == {
        "web": 500_000_000_000,
        "books": 500_000_000_000,
        "none": 0,
    }


def test_natural_with_nothing_in_supply_is_refused():
    with pytest.raises(WeightError, match="sum to 0"):
        natural({"web": 0}, 0.5)


def test_unimax_caps_the_small_and_shares_the_rest_alike():
    # books can give 2 x 10 = 20 of 100; web and code share the other 80
    weights = unimax({"web": 1000, "books": 10, "code": 50}, 100, {"web": 2, "books": 2, "code": 2})

    assert weights == {"web": 400_000_000_000, "books": 200_000_000_000, "code": 400_000_000_000}


def test_unimax_without_a_cap_takes_what_the_others_cannot():
    weights = unimax({"web": 1, "books": 10, "none": 0}, 100, {"web": math.inf, "books": 2, "none": math.inf})

    assert weights == {"web": 800_000_000_000, "books": 200_000_000_000, "none": 0}


@given(
    st.dictionaries(names, st.integers(1, 10**9), min_size=1, max_size=12),
    st.integers(1, 10**9),
    st.floats(0.5, 8, allow_nan=False),
)
def test_unimax_within_the_caps_exceeds_none_and_favours_no_capped_domain(tokens, budget, cap):
    capacity = {name: count * Fraction(repr(cap)) for name, count in tokens.items()}
    budget = min(budget, int(sum(capacity.values()))) or 1
    weights = unimax(tokens, budget, dict.fromkeys(tokens, cap))

    unit = Fraction(budget, DENOMINATOR)
    given_tokens = {name: weight * unit for name, weight in weights.items()}
    most = max(given_tokens.values())
    for name, amount in given_tokens.items():
        if budget <= sum(capacity.values()):
            assert amount <= capacity[name] + len(tokens) * unit
        assert amount >= most - len(tokens) * unit or amount >= capacity[name] - len(tokens) * unit


def test_read_weights_from_json_keeps_decimal_digits(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text('{"weights": {"zh_*": 0.3, "web": 0.7}}')

    assert to_integers(read_weights(path)) == {"zh_*": 300_000_000_000, "web": 700_000_000_000}


@pytest.mark.parametrize("name", ["weights.yaml", "weights.yml"])
def test_read_weights_from_yaml_says_what_json_says(tmp_path, name):
    (tmp_path / name).write_text('weights:\n  "zh_*": 0.3   # by hand\n  web: 0.7\n')
    assert to_integers(read_weights(tmp_path / name)) == {"zh_*": 300_000_000_000, "web": 700_000_000_000}


def test_read_weights_from_csv_gives_names_and_shares(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text('domain,weight\nweb,3\n"books, old",1\n')

    assert to_integers(read_weights(path)) == {"web": 750_000_000_000, "books, old": 250_000_000_000}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("w.json", "[1, 2]", "w.json"),
        ("w.json", '{"web": "much"}', "'web'"),
        ("w.json", '{"web": true}', "'web'"),
        ("w.json", '{"web": -1}', "'web'"),
        ("w.json", "{", "w.json"),
        ("w.yaml", "- web\n", "w.yaml: expected"),
        ("w.yaml", "web: much\n", "'web'"),
        ("w.yaml", "7: 1\n", "7 is no domain's name"),
        ("w.yaml", "web: 1\nweb: 2\n", "w.yaml: not YAML"),
        ("w.csv", "name,share\n", "w.csv:1"),
        ("w.csv", "domain,weight\nweb,much\n", "w.csv:2"),
        ("w.csv", "domain,weight\nweb,sNaN\n", "w.csv:2"),
        ("w.csv", b"domain,weight\nb\xfccher,1\n", "w.csv: not UTF-8"),
        ("w.json", b'{"b\xfccher": 1}', "w.json: not UTF-8"),
        ("w.csv", "domain,weight\nweb,1\nweb,2\n", "w.csv:3"),
        ("w.txt", "", ".txt"),
    ],
)
def test_read_weights_of_a_bad_file_says_where(tmp_path, name, content, place):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(WeightError, match=place):
        read_weights(path)


@pytest.mark.parametrize(("name", "content"), [("w.csv", "domain,weight\nweb,1\n"), ("w.json", '{"web": 1}')])
def test_read_weights_passes_over_a_byte_order_mark(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8-sig")

    assert read_weights(path) == {"web": 1}
