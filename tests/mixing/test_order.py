"""The global order against a slow twin in exact fractions, and what it promises."""

import itertools
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.order import OrderError, open_order
from mixing.permutation import derive_key, name_key, permute
from mixing.plan import DomainSupply, Plan, make_plan
from mixing.schedule import Amount, BatchLine, Blocked, BySignal, Phase
from mixing.targets import DENOMINATOR, TICKS, first_remainder

FEW = settings(max_examples=40, deadline=None)
NAMES = ("code", "books", "web/head", "web/tail", "zh", "de")


@st.composite
def plans(draw, orders=("uniform", "blocked")):
    """Plans of up to six domains with few sequences, up to three phases with ramps, contexts and orders."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    domains = [DomainSupply(name, draw(st.integers(9, 300))) for name in names]
    phases = []
    for place in range(draw(st.integers(1, 3))):
        shares = [draw(st.integers(0, 9)) for _ in names]
        weights = dict(zip(names, [shares[0] + 1, *shares[1:]]))
        ramp = draw(st.sampled_from([0, 30])) if place else 0
        order = draw(st.sampled_from(orders))
        phases.append(
            Phase(
                f"phase {place}",
                Amount(draw(st.integers(30, 200)), "train steps"),
                weights,
                draw(st.sampled_from([2, 2, 4])),
                Amount(ramp, "train steps"),
                Blocked((names[::2], names[1::2])) if order == "blocked" else Phase.order,
            )
        )
    return make_plan(
        domains, phases, [BatchLine(0, 8), BatchLine(500, 12)], seed=draw(st.integers(0, 9)), max_epochs=1e9
    )


def locate_all(order):
    return order.locate(np.arange(order.plan.num_positions))


def windows(order):
    """Yield (span number, window, first position, stop position) over the whole order."""
    position = 0
    while position < order.plan.num_positions:
        s, window, start, low, high = order.window_at(position)
        assert start == position
        position += int((high - low).sum())
        yield s, window, start, position


def twin_locate(plan):
    """Walk through a plan's spans one window after the other with exact fractions; return rows as `locate` does."""
    rows = []
    at_context = {}
    for phase, span in plan.spans:
        num_windows = -(-span.ticks // (TICKS * phase.window))
        before = [0] * len(span.domains)
        for window in range(num_windows):
            time = Fraction((window + 1) * phase.window)
            after = list(span.draws)
            if window + 1 < num_windows:
                for e in range(len(after)):
                    units = span.weights[e] * time
                    if span.ramp:
                        units += span.changes[e] * time * time / (2 * span.ramp)
                    after[e] = int((units + span.remainders[e]) // DENOMINATOR)
            slots = [(e, drawn) for e in range(len(after)) for drawn in range(before[e], after[e])]
            key = np.uint64(derive_key(np.uint64(name_key(plan.seed, "window", str(span.start))), window))
            rows += [(phase.context, span, *slots[permute(i, len(slots), key)]) for i in range(len(slots))]
            before = after
    located = []
    starts = {}
    for context, span, e, drawn in rows:
        g = span.domains[e]
        if (g, context, span.start) not in starts:
            starts[g, context, span.start] = at_context.get((g, context), 0)
            at_context[g, context] = at_context.get((g, context), 0) + span.draws[e]
        epoch, place = divmod(starts[g, context, span.start] + drawn, plan.domains[g].num_sequences(context))
        key = np.uint64(name_key(plan.seed, "epoch", str(context), plan.domains[g].name))
        sequence = permute(place, plan.domains[g].num_sequences(context), np.uint64(derive_key(key, epoch)))
        located.append((g, span.draws_before[e] + drawn, epoch, sequence))
    return located


@given(plans())
@FEW
def test_locate_equals_the_slow_twin(plan):
    located = locate_all(open_order(plan))

    assert list(zip(*(column.tolist() for column in located))) == twin_locate(plan)


@given(plans())
@FEW
def test_order_draws_every_sequence_exactly_once_per_epoch(plan):
    order = open_order(plan)
    located = locate_all(order)
    contexts = np.concatenate([np.full(phase.num_positions, phase.context) for phase in plan.phases])

    for g, domain in enumerate(plan.domains):
        mine = located.domain == g
        assert sorted(located.draw[mine].tolist()) == list(range(mine.sum()))
        for context in set(contexts.tolist()):
            here = mine & (contexts == context)
            size = domain.num_sequences(context)
            for epoch in range(-(-int(here.sum()) // size)):
                drawn = located.sequence[here & (located.epoch == epoch)].tolist()
                assert len(set(drawn)) == len(drawn)
                if (epoch + 1) * size <= here.sum():
                    assert sorted(drawn) == list(range(size))


@given(plans(orders=("uniform",)))
@FEW
def test_targets_are_met_within_one_sequence_at_every_window_boundary(plan):
    order = open_order(plan)
    drawn = dict.fromkeys(range(len(plan.domains)), Fraction(0))
    for s, (phase, span) in enumerate(plan.spans):
        for window in range(-(-span.ticks // (TICKS * phase.window)) + 1):
            time = min(Fraction(window * phase.window), Fraction(span.ticks, TICKS))
            units = {g: Fraction(0) for g in drawn}
            for g, weight, change in zip(span.domains, span.weights, span.changes, strict=True):
                units[g] = weight * time + (change * time * time / (2 * span.ramp) if span.ramp else 0)
            starts = [start for number, b, start, _ in windows(order) if (number, b) == (s, window)]
            counts = order.draws_before(starts[0] if starts else span.stop)
            for g in drawn:
                assert abs(int(counts[g]) - drawn[g] - units[g] / DENOMINATOR) < 1
        for g in drawn:
            drawn[g] += units[g] / DENOMINATOR


@given(plans())
@FEW
def test_no_draw_goes_back_from_window_to_window(plan):
    order = open_order(plan)
    located = locate_all(order)
    highest = np.full(len(plan.domains), -1)
    for _, _, start, stop in windows(order):
        domain, draw = located.domain[start:stop], located.draw[start:stop]
        assert (draw > highest[domain]).all()
        np.maximum.at(highest, domain, draw)


@given(plans(), st.data())
@FEW
def test_locate_of_scattered_positions_equals_the_order_read_through(plan, data):
    order = open_order(plan)
    through = locate_all(order)
    some = data.draw(st.lists(st.integers(0, plan.num_positions - 1), max_size=30))

    for column, whole in zip(order.locate(some), through, strict=True):
        assert column.tolist() == whole[np.array(some, np.int64)].tolist()


@given(plans(), st.data())
@FEW
def test_inverses_lead_back_to_the_position(plan, data):
    order = open_order(plan)
    located = locate_all(order)
    for position in data.draw(st.lists(st.integers(0, plan.num_positions - 1), min_size=1, max_size=5)):
        name = order.names[located.domain[position]]
        context = order.phase_at(position).context
        same = [
            other
            for other in np.flatnonzero(
                (located.domain == located.domain[position]) & (located.sequence == located.sequence[position])
            ).tolist()
            if order.phase_at(other).context == context
        ]
        assert order.positions_of_draws(name, [located.draw[position]]).tolist() == [position]
        assert order.positions_of_sequence(name, int(located.sequence[position]), context).tolist() == same


@given(plans(), st.data())
@FEW
def test_reordered_domains_give_the_same_plan_and_order(plan, data):
    shuffled = data.draw(st.permutations(plan.domains))
    phases = [
        Phase(phase.name, Amount(phase.num_steps, "train steps"), phase.weights, phase.context) for phase in plan.phases
    ]
    first = make_plan(plan.domains, phases, [BatchLine(0, 8)], max_epochs=1e9)
    second = make_plan(shuffled, phases, [BatchLine(0, 8)], max_epochs=1e9)

    assert first.id == second.id


@given(plans(orders=("uniform",)), st.integers(10, 200), st.integers(1, 9))
@FEW
def test_an_added_domain_changes_no_other_domains_own_order(plan, num_tokens, share):
    def own_orders(domains, weights):
        phase = Phase("only", Amount(100, "train steps"), weights, 2)
        order = open_order(make_plan(domains, [phase], [BatchLine(0, 8)], seed=plan.seed, max_epochs=1e9))
        located = locate_all(order)
        return {
            name: [row[1] for row in sorted(zip(located.draw[mine].tolist(), zip(*rows)))]
            for g, name in enumerate(order.names)
            for mine in [located.domain == g]
            for rows in [(located.epoch[mine].tolist(), located.sequence[mine].tolist())]
        }

    weights = {domain.name: 5 for domain in plan.domains}
    before = own_orders(plan.domains, weights)
    after = own_orders([DomainSupply("added", num_tokens), *plan.domains], {**weights, "added": share})

    for name, order in before.items():
        common = min(len(order), len(after[name]))
        assert common > 0
        assert order[:common] == after[name][:common]


@given(plans(), st.sampled_from([1, 2, 3, 8]))
@FEW
def test_positions_read_in_any_number_of_pieces_are_those_read_at_once(plan, world_size):
    order = open_order(plan)
    whole = locate_all(order)
    position = 0
    for phase in plan.phases:
        for run in phase.steps:
            for _ in range(run.num_steps):
                bounds = [run.sequences * rank // world_size for rank in range(world_size + 1)]
                parts = itertools.pairwise(bounds)
                read = [order.locate(np.arange(position + a, position + b)).sequence for a, b in parts]
                assert np.concatenate(read).tolist() == whole.sequence[position : position + run.sequences].tolist()
                position += run.sequences
    assert position == plan.num_positions


def test_order_resumed_from_every_position_goes_on_as_before():
    domains = [DomainSupply("web", 201), DomainSupply("books", 41)]
    phases = [
        Phase("first", Amount(30, "train steps"), {"web": 2, "books": 1}, 2),
        Phase("second", Amount(30, "train steps"), {"web": 1, "books": 3}, 2, Amount(20, "train steps")),
    ]
    plan = make_plan(domains, phases, [BatchLine(0, 6)], max_epochs=100)
    whole = locate_all(open_order(plan))

    for position in range(plan.num_positions):
        rest = open_order(plan).locate(np.arange(position, plan.num_positions))
        assert all(np.array_equal(part, column[position:]) for part, column in zip(rest, whole, strict=True))


def test_draws_before_counts_every_domain_at_every_position():
    phases = [Phase("only", Amount(60, "train steps"), {"web": 2, "books": 1}, 2)]
    plan = make_plan([DomainSupply("web", 201), DomainSupply("books", 41)], phases, [BatchLine(0, 6)], max_epochs=100)
    order = open_order(plan)
    domain = locate_all(order).domain

    for position in range(plan.num_positions + 1):
        assert order.draws_before(position).tolist() == np.bincount(domain[:position], minlength=2).tolist()


def test_blocked_order_gives_each_block_whole_and_the_draws_of_uniform_order():
    domains = [DomainSupply(name, 401) for name in ("a", "b", "c")]
    blocked = Phase("only", Amount(300, "sequences"), {"a": 1, "b": 2, "c": 3}, 2, order=Blocked((("c",), ("a", "b"))))
    plan = make_plan(domains, [blocked], [BatchLine(0, 2)])
    first, second = (
        locate_all(open_order(p))
        for p in (plan, make_plan(domains, [replace(blocked, order=Phase.order)], [BatchLine(0, 2)]))
    )

    assert first.domain[:150].tolist() == [2] * 150
    assert set(first.domain[150:].tolist()) == {0, 1}
    assert sorted(zip(first.domain.tolist(), first.sequence.tolist())) == sorted(
        zip(second.domain.tolist(), second.sequence.tolist())
    )


def by_signal_orders(descending):
    domains = [DomainSupply("a", 201), DomainSupply("b", 401)]
    sorted_phase = Phase("only", Amount(320, "sequences"), {"a": 1, "b": 1}, 2, order=BySignal("score", descending))
    values = {"a": np.arange(100) * 7 % 100, "b": np.arange(200) * 13 % 50}
    order = open_order(
        make_plan(domains, [sorted_phase], [BatchLine(0, 2)]), lambda name, signal, context: values[name]
    )
    uniform = open_order(make_plan(domains, [replace(sorted_phase, order=Phase.order)], [BatchLine(0, 2)]))
    return order, uniform, values


@pytest.mark.parametrize("descending", [False, True])
def test_order_by_signal_sorts_each_domain_within_an_epoch(descending):
    order, uniform, values = by_signal_orders(descending)
    located, shuffled = locate_all(order), locate_all(uniform)

    for g, name in enumerate(order.names):
        mine = located.domain == g
        in_draw_order = np.argsort(located.draw[mine])
        epochs = located.epoch[mine][in_draw_order]
        scores = values[name][located.sequence[mine][in_draw_order]]
        assert (np.diff(epochs) >= 0).all()
        for epoch in set(epochs.tolist()):
            steps = np.diff(scores[epochs == epoch])
            assert (steps <= 0).all() if descending else (steps >= 0).all()
        theirs = shuffled.domain == g
        assert sorted(zip(located.epoch[mine], located.sequence[mine])) == sorted(
            zip(shuffled.epoch[theirs], shuffled.sequence[theirs])
        )


def test_order_by_signal_inverts_to_the_same_positions():
    order, _, _ = by_signal_orders(descending=False)
    located = locate_all(order)

    for position in range(0, order.plan.num_positions, 7):
        name = order.names[located.domain[position]]
        same = np.flatnonzero(
            (located.domain == located.domain[position]) & (located.sequence == located.sequence[position])
        )
        assert order.positions_of_sequence(name, int(located.sequence[position])).tolist() == same.tolist()
        assert order.positions_of_draws(name, [located.draw[position]]).tolist() == [position]


def test_order_by_stretches_draws_each_sequence_once_per_epoch_and_inverts():
    phases = [
        Phase("first", Amount(300, "sequences"), {"a": 1}, 2),
        Phase("other", Amount(90, "sequences"), {"a": 1}, 4),
    ]
    order = open_order(make_plan([DomainSupply("a", 401)], phases, [BatchLine(0, 4)], max_epochs=9, stretch_tokens=8))
    located = locate_all(order)

    drawn = located.sequence[np.argsort(located.draw)]  # order windows mix neighbouring draws
    assert sorted(drawn[:200].tolist()) == list(range(200))  # 4 sequences of 2 tokens a stretch
    for start in range(0, 192, 64):
        stretches = Counter((drawn[start : start + 64] // 4).tolist())
        assert len(stretches) == 16
        assert set(stretches.values()) == {4}
    for position in range(0, 390, 7):
        phase = order.phase_at(position)
        found = order.positions_of_sequence("a", int(located.sequence[position]), phase.context)
        assert position in found.tolist()
    assert Plan.from_json(order.plan.to_json()) == order.plan
    assert '"stretch_tokens": 8' in order.plan.to_json()


def ramped_by_signal():
    """Two domains in a sorted phase of 400 sequences, 200 of them a ramp; some sequences have no value."""
    first = Phase("first", Amount(50, "sequences"), {"a": 1, "b": 1}, 2)
    second = Phase("second", Amount(400, "sequences"), {"a": 3, "b": 1}, 2, Amount(200, "sequences"), BySignal("score"))
    values = {"a": np.arange(100) * 7 % 100 * 1.0, "b": np.arange(200) * 13 % 50 * 1.0}
    values["a"][::5] = np.nan
    plan = make_plan([DomainSupply("a", 201), DomainSupply("b", 401)], [first, second], [BatchLine(0, 2)])
    assert len(plan.phases[1].spans) == 2
    return open_order(plan, lambda name, signal, context: values[name]), values


def test_order_by_signal_is_sorted_over_the_whole_phase_with_its_ramp():
    order, values = ramped_by_signal()
    located = locate_all(order)
    for g, name in enumerate(order.names):
        mine = (located.domain == g) & (np.arange(450) >= 50)
        in_draw_order = np.argsort(located.draw[mine])
        epochs = located.epoch[mine][in_draw_order]
        scores = values[name][located.sequence[mine][in_draw_order]]
        assert (np.diff(epochs) >= 0).all()
        for epoch in set(epochs.tolist()):
            here = scores[epochs == epoch]
            assert np.array_equal(here, np.sort(here), equal_nan=True)  # those without a value come last


def test_order_by_signal_over_a_ramp_inverts_to_the_same_positions():
    order, _ = ramped_by_signal()
    located = locate_all(order)
    for position in range(0, 450, 11):
        same = (located.domain == located.domain[position]) & (located.sequence == located.sequence[position])
        name = order.names[located.domain[position]]
        found = order.positions_of_sequence(name, int(located.sequence[position]))
        assert found.tolist() == np.flatnonzero(same).tolist()


def test_order_by_signal_without_its_values_is_refused():
    phase = Phase("only", Amount(20, "sequences"), {"a": 1}, 2, order=BySignal("score"))

    with pytest.raises(OrderError, match="'score'"):
        open_order(make_plan([DomainSupply("a", 201)], [phase], [BatchLine(0, 2)]))


def test_first_draws_of_many_epochs_are_spread_over_the_domain_like_chance():
    # 20 sequences, 20,000 epochs: the first of each epoch; chi-square with 19 degrees of freedom, 0.1% at 43.8
    plan = make_plan(
        [DomainSupply("web", 41)],
        [Phase("only", Amount(400_000, "sequences"), {"web": 1}, 2)],
        [BatchLine(0, 2)],
        max_epochs=20_000,
    )
    located = locate_all(open_order(plan))
    counts = np.bincount(located.sequence[located.draw % 20 == 0], minlength=20)

    assert counts.sum() == 20_000
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_domains_within_windows_are_mixed_like_chance():
    # neighbours are alike as often as shuffled equal shares make them
    plan = make_plan(
        [DomainSupply(name, 100_001) for name in "abcd"],
        [Phase("only", Amount(100_000, "sequences"), dict.fromkeys("abcd", 1), 2)],
        [BatchLine(0, 2)],
    )
    domain = locate_all(open_order(plan)).domain

    alike = float((domain[1:] == domain[:-1]).mean())
    assert alike == pytest.approx(15 / 63, abs=0.01)  # a window of 64 holds 16 of each


def test_a_weight_of_1e_9_is_drawn_once_per_billion_sequences():
    supply = 10**13
    domains = [DomainSupply("rare", 3), DomainSupply("web", supply), DomainSupply("books", supply)]
    weights = {"rare": 1e-9, "web": 0.3, "books": 0.7 - 1e-9}
    plan = make_plan(
        domains, [Phase("only", Amount(1_464_843_750, "sequences"), weights, 2)], [BatchLine(0, 2048)], max_epochs=4
    )
    order = open_order(plan)
    offset = Fraction(first_remainder(0, "rare"), DENOMINATOR)
    expected = int(Fraction(plan.num_positions, 10**9) + offset)

    positions = order.positions_of_draws("rare", np.arange(expected))
    assert int(order.draws_before(plan.num_positions)[1]) == expected
    assert (order.locate(positions).domain == 1).all()
    for number, position in enumerate(positions.tolist()):
        assert position == pytest.approx(float((number + 1 - offset) * 10**9), abs=1000)


def test_the_last_of_three_trillion_tokens_with_ten_thousand_domains_is_found_both_ways():
    names = [f"domain {g}" for g in range(10_000)]
    shares = np.random.default_rng(0).dirichlet(np.ones(10_000)).tolist()
    domains = [DomainSupply(name, 2048 * 10_000_000) for name in names]
    phase = Phase("all", Amount(3_000_001_101_824), dict(zip(names, shares)), 2048)
    plan = make_plan(domains, [phase], [BatchLine(0, 1024 * 2048)], max_epochs=100)
    order = open_order(plan)
    ends = np.array([0, 1, plan.num_positions // 2, plan.num_positions - 1])

    located = order.locate(ends)

    assert plan.num_steps == 1_430_512
    for position, domain, draw in zip(ends.tolist(), located.domain.tolist(), located.draw.tolist()):
        assert order.positions_of_draws(order.names[domain], [draw]).tolist() == [position]


def test_an_order_of_one_sequence_repeats_it_once_per_epoch():
    plan = make_plan(
        [DomainSupply("poem", 5)],
        [Phase("only", Amount(3, "train steps"), {"poem": 1}, 4)],
        [BatchLine(0, 8)],
        max_epochs=6,
    )
    located = locate_all(open_order(plan))

    assert located.sequence.tolist() == [0] * 6
    assert sorted(located.epoch.tolist()) == list(range(6))


@pytest.mark.parametrize("position", [-1, 6])
def test_locate_outside_the_plan_is_refused(position):
    plan = make_plan(
        [DomainSupply("web", 100)], [Phase("only", Amount(3, "train steps"), {"web": 1}, 4)], [BatchLine(0, 8)]
    )

    with pytest.raises(OrderError, match="outside 0 to 5"):
        open_order(plan).locate([0, position])


def test_inverses_of_what_is_not_drawn_are_refused():
    plan = make_plan(
        [DomainSupply("web", 100), DomainSupply("none", 100)],
        [Phase("only", Amount(3, "train steps"), {"web": 1}, 4)],
        [BatchLine(0, 8)],
    )
    order = open_order(plan)

    with pytest.raises(OrderError, match="'nowhere'"):
        order.positions_of_draws("nowhere", [0])
    with pytest.raises(OrderError, match="outside 0 to 5"):
        order.positions_of_draws("web", [6])
    with pytest.raises(OrderError, match="there are none"):
        order.positions_of_draws("none", [0])
    with pytest.raises(OrderError, match="context 8"):
        order.positions_of_sequence("web", 0, 8)
    assert order.positions_of_sequence("none", 0).tolist() == []


def test_a_small_order_stays_what_it_was():
    # orders of finished runs must never change: these numbers were written down once
    plan = make_plan(
        [DomainSupply("web", 31), DomainSupply("books", 11)],
        [Phase("only", Amount(4, "train steps"), {"web": 0.7, "books": 0.3}, 2)],
        [BatchLine(0, 6)],
    )
    located = locate_all(open_order(plan))

    assert located.domain.tolist() == [0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0]
    assert located.draw.tolist() == [3, 6, 2, 7, 1, 4, 2, 3, 0, 5, 1, 0]
    assert located.epoch.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert located.sequence.tolist() == [3, 8, 1, 2, 9, 13, 1, 7, 12, 14, 0, 2]
    assert plan.id == "86db33decddaa568e741018ca5eb9ae1"
