"""UniMax over a schedule: the weights of all phases that ask for it, solved together against what a plan counts.

A cap is on passes over the whole run, and a pass is as many whole sequences as a domain has. So the phases share the
caps in proportion to their tokens, less the passes that phases with other weights make.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from mixing.budget import Demand
from mixing.plan import demand_of, integer_weights
from mixing.plan_record import DomainSupply
from mixing.schedule import BatchLine, Phase, cut_steps, ramp_sequences
from mixing.targets import DENOMINATOR
from mixing.weights import exact, fill, to_integers


def with_unimax(
    supplies: Sequence[DomainSupply],
    phases: Sequence[Phase],
    asking: Collection[int],
    batch: Sequence[BatchLine],
    caps: Mapping[str, float],
) -> list[Phase]:
    """Give phases their UniMax weights.

    Where other phases leave less than these need, the caps are taken whole; the plan then refuses the budget.

    Args:
        supplies: the trained domains; those without a whole sequence at a phase's context are left out of it.
        phases: the schedule; weights of those that ask are not read.
        asking: numbers of the phases that are to have UniMax weights.
        batch: the train batch by lines.
        caps: most passes over each domain; infinite: none.

    Raises:
        ScheduleError, WeightError: see there.
    """
    if not asking or not supplies:
        return list(phases)
    steps = cut_steps(phases, batch)
    demand = demand_of(supplies, phases, steps, ramp_sequences(phases, steps, batch), caps)
    parts = {place: _parts(demand, place) for place in asking}
    fixed = [{} if place in parts else integer_weights(phase, demand.names) for place, phase in enumerate(phases)]
    taken = [_fixed_epochs(demand, fixed, g) for g in range(len(demand.names))]
    found = list(phases)
    for place in asking:
        ceilings = _ceilings(demand, parts, place, taken)
        if sum(ceilings.values()) < 1:
            ceilings = _ceilings(demand, parts, place, [Fraction(0)] * len(taken))
        found[place] = replace(phases[place], weights=to_integers(fill(ceilings, Fraction(1))))
    return found


def _parts(demand: Demand, place: int) -> list[Fraction]:
    """Sequences of each phase that the weights of one decide, (P,): a ramp also reaches into the phase behind."""
    name = demand.names[0]
    alone = [{name: DENOMINATOR if other == place else 0} for other in range(len(demand.lengths))]
    return demand.targets(alone, 0)


def _fixed_epochs(demand: Demand, fixed: Sequence[Mapping[str, int]], g: int) -> Fraction:
    """Passes over domain g under the weights that are given; the plan refuses weight where it has no sequence."""
    name = demand.names[g]
    targets = demand.targets([{name: phase.get(name, 0)} for phase in fixed], g)
    return demand.epochs([target if demand.sequences[p][g] else Fraction(0) for p, target in enumerate(targets)], g)


def _ceilings(
    demand: Demand, parts: Mapping[int, Sequence[Fraction]], place: int, taken: Sequence[Fraction]
) -> dict[str, Fraction]:
    """The largest weight of each domain in a phase: its part of what is left of the cap, 1 at most."""
    tokens = {other: demand.tokens(part) for other, part in parts.items()}
    ceilings = {}
    for g, name in enumerate(demand.names):
        drawn = {other for other, part in parts.items() if _can_draw(demand, part, g)}
        cap = demand.max_epochs[g]
        if place not in drawn:
            ceilings[name] = Fraction(0)
        elif cap == float("inf"):
            ceilings[name] = Fraction(1)
        else:
            share = tokens[place] / sum(tokens[other] for other in drawn)
            left = max(Fraction(0), exact(cap) - taken[g])
            ceilings[name] = min(Fraction(1), left * share / demand.epochs(parts[place], g))
    return ceilings


def _can_draw(demand: Demand, part: Sequence[Fraction], g: int) -> bool:
    """Whether domain g has a sequence wherever the weights of a phase count."""
    return all(demand.sequences[p][g] for p, target in enumerate(part) if target)
