"""Patterns name domains: a name covers its parts in natural proportion, the most specific wins, "*" is the rest."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing import patterns
from mixing.patterns import PatternError, covers, members, resolve_weights, specificity, values_of, winners

DOMAINS = ["web_de/head", "web_de/middle", "wiki_de", "wiki_en", "code"]
NATURAL = {"web_de/head": 30.0, "web_de/middle": 60.0, "wiki_de": 4.0, "wiki_en": 6.0, "code": 10.0}


def test_weights_of_names_and_rest_are_split_in_natural_proportion():
    resolved = resolve_weights({"web_de": 0.6, "code": 0.2, "*": 0.2}, DOMAINS, NATURAL)
    # web_de is 30 : 60, the rest is wiki_de and wiki_en, 4 : 6
    expected = {"web_de/head": 0.2, "web_de/middle": 0.4, "wiki_de": 0.08, "wiki_en": 0.12, "code": 0.2}
    assert resolved == pytest.approx(expected, abs=1e-15)
    assert list(resolved) == DOMAINS


def test_weights_most_specific_name_wins():
    resolved = resolve_weights({"web_de/head": 0.5, "web_de": 0.1, "wiki_*": 0.3, "*": 0.1}, DOMAINS, NATURAL)
    assert resolved["web_de/head"] == 0.5
    assert resolved["web_de/middle"] == 0.1
    assert resolved["wiki_de"] == pytest.approx(0.12)
    assert resolved["code"] == 0.1


def test_weights_domain_that_nothing_names_is_refused():
    with pytest.raises(PatternError, match=r"no weight names code, wiki_en"):
        resolve_weights({"web_de": 0.5, "wiki_de": 0.5}, DOMAINS, NATURAL)


def test_weights_pattern_that_names_nothing_is_refused():
    with pytest.raises(PatternError, match=r"'books' \(weight 0.1\) names no domain; domains: web_de/head"):
        resolve_weights({"books": 0.1, "*": 0.9}, DOMAINS, NATURAL)


def test_weights_pattern_with_nothing_left_names_who_took_it():
    with pytest.raises(
        PatternError, match=r"nothing is left for 'wiki_\*' .*: all it covers is named by wiki_de, wiki_en"
    ):
        resolve_weights({"wiki_*": 0.1, "wiki_de": 0.1, "wiki_en": 0.1, "*": 0.7}, DOMAINS, NATURAL)


def test_weights_two_equally_specific_patterns_are_refused():
    with pytest.raises(PatternError, match="neither is more specific"):
        resolve_weights({"wiki_*": 0.5, "*_deen": 0.1, "*": 0.4}, ["wiki_deen", "x"], {"wiki_deen": 1, "x": 1})


def test_weights_share_for_domains_without_supply_is_refused():
    with pytest.raises(PatternError, match="hold no tokens"):
        resolve_weights({"a": 0.5, "*": 0.5}, ["a", "b"], {"a": 0, "b": 1})
    assert resolve_weights({"a": 0, "*": 1}, ["a", "b"], {"a": 0, "b": 1}) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("pattern", "domain", "covered"),
    [
        ("web_de", "web_de/head", True),
        ("web_de", "web_de", True),
        ("web", "web_de", False),
        ("web_*", "web_de/head", True),
        ("web_*/head", "web_de/head", True),
        ("web_*/head", "web_de/middle", False),
        ("*/head", "web_de/head", True),
        ("*_wiki", "zh_wiki", True),
        ("*head", "web_de/head", False),  # without a slash, a pattern means sources
        ("*", "web_de/head", True),
        ("Web_de", "web_de", False),
    ],
)
def test_covers_names_parts_and_patterns(pattern, domain, covered):
    assert covers(pattern, domain) is covered


@given(
    patterns=st.lists(st.sampled_from(["a", "a/x", "b", "b/y", "a*", "*/x", "?/y", "*", "b/[y]", "ab"]), unique=True),
    domains=st.lists(st.sampled_from(["a", "a/x", "a/y", "b", "b/y", "b/[y]", "ab/x", "ab"]), unique=True),
)
def test_winners_are_the_most_specific_of_all_that_cover(patterns, domains):
    covering = {domain: [pattern for pattern in patterns if covers(pattern, domain)] for domain in domains}
    best = {domain: max(map(specificity, found), default=None) for domain, found in covering.items()}
    first = {domain: [p for p in found if specificity(p) == best[domain]] for domain, found in covering.items()}
    if any(len(found) > 1 for found in first.values()):
        with pytest.raises(PatternError, match="neither is more specific"):
            winners(patterns, domains)
    else:
        assert winners(patterns, domains) == {domain: found[0] if found else None for domain, found in first.items()}


def test_weights_of_ten_thousand_names_are_looked_up_and_not_tried_on_each_domain(monkeypatch):
    monkeypatch.setattr(patterns, "covers", None)
    names = [f"web/{number}" for number in range(10_000)]
    resolved = resolve_weights(dict.fromkeys(names, 1e-4), names, dict.fromkeys(names, 1.0))
    assert resolved == dict.fromkeys(names, 1e-4)


def test_members_and_values_follow_the_order_of_domains():
    assert members("web_de", DOMAINS) == ["web_de/head", "web_de/middle"]
    assert values_of({"*": 4.0, "wiki_*": 10.0}, DOMAINS) == {
        "web_de/head": 4.0,
        "web_de/middle": 4.0,
        "wiki_de": 10.0,
        "wiki_en": 10.0,
        "code": 4.0,
    }


@given(
    names=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8, unique=True),
    rest=st.floats(0.01, 1),
    supplies=st.lists(st.floats(0.1, 100), min_size=8, max_size=8),
    named=st.integers(0, 7),
)
def test_weights_sum_to_one_and_keep_natural_proportion_in_the_rest(names, rest, supplies, named):
    natural = dict(zip(names, supplies, strict=False))
    exact = names[: min(named, len(names) - 1)]
    weights = {name: (1 - rest) / len(exact) for name in exact} | {"*": rest if exact else 1.0}
    resolved = resolve_weights(weights, names, natural)
    assert math.fsum(resolved.values()) == pytest.approx(1)
    others = [name for name in names if name not in exact]
    for name in others:
        assert resolved[name] * natural[others[0]] == pytest.approx(resolved[others[0]] * natural[name])
    assert winners(reversed(list(weights)), names) == winners(weights, names)
