"""Cumulative targets: 64-bit kernels against exact fractions, and the ends of spans."""

from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixing.targets import (
    DENOMINATOR,
    MAX_RAMP,
    MAX_SPAN,
    TICKS,
    drawn_at,
    end_span,
    exact_units,
    find_time,
    first_remainder,
    sum_drawn,
)
from mixing.weights import to_integers

units = st.integers(0, DENOMINATOR)
remainders = st.integers(0, DENOMINATOR - 1)


def int64s(*values):
    return np.array(values, dtype=np.int64)


@given(weight=units, remainder=remainders, time=st.integers(0, MAX_SPAN - 1))
@settings(max_examples=300, deadline=None)
def test_sum_drawn_of_a_constant_weight_is_the_exact_floor(weight, remainder, time):
    drawn = sum_drawn(int64s(weight), int64s(0), 0, int64s(remainder), time)

    assert drawn == (weight * time + remainder) // DENOMINATOR


@given(before=units, after=units, remainder=remainders, ramp=st.integers(1, MAX_RAMP), data=st.data())
@settings(max_examples=500, deadline=None)
def test_sum_drawn_on_a_ramp_is_the_exact_floor_of_the_integral(before, after, remainder, ramp, data):
    time = data.draw(st.integers(0, ramp))
    drawn = sum_drawn(int64s(before), int64s(after - before), ramp, int64s(remainder), time)

    integral = before * time + Fraction((after - before) * time * time, 2 * ramp)
    assert drawn == (integral + remainder) // DENOMINATOR


@given(
    weight=units, change=st.integers(-DENOMINATOR, DENOMINATOR), ramp=st.integers(1, 1000), ticks=st.integers(0, 2**30)
)
def test_exact_units_between_whole_times_is_the_floor_of_the_integral(weight, change, ramp, ticks):
    time = Fraction(ticks, TICKS)

    assert exact_units(weight, change, ramp, ticks) == (weight * time + change * time * time / (2 * ramp)) // 1


@st.composite
def span_starts(draw):
    """Weights that sum to D (and ramp to others that do), remainders, and a length within the ramp."""
    shares = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), remainders), min_size=1, max_size=8))
    names = [str(g) for g in range(len(shares))]
    before = to_integers({name: share[0] + (name == "0") for name, share in zip(names, shares)})
    after = to_integers({name: share[1] + (name == "0") for name, share in zip(names, shares)})
    length = draw(st.integers(1, 300))
    # equal remainders make domains of equal weight reach their next sequence at the same time
    remainder = [draw(st.sampled_from([share[2], shares[0][2]])) for share in shares]
    if draw(st.booleans()):
        return list(before.values()), [0] * len(names), 0, remainder, length
    changes = [after[name] - before[name] for name in names]
    ramp = length + draw(st.integers(0, len(names)))
    assume(sum(drawn_at(list(before.values()), changes, ramp, remainder, ramp * TICKS)) >= length)
    return list(before.values()), changes, ramp, remainder, length


@given(span_starts())
@settings(max_examples=200, deadline=None)
def test_end_span_gives_exactly_the_sequences_asked_for_and_stays_near_the_targets(start):
    weights, changes, ramp, before, length = start

    ticks, draws, after = end_span(weights, changes, ramp, before, length)

    assert sum(draws) == length
    time = Fraction(ticks, TICKS)
    for w, d, r, drawn, left in zip(weights, changes, before, draws, after, strict=True):
        integral = w * time + (d * time * time / (2 * ramp) if ramp else 0)
        assert 0 <= left < DENOMINATOR
        # what is given and what is left make up the target, but for one tick and one unit
        assert 0 <= integral + r - (drawn * DENOMINATOR + left) <= Fraction(DENOMINATOR, TICKS) + 1
    assert not ramp or ticks <= ramp * TICKS
    earlier = drawn_at(weights, changes, ramp, before, (-(-ticks // TICKS) - 1) * TICKS)
    assert sum(earlier) < length or ticks == ramp * TICKS
    assert all(first <= drawn for first, drawn in zip(earlier, draws, strict=True))


def test_end_span_with_a_tie_gives_to_the_first_by_name():
    # both reach their first sequence at time 1; only one is asked for
    half = DENOMINATOR // 2

    ticks, draws, after = end_span([half, half], [0, 0], 0, [half, half], 1)

    assert ticks == TICKS
    assert draws == [1, 0]
    assert after == [0, DENOMINATOR - 1]


def test_end_span_of_a_ramp_that_gives_too_few_ends_with_the_ramp():
    ticks, draws, after = end_span([DENOMINATOR, 0], [-DENOMINATOR, DENOMINATOR], 4, [0, 0], 9)

    assert (ticks, draws, after) == (4 * TICKS, [2, 2], [0, 0])


def test_find_time_of_one_domain_is_the_number_of_sequences():
    assert find_time(int64s(DENOMINATOR), int64s(0), 0, int64s(0), 1000) == 1000


def test_first_remainder_is_keyed_by_name_and_seed_and_never_near_zero():
    assert first_remainder(0, "web") == first_remainder(0, "web")
    assert len({first_remainder(seed, name) for seed in (0, 1) for name in ("web", "code")}) == 4
    assert min(first_remainder(0, str(number)) for number in range(5000)) >= DENOMINATOR // 1024
