"""Caps on epochs: the error with both remedies, and spreading a shortage."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.budget import BudgetError, Demand, check_caps, short_domains, spread_shortage
from mixing.targets import DENOMINATOR
from mixing.weights import to_integers


def demand(supply, lengths, caps, contexts=None, ramps=None):
    """Domains by name with their sequences (the same at every context of these tests)."""
    return Demand(
        names=tuple(supply),
        contexts=tuple(contexts or [10] * len(lengths)),
        lengths=tuple(lengths),
        ramps=tuple(ramps or [0] * len(lengths)),
        sequences=tuple(tuple(supply.values()) for _ in lengths),
        max_epochs=tuple(caps[name] for name in supply) if isinstance(caps, dict) else (caps,) * len(supply),
    )


def test_check_caps_of_the_example_says_both_remedies_with_numbers():
    # 12% of 26e9 tokens from 0.70e9 x 4 epochs
    asked = demand({"code/head": 350_000, "web": 100_000_000}, [13_000_000], 4, contexts=[2000])
    weights = to_integers({"code/head": 0.12, "web": 0.88})

    with pytest.raises(BudgetError) as caught:
        check_caps(asked, [weights])

    assert str(caught.value) == (
        "domain 'code/head': 3.12B tokens needed (12.0% of 26B) but supply 700M x 4 epochs = 2.8B; "
        "lower its weight to 0.107 or raise max_epochs to 4.46"
    )


def test_check_caps_with_too_little_text_altogether_says_the_length_that_fits():
    supply = {"kids": 48_000, "qa": 29_000, "wiki": 41_000}
    asked = demand(supply, [2_000_000], 4)
    with pytest.raises(BudgetError) as caught:
        check_caps(asked, [to_integers(supply)])
    assert str(caught.value) == (
        "the schedule asks for 20M tokens, but there is text for 4.72M at most (1.18M x max_epochs 4); "
        "shorten it to 4.71M, raise domains.max_epochs to 16.95, or add text"
    )
    # the advice holds: shorter, or more passes
    check_caps(demand(supply, [471_000], 4), [to_integers(supply)])
    check_caps(demand(supply, [2_000_000], 16.95), [to_integers(supply)])


def test_check_caps_names_all_short_domains_at_once():
    asked = demand({"a": 10, "b": 1000, "c": 10}, [300], 2)

    with pytest.raises(BudgetError, match=r"(?s)'a'.*'c'") as caught:
        check_caps(asked, [to_integers({"a": 1, "b": 1, "c": 1})])
    assert "'b'" not in str(caught.value)


def test_check_caps_adds_up_the_phases_of_the_run():
    # each phase alone takes 15 of 20 allowed
    asked = demand({"a": 10, "b": 1000}, [150, 150], 2)
    weights = to_integers({"a": 1, "b": 9})

    with pytest.raises(BudgetError, match="'a'"):
        check_caps(asked, [weights, weights])
    check_caps(demand({"a": 10, "b": 1000}, [150], 2), [weights])


@given(first=st.integers(0, 40), second=st.integers(20, 80), ramp=st.sampled_from([0, 100]))
@settings(max_examples=40, deadline=None)
def test_remedy_over_several_phases_is_a_weight_for_each_that_works(first, second, ramp):
    asked = Demand(("a", "b"), (10, 10), (300, 300), (0, ramp), ((20, 9000),) * 2, (3.0, 9.0), ("main", "cool down"))
    weights = [to_integers({"a": share, "b": 100 - share}) for share in (first, second)]
    if not short_domains(asked, weights):
        return
    with pytest.raises(BudgetError) as caught:
        check_caps(asked, weights)
    lowered = {name: float(share) for share, name in re.findall(r"(\S+) in '([^']+)'", str(caught.value))}
    assert lowered.keys() == ({"main", "cool down"} if first else {"cool down"})
    shares = [lowered.get(name, 0.0) for name in asked.phases]
    check_caps(asked, [to_integers({"a": share, "b": 1 - share}) for share in shares])


def test_check_caps_exactly_at_the_cap_passes():
    check_caps(demand({"a": 10, "b": 30}, [80], 2), [to_integers({"a": 1, "b": 3})])


def test_demand_on_a_ramp_takes_the_mean_of_both_weights():
    asked = demand({"a": 100, "b": 100}, [10, 10], 4, ramps=[0, 10])
    phases = [to_integers({"a": 1, "b": 0}), to_integers({"a": 0, "b": 1})]

    assert asked.targets(phases, 0) == [10, 5]
    assert asked.targets(phases, 1) == [0, 5]


@given(
    supply=st.integers(1, 50),
    share=st.integers(30, 90),
    length=st.integers(100, 5000),
    cap=st.sampled_from([1, 2, 2.5, 4]),
)
@settings(max_examples=60)
def test_either_remedy_of_the_error_makes_the_budget_pass(supply, share, length, cap):
    caps = {"a": cap, "b": 1e9}
    asked = demand({"a": supply, "b": 1000}, [length], caps)
    weights = to_integers({"a": share, "b": 100 - share})
    if not short_domains(asked, [weights]):
        return
    with pytest.raises(BudgetError) as caught:
        check_caps(asked, [weights])
    lower, higher = re.search(r"lower its weight to (\S+) or raise max_epochs to (\S+)$", str(caught.value)).groups()

    if float(lower):
        check_caps(asked, [to_integers({"a": float(lower), "b": 1 - float(lower)})])
    check_caps(demand({"a": supply, "b": 1000}, [length], {"a": float(higher), "b": 1e9}), [weights])


def test_spread_shortage_holds_the_short_and_keeps_the_others_in_proportion():
    # a can give 20 of 100: the other 80 go to b and c as 1 to 3
    asked = demand({"a": 10, "b": 1000, "c": 1000}, [100], 2)

    [spread] = spread_shortage(asked, [to_integers({"a": 0.6, "b": 0.1, "c": 0.3})])

    assert spread == to_integers({"a": 0.2, "b": 0.2, "c": 0.6})


def test_spread_shortage_that_makes_another_short_holds_that_too():
    # a gives 20; b would have to take 60 but gives 40; c takes the rest
    asked = demand({"a": 10, "b": 20, "c": 1000}, [100], 2)

    [spread] = spread_shortage(asked, [to_integers({"a": 0.5, "b": 0.38, "c": 0.12})])

    assert spread == to_integers({"a": 0.2, "b": 0.4, "c": 0.4})


def test_spread_shortage_with_enough_of_everything_changes_nothing():
    weights = [to_integers({"a": 0.5, "b": 0.5})]

    assert spread_shortage(demand({"a": 100, "b": 100}, [100], 1), weights) == weights


def test_spread_shortage_whose_caps_allow_more_than_a_phase_has_is_no_negative_weight():
    # found by the property below: what a domain may give in one phase depends on what it gives in the other
    names, first, second = ("d0", "d1", "d2", "d3"), (1, 5, 1, 4), (27, 1, 1, 1)
    asked = demand(dict(zip(names, (1, 1, 5, 24))), [50, 50], 3.3)
    weights = [to_integers(dict(zip(names, shares))) for shares in (first, second)]
    try:
        spread = spread_shortage(asked, weights)
    except BudgetError:
        return
    assert not short_domains(asked, spread)


def test_spread_shortage_with_nobody_left_is_an_error():
    with pytest.raises(BudgetError, match=r"(?s)no domain is left.*'a'.*'b'"):
        spread_shortage(demand({"a": 10, "b": 10}, [100], 2), [to_integers({"a": 0.5, "b": 0.5})])


@given(
    supplies=st.lists(st.integers(1, 400), min_size=2, max_size=8),
    shares=st.lists(st.integers(1, 50), min_size=8, max_size=8),
    lengths=st.lists(st.integers(50, 800), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_spread_shortage_of_any_demand_meets_every_cap_or_is_refused(supplies, shares, lengths):
    supply = {f"d{g}": count for g, count in enumerate(supplies)}
    asked = demand(supply, lengths, 3)
    weights = [to_integers(dict(zip(supply, shares[place:] + shares[:place]))) for place in range(len(lengths))]
    try:
        spread = spread_shortage(asked, weights)
    except BudgetError:
        return

    assert short_domains(asked, spread) == []
    for phase in spread:
        assert sum(phase.values()) == DENOMINATOR
