"""What an edited plan leaves unchanged: checked against the orders themselves, position by position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.order import open_order
from mixing.plan import DomainSupply, make_plan
from mixing.plan_diff import cut_windows, diff, first_difference, prefix_id
from mixing.schedule import Amount, BatchLine, Blocked, BySignal, Phase

SCORES = {name: np.arange(1000) * 31 % 500 for name in ("web", "books", "code", "added")}


def plan_of(phases, sizes=None, seed=0, stretch=0):
    """Phases as (steps, weights) or (steps, weights, order); domains of the sizes given, in tokens."""
    sizes = sizes or {"web": 1001, "books": 301, "code": 101}
    schedule = [
        Phase(f"phase {place}", Amount(one[0], "train steps"), one[1], 2, order=one[2] if len(one) > 2 else Phase.order)
        for place, one in enumerate(phases)
    ]
    domains = [DomainSupply(name, size) for name, size in sizes.items()]
    return make_plan(domains, schedule, [BatchLine(0, 8)], seed=seed, max_epochs=1e9, stretch_tokens=stretch)


def sequences(plan):
    sizes = {domain.name: domain.num_sequences(2) for domain in plan.domains}
    order = open_order(plan, lambda name, signal, context: SCORES[name][: sizes[name]])
    located = order.locate(np.arange(plan.num_positions))
    return [(order.names[g], k, s) for g, k, s in zip(located.domain.tolist(), located.draw.tolist(), located.sequence)]


EVEN = {"web": 2, "books": 1}
MORE = {"web": 1, "books": 1, "code": 1}
schedules = st.lists(
    st.tuples(
        st.integers(5, 120),
        st.sampled_from([EVEN, MORE, {"web": 1}]),
        st.sampled_from([Phase.order, Phase.order, Blocked((("web",), ("books", "code"))), BySignal("score")]),
    ),
    min_size=1,
    max_size=3,
)


@given(old=schedules, new=schedules, keep=st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_first_difference_of_any_two_plans_leaves_all_before_it_the_same(old, new, keep):
    first, second = plan_of(old), plan_of(old[:keep] + new)

    position, reason = first_difference(first, second)

    assert sequences(first)[:position] == sequences(second)[:position]
    if not reason:
        assert sequences(first) == sequences(second)
    kept = sum(steps * 4 for steps, *_ in old[: min(keep, len(old))])
    if keep < len(old):
        assert position >= kept - 64 or any(isinstance(one[2], BySignal) for one in old[:keep])


@given(old=schedules, new=schedules, keep=st.integers(0, 3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_prefix_id_is_the_same_exactly_up_to_the_first_difference(old, new, keep, data):
    first, second = plan_of(old), plan_of(old[:keep] + new)
    same_before, _ = first_difference(first, second)
    position = data.draw(st.integers(0, min(first.num_positions, second.num_positions)))

    if position <= same_before:
        assert prefix_id(first, position) == prefix_id(second, position)
    elif sequences(first)[:position] != sequences(second)[:position]:
        assert prefix_id(first, position) != prefix_id(second, position)


def test_a_longer_phase_ordered_by_a_signal_is_another_from_its_ramp_on():
    def made(steps, **added):
        sizes = {"web": 1001, "books": 301} | added
        phases = [
            Phase("one", Amount(20, "train steps"), {"web": 1}, 2),
            Phase("two", Amount(steps, "train steps"), EVEN, 2, Amount(30, "train steps"), BySignal("score")),
        ]
        return make_plan([DomainSupply(*one) for one in sizes.items()], phases, [BatchLine(0, 8)], max_epochs=1e9)

    first, second = made(50), made(60)
    assert sequences(first)[: 40 * 4] != sequences(second)[: 40 * 4], "the ramp's own sequences are sorted otherwise"
    found = diff(first, second)
    assert (found.same_before, found.reason) == (20 * 4, "phase 'two' has other length")
    assert prefix_id(first, 20 * 4) == prefix_id(second, 20 * 4)
    assert prefix_id(first, 40 * 4) != prefix_id(second, 40 * 4)
    assert not diff(first, made(50, added=101)).reason, "a domain that nothing draws is no difference"


def test_prefix_of_a_phase_ordered_by_a_signal_depends_on_where_the_phase_ends():
    # a longer phase sorts other sequences to the front
    first, second = plan_of([(50, EVEN, BySignal("score"))]), plan_of([(60, EVEN, BySignal("score"))])

    assert first_difference(first, second)[0] == 0
    assert prefix_id(first, 64) != prefix_id(second, 64)
    assert prefix_id(first, 0) == prefix_id(second, 0)


def test_first_difference_of_a_changed_later_phase_is_where_it_begins():
    old = plan_of([(50, EVEN), (50, EVEN)])
    new = plan_of([(50, EVEN), (50, MORE)])

    assert first_difference(old, new) == (200, "phase 'phase 1' has other domains")


def test_first_difference_of_a_lengthened_phase_is_at_the_last_window_of_the_shorter():
    position, reason = first_difference(plan_of([(50, EVEN)]), plan_of([(60, EVEN)]))

    assert 200 - 66 <= position <= 200
    assert "another length" in reason


@given(old=st.integers(1, 60), new=st.integers(1, 60), weights=st.sampled_from([EVEN, MORE, {"web": 1}]))
@settings(max_examples=40, deadline=None)
def test_cut_window_begins_where_a_phase_of_another_length_may_differ(old, new, weights):
    first, second = plan_of([(old, weights), (9, MORE)]), plan_of([(new, weights), (9, MORE)])
    first_ends, second_ends = cut_windows(first), cut_windows(second)
    ours, theirs = sequences(first), sequences(second)
    for position in range(4 * min(old, new) + 1):
        if [one for one in first_ends if one[0] < position] == [one for one in second_ends if one[0] < position]:
            assert ours[:position] == theirs[:position]


def test_cut_window_of_a_phase_that_ends_with_a_whole_window_is_none():
    plan = plan_of([(16, {"web": 1}), (17, {"web": 1})])  # 64 and 68 sequences, in windows of 64

    assert cut_windows(plan) == [(128, 132)]


def test_first_difference_of_an_added_phase_is_at_the_old_end():
    assert first_difference(plan_of([(50, EVEN)]), plan_of([(50, EVEN), (9, EVEN)]))[0] == 200


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 1}, "seed"), ({"sizes": {"web": 1003, "books": 301, "code": 101}}, "sizes")],
)
def test_first_difference_of_another_seed_or_size_is_at_once(change, word):
    position, reason = first_difference(plan_of([(50, EVEN)]), plan_of([(50, EVEN)], **change))

    assert position == 0
    assert word in reason


def test_first_difference_of_a_domain_added_for_a_later_phase_is_where_that_begins():
    old = plan_of([(50, EVEN), (50, EVEN)])
    new = plan_of([(50, EVEN), (50, {**EVEN, "added": 1})], {"web": 1001, "books": 301, "code": 101, "added": 501})

    assert first_difference(old, new)[0] == 200


def test_diff_of_equal_plans_is_empty():
    difference = diff(plan_of([(50, EVEN)]), plan_of([(50, EVEN)]))

    assert difference.lines == ["no difference: both plans hold the same 200 positions"]
    assert difference.domains == ()


def test_diff_counts_tokens_of_each_domain_after_the_edit():
    # 200 positions of 2 tokens: 2 to 1 before, 1 to 1 after
    difference = diff(plan_of([(75, EVEN), (50, EVEN)]), plan_of([(75, EVEN), (50, {"web": 1, "books": 1})]))

    assert difference.same_before == 300
    changes = {one.name: (one.tokens_old, one.tokens_new, one.again, one.left_out) for one in difference.domains}
    assert changes["books"][1] == pytest.approx(200, abs=4)
    assert changes["books"][0] == pytest.approx(400 / 3, abs=4)
    assert sum(one[0] for one in changes.values()) == sum(one[1] for one in changes.values()) == 400
    assert all(one[2:] == (0, 0) for one in changes.values())
    assert "nothing is trained twice" in difference.lines[1]


def test_diff_followed_late_counts_what_is_trained_twice_and_left_out():
    old, new = plan_of([(75, {"web": 1, "books": 0})]), plan_of([(75, {"web": 1, "books": 2})])

    difference = diff(old, new, at=150)

    changes = {one.name: one for one in difference.domains}
    assert changes["web"].again == pytest.approx(100, abs=4)
    assert changes["books"].left_out == changes["web"].again
    assert "sequences again" in str(difference)


@pytest.mark.parametrize("change", [{"seed": 1}, {"stretch": 64}])
def test_diff_of_another_shuffle_says_that_the_run_begins_anew_or_repeats(change):
    old, new = plan_of([(50, EVEN), (50, EVEN)]), plan_of([(50, EVEN), (50, EVEN)], **change)
    assert "begins anew" in diff(old, new).lines[1]
    late = diff(old, new, at=100)
    assert sequences(old)[:200] != sequences(new)[:200]
    assert late.reshuffled == ("books", "web")
    assert "may come twice or never" in late.lines[1]
    assert not any("nothing is trained twice" in line for line in [*late.lines, *diff(old, new).lines])
