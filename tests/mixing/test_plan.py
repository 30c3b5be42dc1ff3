"""Plans: what is refused, what is warned of, JSON and its id, exact lengths of phases."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.amounts import amount, in_tokens
from mixing.plan import BudgetError, DomainSupply, Plan, PlanError, make_plan
from mixing.plan_table import table, tree
from mixing.schedule import Amount, BatchLine, Blocked, BySignal, Phase, ScheduleError
from mixing.targets import DENOMINATOR, TICKS
from mixing.weights import WeightError

BATCH = [BatchLine(0, 8)]


def phase(steps, weights, name="only", **options):
    return Phase(name, Amount(steps, "train steps"), weights, options.pop("context", 2), **options)


def small_plan(**options):
    domains = [DomainSupply("web", 1001, 10, 5000, 4000), DomainSupply("books", 401)]
    phases = [
        phase(50, {"web": 0.7, "books": 0.3}, "first"),
        phase(50, {"web": 1}, "second", ramp=Amount(20, "train steps")),
        phase(20, {"web": 1, "books": 1}, "third", order=Blocked((("books",), ("web",))), context=4),
        phase(10, {"web": 1, "books": 1}, "fourth", order=BySignal("score", descending=True)),
    ]
    return make_plan(domains, phases, BATCH, **options)


@pytest.mark.parametrize("shortage", ["error", "spread"])
def test_plan_domain_without_a_cap_repeats_as_often_as_its_weight_asks(shortage):
    domains = [DomainSupply("web", 1001), DomainSupply("books", 21)]
    options = {"max_epochs": {"web": 2, "books": math.inf}, "shortage": shortage}
    plan = make_plan(domains, [phase(50, {"web": 0.5, "books": 0.5})], BATCH, **options)

    assert {row.domain: round(row.epochs) for row in table(plan)}["books"] == 10
    assert plan.max_epochs == {"web": 2}
    assert Plan.from_json(plan.to_json()) == plan


def test_plan_phases_follow_one_another_in_whole_steps():
    plan = small_plan()

    assert [(one.start, one.stop) for one in plan.phases] == [(0, 200), (200, 400), (400, 440), (440, 480)]
    assert plan.num_steps == 130
    assert plan.num_tokens == 130 * 8
    for one in plan.phases:
        assert sum(span.num_positions for span in one.spans) == one.num_positions
        for span in one.spans:
            assert sum(span.draws) == span.num_positions


def test_plan_draws_of_a_constant_phase_are_its_shares():
    assert dict(zip(small_plan().phases[0].spans[0].domains, small_plan().phases[0].spans[0].draws)) == {0: 60, 1: 140}


def test_plan_through_json_is_the_same_plan_with_the_same_bytes():
    plan = small_plan()
    again = Plan.from_json(plan.to_json())

    assert again == plan
    assert again.id == plan.id
    assert again.to_json() == plan.to_json()


def test_plan_id_changes_with_the_seed_and_with_nothing_else_of_the_call():
    assert small_plan().id == small_plan(shortage="spread").id
    assert small_plan().id != small_plan(seed=1).id


def test_plan_changed_by_hand_is_refused():
    text = small_plan().to_json().replace('"seed": 0', '"seed": 1')

    with pytest.raises(PlanError, match="changed after it was written"):
        Plan.from_json(text)


def test_plan_without_its_id_is_refused():
    content = json.loads(small_plan().to_json())

    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(json.dumps({"plan": content["plan"]}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "0", "plan": {"format": 1}}'])
def test_plan_of_something_else_is_refused(text):
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(text)


def test_plan_of_a_later_format_is_refused():
    content = json.loads(small_plan().to_json())
    content["plan"]["format"] = 99

    with pytest.raises(PlanError, match="format 99"):
        Plan.from_json(json.dumps(content))


def test_plan_with_a_budget_beyond_the_caps_names_every_short_domain():
    domains = [DomainSupply("a", 21), DomainSupply("b", 21), DomainSupply("web", 10_001)]

    with pytest.raises(BudgetError, match=r"(?s)'a': .*'b': "):
        make_plan(domains, [phase(100, {"a": 1, "b": 1, "web": 1})], BATCH)


def test_plan_with_shortage_spread_stays_within_the_caps():
    domains = [DomainSupply("a", 21), DomainSupply("b", 21), DomainSupply("web", 10_001)]

    plan = make_plan(domains, [phase(100, {"a": 1, "b": 1, "web": 1})], BATCH, shortage="spread")

    assert plan.phases[0].spans[0].draws == (40, 40, 320)


def test_plan_with_a_domain_of_no_whole_sequence_is_refused_where_it_has_weight():
    domains = [DomainSupply("note", 4), DomainSupply("web", 1001)]

    with pytest.raises(BudgetError, match=r"domain 'note': 4 tokens hold no sequence of 4"):
        make_plan(domains, [phase(10, {"note": 1, "web": 9}, context=4)], BATCH)
    assert make_plan(domains, [phase(10, {"web": 9}, context=4)], BATCH).num_positions == 20


def test_plan_names_domains_that_have_text_and_no_whole_sequence():
    domains = [*(DomainSupply(f"note{number}", 4) for number in range(7)), DomainSupply("web", 1001)]

    plan = make_plan(domains, [phase(10, {"web": 1}, context=4)], BATCH)

    named = ", ".join(f"'note{number}' (4 tokens)" for number in range(5))
    assert plan.warnings == (f"no sequence of 4 tokens in {named} and 2 more: never drawn",)
    assert tree(plan).splitlines()[-2].startswith("not drawn from: note0 (4 tokens), note1 (4 tokens), ")


def test_plan_with_a_domain_without_tokens_and_without_weight_is_made():
    plan = make_plan([DomainSupply("none", 0), DomainSupply("web", 1001)], [phase(10, {"web": 1})], BATCH)

    assert plan.phases[0].spans[0].domains == (1,)
    assert tree(plan).splitlines()[-1] == "not drawn from: none (no documents left)"
    rows = [row for row in table(plan) if row.domain == "none"]
    assert [(row.num_tokens, row.epochs, row.unique_share) for row in rows] == [(0, 0, 0)]


@pytest.mark.parametrize(
    ("domains", "phases", "error", "words"),
    [
        (["web"], [], ScheduleError, "no phase"),
        (["web", "web"], [phase(1, {"web": 1})], PlanError, "named twice: web"),
        (["web"], [phase(1, {"web": 1, "books": 1})], WeightError, "unknown domains books"),
        (["web"], [phase(1, {"web": 0})], WeightError, "phase 'only'.*sum to 0"),
        (["web"], [phase(1, {"web": float("nan")})], WeightError, "phase 'only'.*'web'"),
        (["a", "b"], [phase(9, {"a": 1, "b": 1}, order=Blocked((("a",),)))], ScheduleError, "'b' stands in no block"),
        (["a"], [phase(9, {"a": 1}, order=Blocked((("a",), ("a",))))], ScheduleError, "'a' stands in 2 blocks"),
        (["a"], [phase(9, {"a": 1}, order=Blocked((("a", "c"),)))], ScheduleError, "unknown domains c"),
    ],
)
def test_plan_that_makes_no_sense_is_refused(domains, phases, error, words):
    with pytest.raises(error, match=words):
        make_plan([DomainSupply(name, 1001) for name in domains], phases, BATCH)


def test_plan_with_another_word_for_shortage_is_refused():
    with pytest.raises(PlanError, match="'ignore'"):
        small_plan(shortage="ignore")


def test_plan_warns_of_a_weight_that_is_never_drawn_with_the_budget_that_reaches_it():
    domains = [DomainSupply("rare", 1001), DomainSupply("web", 10_001)]
    weights = {"rare": 1e-4, "web": 1 - 1e-4}
    plan = make_plan(domains, [phase(20, weights)], BATCH)
    [warning] = plan.warnings
    blocks = Blocked((("rare",), ("web",)))
    assert make_plan(domains, [phase(20, weights, order=blocks)], BATCH).warnings == (warning,)
    told = warning.split("first sequence comes at ")[1].split(" tokens")[0]
    reach = in_tokens(amount(told if told.endswith("K") else f"{told} tokens"), batch_tokens=1, context=8)

    assert "'rare': weight 0.0001 is never drawn in 160 tokens" in warning
    longer = make_plan(domains, [phase(int(reach / 8) + 60, weights)], BATCH, max_epochs=100)
    shorter = make_plan(domains, [phase(int(reach / 8) - 60, weights)], BATCH, max_epochs=100)
    assert not longer.warnings
    assert shorter.warnings


def test_plan_of_equal_domains_draws_them_in_turn_and_not_all_at_once():
    names = [f"d{number:02}" for number in range(50)]
    plan = make_plan(
        [DomainSupply(name, 1001) for name in names], [phase(25, dict.fromkeys(names, 1))], BATCH, max_epochs=4
    )

    assert sorted(plan.phases[0].spans[0].draws) == [2] * 50


def test_plan_window_is_at_least_eight_for_each_domain_drawn():
    names = [f"d{number}" for number in range(20)]
    domains = [DomainSupply(name, 1001) for name in names]
    plan = make_plan(domains, [phase(50, dict.fromkeys(names, 1), "all"), phase(50, {"d0": 1}, "one")], BATCH)

    assert [one.window for one in plan.phases] == [160, 64]
    assert make_plan(domains, [phase(50, {"d0": 1})], BATCH, window=500).phases[0].window == 500


def test_plan_with_a_ramp_as_long_as_its_phase_ends_where_the_phase_does():
    # by the ramp's end the domains may have given a few sequences more or fewer than its length
    names = list("abcdef")
    ends = set()
    for seed in range(40):
        weights, turned = dict(zip(names, range(6))), dict(zip(names, range(6, 0, -1)))
        phases = [phase(5, weights, "first"), phase(5, turned, "second", ramp=Amount(5, "train steps"))]
        spans = make_plan([DomainSupply(name, 1001) for name in names], phases, BATCH, seed=seed).phases[1].spans
        ends.add((len(spans), spans[0].ticks < 20 * TICKS))

        assert sum(span.num_positions for span in spans) == 20
        assert spans[0].ticks <= 20 * TICKS
    assert {(1, True), (1, False), (2, False)} == ends


def test_plan_gives_no_sequence_of_a_domain_that_a_later_phase_leaves_out():
    # what a domain is owed at a phase's end must not be paid in a phase where its weight is 0
    for seed in range(30):
        names = list("abcdef")
        phases = [phase(9, dict.fromkeys(names, 1), "all"), phase(9, {"a": 1}, "one"), phase(9, {"b": 1}, "two")]
        plan = make_plan([DomainSupply(name, 1001) for name in names], phases, BATCH, seed=seed)

        assert [span.draws for _, span in plan.spans[1:]] == [(36,), (36,)]


@given(
    shares=st.lists(st.integers(0, 100), min_size=2, max_size=6),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_plan_of_many_phases_drifts_from_no_target(shares, lengths, seed):
    names = [f"d{number}" for number in range(len(shares))]
    shares[0] += 1
    turned = [dict(zip(names, shares[place % len(shares) :] + shares[: place % len(shares)])) for place in range(12)]
    phases = [phase(length, turned[place], f"p{place}") for place, length in enumerate(lengths)]
    plan = make_plan([DomainSupply(name, 1001) for name in names], phases, BATCH, seed=seed, max_epochs=1e9)

    target = [Fraction(0)] * len(names)
    drawn = [0] * len(names)
    for _, span in plan.spans:
        for g, weight, count in zip(span.domains, span.weights, span.draws, strict=True):
            target[g] += Fraction(weight, DENOMINATOR) * Fraction(span.ticks, TICKS)
            drawn[g] += count
        assert all(abs(k - w) < 1 for k, w in zip(drawn, target, strict=True))
