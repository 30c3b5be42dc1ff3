"""A plan over training: its stretches add up to the plan's own table, and the picture says what they hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.plan import DomainSupply, make_plan
from mixing.plan_course import course, drawing, spark
from mixing.plan_table import ALL, groups_of, table
from mixing.schedule import Amount, BatchLine, Phase

DOMAINS = [
    DomainSupply("de_web", 4001, 40, 8000, 7000),
    DomainSupply("de_wiki", 801, 10, 900, 850),
    DomainSupply("en", 2001, 5),
]


def plan_of(steps=(150, 90), contexts=(4, 4), ramp=0, last=None):
    weights = [{"de_web": 0.6, "de_wiki": 0.4}, last or {"de_web": 0.2, "en": 0.8}]
    phases = [
        Phase(f"phase{n}", Amount(steps[n], "train steps"), weights[n], contexts[n], Amount(ramp * n, "train steps"))
        for n in range(2)
    ]
    return make_plan(DOMAINS, phases, [BatchLine(0, 16)], max_epochs=9)


@settings(deadline=None, max_examples=25)
@given(
    stretches=st.integers(1, 80), steps=st.tuples(st.integers(1, 150), st.integers(9, 90)),
    contexts=st.sampled_from([(4, 4), (4, 8), (8, 4)]), ramp=st.integers(0, 9),
)  # fmt: skip
def test_course_adds_up_to_the_table(stretches, steps, contexts, ramp):
    plan = plan_of(steps, contexts, ramp)
    groups = groups_of(["de_*", "*", "en"], [domain.name for domain in plan.domains])
    assert groups == {"de_*": ["de_web", "de_wiki"]}
    found = course(plan, stretches, groups)
    assert [s.first_token for s in found] == [sum(s.num_tokens for s in found[:n]) for n in range(len(found))]
    for row in table(plan, groups):
        here = [stretch for stretch in found if row.phase in (ALL, stretch.phase)]
        assert sum(stretch.rows[row.domain].num_tokens for stretch in here) == row.num_tokens
        new = sum(stretch.rows[row.domain].unique_share * stretch.rows[row.domain].num_tokens for stretch in here)
        if contexts[0] == contexts[1]:
            assert new == pytest.approx(row.unique_share * row.num_tokens)
        if row.phase == ALL:
            assert found[-1].epochs[row.domain] == pytest.approx(row.epochs)


def test_course_of_a_ramp_rises_from_the_old_to_the_new_share():
    shares = [stretch.rows["en"].share for stretch in course(plan_of((60, 60), ramp=60), 12)]
    assert shares[:6] == [0] * 6
    assert all(later > earlier for earlier, later in zip(shares[6:], shares[8:]))  # 40 sequences: one is 0.025
    assert shares[6] < 0.15 < 0.7 < shares[11]


def test_drawing_names_phases_domains_and_epochs_with_their_caps():
    lines = drawing(course(plan_of(), 16), {"de_web": 9.0, "de_wiki": 9.0, "en": float("inf")})
    assert lines[0].split() == ["over", "training", "share", "|phase0", "|phase", "share", "epochs"]
    en = next(line for line in lines if line.startswith("en"))
    assert en.split()[:2] == ["en", "0.00%"]
    assert "      ██████ " in en
    assert next(line for line in lines if line.startswith("de_web")).endswith("of 9")
    assert lines[-1].startswith("unique text")


def test_spark_of_little_is_visible_and_of_nothing_is_empty():
    assert spark([0, 0.001, 4, 8]) == " ▁▄█"
    assert spark([0.0, 0.0]) == "  "
