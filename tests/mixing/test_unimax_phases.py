"""UniMax in a schedule: the plan takes it whatever the leftovers of a pass, and the cap is used up."""

import pytest

from mixing.domain_stage import Domain, Packed
from mixing.plan_stage import PhaseOptions, PlanOptions, plan_of

CONTEXT = 128


def domain(name, tokens, sequences=None):
    packed = () if sequences is None else (Packed(CONTEXT, "t", "h", sequences, 0, 0, 0, 0),)
    return Domain(name, "t", "h", tokens, 100, tokens, tokens, 0, 0, packed)


def phase(name, span, kind="unimax", shares=(), ramp=0, context=CONTEXT):
    return PhaseOptions(name, span, (ramp, "tokens"), (kind, 1.0, shares), ("uniform", (), "asc"), context)


def passes(plan, name):
    """Passes over a domain in the whole run, from the draws."""
    (g,) = [g for g, one in enumerate(plan.domains) if one.name == name]
    return sum(
        span.draws[span.domains.index(g)] / plan.domains[g].num_sequences(phase.context)
        for phase, span in plan.spans
        if g in span.domains
    )


def made(small, phases, batch=((0, 8192),)):
    options = PlanOptions(tuple(phases), batch, 0, (("*", 4.0),), "error")
    return plan_of([domain("big", 10_000_000), small], options)


STEPS = 8192 * 500
OTHER = phase("other", (STEPS, "tokens"), "shares", (("big", 0.95), ("small", 0.05)))


@pytest.mark.parametrize(
    ("small", "phases", "batch"),
    [
        (domain("small", 128_001), [phase("main", (2 * STEPS, "tokens"))], ((0, 8192),)),
        (domain("small", 128_120), [phase("main", (2 * STEPS, "tokens"))], ((0, 8192),)),
        (domain("small", 129_000, 1000), [phase("main", (2 * STEPS, "tokens"))], ((0, 8192),)),
        (domain("small", 128_064), [phase("a", (STEPS, "tokens")), phase("b", (STEPS, "tokens"))], ((0, 8192),)),
        (domain("small", 128_064), [OTHER, phase("b", (STEPS, "tokens"))], ((0, 8192),)),
        (domain("small", 128_064), [OTHER, phase("b", (STEPS, "tokens"), ramp=STEPS // 2)], ((0, 8192),)),
        (
            domain("small", 128_064),
            [phase("a", (STEPS, "tokens")), phase("b", (STEPS, "tokens"), ramp=STEPS, context=64)],
            ((0, 8192),),
        ),
        (domain("small", 128_064), [phase("main", (1000, "train steps"))], ((0, 1024), (102_400, 8192))),
    ],
)
def test_unimax_fills_a_small_domain_up_to_its_cap_and_the_plan_takes_it(small, phases, batch):
    plan = made(small, phases, batch)
    assert passes(plan, "small") == pytest.approx(4, abs=0.01)
    assert passes(plan, "big") < 4


def test_unimax_leaves_a_domain_out_of_the_phase_whose_context_it_cannot_fill():
    plan = made(domain("small", 100), [phase("a", (STEPS, "tokens"), context=8), phase("b", (STEPS, "tokens"))])
    assert passes(plan, "small") == pytest.approx(4, abs=0.1)
    assert "small" not in plan.phases[1].weights


def test_natural_of_packed_domains_passes_over_all_alike():
    padded = [domain("big", 12_900_000, 100_000), domain("small", 1_290_000, 20_000)]
    for weights in (("natural", ()), ("shares", (("*", 1.0),))):
        options = PlanOptions(
            (phase("main", (8192 * 1800, "tokens"), *weights),), ((0, 8192),), 0, (("*", 1.0),), "error"
        )
        plan = plan_of(padded, options)
        assert passes(plan, "big") == pytest.approx(0.96, abs=1e-4)
        assert passes(plan, "small") == pytest.approx(0.96, abs=1e-4)
