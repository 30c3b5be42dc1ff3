"""Making a plan: schedule, sizes and seed become the spans that all positions follow from.

`make_plan` cuts the schedule into whole train steps, turns weights into integers, checks the caps on epochs, and
follows the cumulative targets to the end of every phase. The plan then says for each span (a stretch with one law of
weights) which domains are drawn, from which draw to which, and with what remainder. `mixing.order` reads positions off
it. Nothing depends on the order in which domains are given.

Memory and file grow with domains x phases, never with tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from curation.amounts import told_tokens
from mixing.budget import BudgetError, Demand, check_caps, spread_shortage
from mixing.plan_record import DomainSupply, Plan, PlanError, PlannedPhase
from mixing.schedule import BatchLine, Blocked, Phase, ScheduleError, Steps, cut_steps, ramp_sequences
from mixing.spans import Course, Span, block_spans
from mixing.targets import DENOMINATOR, MAX_RAMP, MAX_SPAN, first_remainder
from mixing.weights import Number, WeightError, to_integers

__all__ = ["BudgetError", "DomainSupply", "Plan", "PlanError", "PlannedPhase", "Span", "make_plan"]

_MOST_NAMES = 5  # of domains in a warning
WINDOWS_PER_DOMAIN = 8
SMALLEST_WINDOW = 64
"""Sequences of an order window with few domains: small, since a plan extended later differs from its last window on."""


def make_plan(
    domains: Sequence[DomainSupply],
    phases: Sequence[Phase],
    batch: Sequence[BatchLine],
    *,
    seed: int = 0,
    max_epochs: float | Mapping[str, float] = 4,
    shortage: str = "error",
    window: int | None = None,
    stretch_tokens: int = 0,
) -> Plan:
    """Make the plan of a run.

    Args:
        domains: supplies, in any order; those that no phase weighs are part of the plan and never drawn.
        phases: the schedule, weights resolved to domains.
        batch: the train batch by lines.
        seed: the recipe's seed.
        max_epochs: most passes over a domain in the whole run: a number for all, or one for each domain; infinite: no
            cap, and none in the plan.
        shortage: what to do about domains that cannot meet the budget within their cap: `error`, or `spread` their
            excess over the other domains in proportion to their weights.
        window: mean sequences of an order window; default and least: 8 x the domains drawn in the phase.
        stretch_tokens: text of a domain that stays together when it is shuffled, so that shards far away are read in
            large pieces (`mixing.permutation.permute_local`); 0: every sequence goes anywhere.

    Raises:
        BudgetError: naming every domain that falls short, with both remedies.
        ScheduleError, WeightError, PlanError: see there.
    """
    supplies = tuple(sorted(domains, key=lambda domain: domain.name))
    names = [domain.name for domain in supplies]
    _check_domains(names, phases)
    caps = {name: max_epochs if isinstance(max_epochs, int | float) else max_epochs[name] for name in names}
    steps = cut_steps(phases, batch)
    ramps = ramp_sequences(phases, steps, batch)
    weights = [integer_weights(phase, names) for phase in phases]
    _check_sequences(supplies, phases, weights)
    weights = _within_caps(demand_of(supplies, phases, steps, ramps, caps), weights, shortage)
    planned, mixed = _follow(names, phases, steps, ramps, weights, seed, window)
    warnings = (*_without_sequence(supplies, phases), *_never_drawn(names, planned, mixed))
    finite = {name: cap for name, cap in caps.items() if math.isfinite(cap)}  # JSON has no infinity
    return Plan(seed, supplies, finite, planned, warnings, stretch_tokens)


def _check_domains(names: Sequence[str], phases: Sequence[Phase]) -> None:
    if not phases:
        raise ScheduleError("the schedule has no phase; give at least one")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise PlanError(f"domains named twice: {', '.join(twice)}")
    known = set(names)
    for phase in phases:
        unknown = sorted(set(phase.weights) - known)
        if unknown:
            raise WeightError(f"phase {phase.name!r}: weights for unknown domains {', '.join(unknown)}")


def integer_weights(phase: Phase, names: Sequence[str]) -> dict[str, int]:
    """Return a phase's integer weights for all domains by name; absent domains get 0.

    Raises:
        WeightError: with the phase, see `mixing.weights.to_integers`.
    """
    complete: dict[str, Number] = {name: phase.weights.get(name, 0) for name in names}
    try:
        return to_integers(complete)
    except WeightError as error:
        raise WeightError(f"phase {phase.name!r}: {error}") from error


def _check_sequences(
    supplies: Sequence[DomainSupply], phases: Sequence[Phase], weights: Sequence[Mapping[str, int]]
) -> None:
    """Refuse weight for a domain that has no whole sequence."""
    short = []
    for place, phase in enumerate(phases):
        before = weights[place - 1] if place and phase.ramp.number else {}
        for domain in supplies:
            drawn = weights[place][domain.name] or before.get(domain.name, 0)
            if drawn and domain.num_sequences(phase.context) == 0:
                short.append(
                    f"domain {domain.name!r}: {domain.num_tokens:,} tokens hold no sequence of {phase.context:,} "
                    f"(phase {phase.name!r}); give it weight 0 or join it with another domain"
                )
    if short:
        raise BudgetError("\n".join(short))


def demand_of(
    supplies: Sequence[DomainSupply],
    phases: Sequence[Phase],
    steps: Sequence[Sequence[Steps]],
    ramps: Sequence[int],
    caps: Mapping[str, float],
) -> Demand:
    """What a schedule in whole train steps asks of the domains."""
    return Demand(
        names=tuple(domain.name for domain in supplies),
        contexts=tuple(phase.context for phase in phases),
        lengths=tuple(sum(run.num_sequences for run in runs) for runs in steps),
        ramps=tuple(ramps),
        sequences=tuple(tuple(domain.num_sequences(phase.context) for domain in supplies) for phase in phases),
        max_epochs=tuple(caps[domain.name] for domain in supplies),
        phases=tuple(phase.name for phase in phases),
    )


def _within_caps(demand: Demand, weights: list[dict[str, int]], shortage: str) -> list[dict[str, int]]:
    """Return weights under which no domain passes its cap, or raise BudgetError."""
    if shortage == "spread":
        return spread_shortage(demand, weights)
    if shortage != "error":
        raise PlanError(f"shortage {shortage!r} is neither 'error' nor 'spread'")
    check_caps(demand, weights)
    return weights


def _follow(
    names: Sequence[str],
    phases: Sequence[Phase],
    steps: Sequence[Sequence[Steps]],
    ramps: Sequence[int],
    weights: Sequence[Mapping[str, int]],
    seed: int,
    window: int | None,
) -> tuple[tuple[PlannedPhase, ...], list[Sequence[Span]]]:
    """Follow the cumulative targets from phase to phase.

    Returns:
        The phases, and the spans of each before an order by blocks rearranges them: they hold every domain with weight.
    """
    course = Course([first_remainder(seed, name) for name in names], [0] * len(names))
    planned: list[PlannedPhase] = []
    mixed: list[Sequence[Span]] = []
    for place, phase in enumerate(phases):
        start, length = course.position, sum(run.num_sequences for run in steps[place])
        if length > MAX_SPAN or ramps[place] > MAX_RAMP:
            raise ScheduleError(f"phase {phase.name!r}: more than {MAX_SPAN:,} sequences, or a ramp over {MAX_RAMP:,}")
        after = [weights[place][name] for name in names]
        spans = []
        if ramps[place]:
            first = [weights[place - 1][name] for name in names]
            changes = [b - a for a, b in zip(first, after, strict=True)]
            spans.append(course.advance(ramps[place], first, changes, length))
        left = start + length - course.position
        if left:
            spans.append(course.advance(0, after, [0] * len(names), left))
        mixed.append(spans)
        if isinstance(phase.order, Blocked):
            spans = block_spans(phase.name, phase.order, names, spans, seed)
        num_drawn = len({g for span in spans for g in span.domains})
        least = max(SMALLEST_WINDOW, WINDOWS_PER_DOMAIN * num_drawn)
        nominal = {name: weight for name, weight in weights[place].items() if weight}
        planned.append(
            PlannedPhase(
                phase.name,
                phase.context,
                start,
                length,
                max(window or 0, least),
                phase.order,
                tuple(steps[place]),
                nominal,
                tuple(spans),
            )
        )
    return tuple(planned), mixed


def _never_drawn(names: Sequence[str], phases: Sequence[PlannedPhase], mixed: Sequence[Sequence[Span]]) -> list[str]:
    """Warn of domains with weight that no span draws, with the smallest budget that reaches them."""
    drawn = {g for spans in mixed for span in spans for g, count in zip(span.domains, span.draws) if count}
    ends = list(accumulate(phase.num_tokens for phase in phases))
    lines: dict[int, str] = {}
    for place, phase in enumerate(phases):
        for span in mixed[place]:
            for g, remainder in zip(span.domains, span.remainders, strict=True):
                weight = phase.weights.get(names[g], 0)
                if g in drawn or not weight:
                    continue
                needed = -(-(DENOMINATOR - remainder) // weight) * phase.context
                reach = ends[place] - phase.num_tokens + needed
                share = f"{weight / DENOMINATOR:.3g}"
                lines[g] = (
                    f"domain {names[g]!r}: weight {share} is never drawn in {told_tokens(ends[-1])}; "
                    f"its first sequence comes at {told_tokens(reach, up=True)} "
                    f"(phase {phase.name!r} lengthened to {told_tokens(needed, up=True)})"
                )
    return [lines[g] for g in sorted(lines)]


def _without_sequence(supplies: Sequence[DomainSupply], phases: Sequence[Phase]) -> list[str]:
    """Warn of domains that have text, but in no phase a whole sequence."""
    least = min(phase.context for phase in phases)
    short = [d for d in supplies if d.num_tokens and not any(d.num_sequences(phase.context) for phase in phases)]
    if not short:
        return []
    named = ", ".join(f"{domain.name!r} ({domain.num_tokens:,} tokens)" for domain in short[:_MOST_NAMES])
    more = f" and {len(short) - _MOST_NAMES:,} more" if len(short) > _MOST_NAMES else ""
    return [f"no sequence of {least:,} tokens in {named}{more}: never drawn"]
