"""Does the supply meet the budget? Caps on epochs over the whole run, and spreading what a domain cannot give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from curation.amounts import in_three_digits
from mixing.targets import DENOMINATOR
from mixing.weights import exact, to_integers


class BudgetError(ValueError):
    """A token budget that a domain cannot meet within its cap on epochs."""


@dataclass(frozen=True)
class Demand:
    """What a schedule asks of the domains: P phases, G domains.

    Attributes:
        names: of the domains, (G,).
        contexts: tokens of a sequence, (P,).
        lengths: sequences of each phase, (P,).
        ramps: sequences over which each phase's weights change from those before, (P,).
        sequences: sequences each domain has at each phase's context, (P, G).
        max_epochs: cap on passes over each domain, (G,); infinite: none.
        phases: their names, (P,), for errors.
    """

    names: tuple[str, ...]
    contexts: tuple[int, ...]
    lengths: tuple[int, ...]
    ramps: tuple[int, ...]
    sequences: tuple[tuple[int, ...], ...]
    max_epochs: tuple[float, ...]
    phases: tuple[str, ...] = ()

    def targets(self, weights: Sequence[Mapping[str, int]], g: int) -> list[Fraction]:
        """Return the sequences domain g is to give in each phase, before rounding to whole ones, (P,)."""
        name = self.names[g]
        shares = []
        for place, length in enumerate(self.lengths):
            units = weights[place][name] * length
            if self.ramps[place]:
                # the mean weight over a ramp is the mean of its two ends
                before = weights[place - 1][name] - weights[place][name]
                shares.append(Fraction(2 * units + before * self.ramps[place], 2 * DENOMINATOR))
            else:
                shares.append(Fraction(units, DENOMINATOR))
        return shares

    def epochs(self, targets: Sequence[Fraction], g: int) -> Fraction:
        """Return the passes over domain g that targets in sequences mean."""
        return sum(
            (target / self.sequences[place][g] for place, target in enumerate(targets) if target), start=Fraction(0)
        )

    def slack(self, g: int) -> Fraction:
        """Return the epochs that one sequence of domain g is: rounding draws to whole ones is no shortage."""
        counts = [counts[g] for counts in self.sequences if counts[g]]
        return Fraction(1, min(counts)) if counts else Fraction(0)

    def tokens(self, targets: Sequence[Fraction]) -> Fraction:
        """Return targets in sequences as tokens."""
        return sum((t * context for t, context in zip(targets, self.contexts, strict=True)), start=Fraction(0))

    @property
    def budget(self) -> int:
        """Tokens of the run."""
        return sum(length * context for length, context in zip(self.lengths, self.contexts, strict=True))


def short_domains(demand: Demand, weights: Sequence[Mapping[str, int]]) -> list[int]:
    """Return the domains that need more epochs than their cap, by more than one sequence."""
    short = []
    for g in range(len(demand.names)):
        if math.isinf(demand.max_epochs[g]):
            continue
        needed = demand.epochs(demand.targets(weights, g), g)
        if needed > exact(demand.max_epochs[g]) + demand.slack(g):
            short.append(g)
    return short


def check_caps(demand: Demand, weights: Sequence[Mapping[str, int]]) -> None:
    """Raise BudgetError, with a line and both remedies for every short domain, unless all caps hold."""
    short = short_domains(demand, weights)
    if short:
        lines = whole_shortage(demand, weights) or "\n".join(shortage_line(demand, weights, g) for g in short)
        raise BudgetError(lines)


def whole_shortage(demand: Demand, weights: Sequence[Mapping[str, int]]) -> str:
    """Say that all domains together give less than the schedule asks, whatever the weights; nothing where they do not.

    Lowering a weight helps nobody then. The length that fits keeps the weights as they are.
    """
    if any(math.isinf(cap) for cap in demand.max_epochs):
        return ""
    contexts = demand.contexts
    supply = [max(c * counts[g] for c, counts in zip(contexts, demand.sequences)) for g in range(len(demand.names))]
    caps = [exact(cap) for cap in demand.max_epochs]
    if sum(supply[g] * cap for g, cap in enumerate(caps)) >= demand.budget:
        return ""
    epochs = [demand.epochs(demand.targets(weights, g), g) for g in range(len(demand.names))]
    fits = min(cap / passes for cap, passes in zip(caps, epochs, strict=True) if passes)
    return too_little(demand.budget, supply, demand.max_epochs, demand.budget * fits, max(epochs))


def too_little(
    asked: int,
    supply: Sequence[int],
    caps: Sequence[float],
    fits: Fraction | None = None,
    epochs: Fraction | None = None,
) -> str:
    """Say that a schedule is too long for all the text there is, and what can be done.

    Args:
        asked: tokens of the schedule.
        supply: tokens of each domain, (G,).
        caps: most passes over each domain, (G,), finite.
        fits: tokens of the longest schedule under the weights that are asked for; by default, under any.
        epochs: passes over the most repeated domain; by default as if all were passed over alike.
    """
    most = sum((tokens * exact(cap) for tokens, cap in zip(supply, caps, strict=True)), start=Fraction(0))
    how = "each domain x its max_epochs"
    if len(set(caps)) == 1:
        how = f"{in_three_digits(sum(supply))} x max_epochs {caps[0]:g}"
    raised = math.ceil((Fraction(asked, max(1, sum(supply))) if epochs is None else epochs) * 100) / 100
    shorter = in_three_digits(most if fits is None else fits, math.floor)
    return (
        f"the schedule asks for {in_three_digits(asked)} tokens, but there is text for {in_three_digits(most)} at most "
        f"({how}); shorten it to {shorter}, raise domains.max_epochs to {raised:g}, or add text"
    )


def shortage_line(demand: Demand, weights: Sequence[Mapping[str, int]], g: int) -> str:
    """Say what domain g needs, what it has, and the two remedies, rounded to the side that works."""
    targets = demand.targets(weights, g)
    needed, epochs, cap = demand.tokens(targets), demand.epochs(targets, g), exact(demand.max_epochs[g])
    supply = needed / epochs  # tokens of an epoch, at the contexts the run uses
    share = needed / demand.budget
    raised = math.ceil(epochs * 100) / 100
    return (
        f"domain {demand.names[g]!r}: {in_three_digits(needed)} tokens needed ({float(share):.1%} of "
        f"{in_three_digits(demand.budget)}) but supply {in_three_digits(supply)} x {float(cap):g} epochs = "
        f"{in_three_digits(supply * cap)}; lower its weight to {_lowered(demand, weights, g, cap / epochs)} "
        f"or raise max_epochs to {raised:g}"
    )


def _lowered(demand: Demand, weights: Sequence[Mapping[str, int]], g: int, factor: Fraction) -> str:
    """Return the weights that keep domain g within its cap: one number, or one for each phase that draws from it."""
    lowered = [_below(Fraction(phase[demand.names[g]], DENOMINATOR) * factor) for phase in weights]
    if len(weights) == 1 or not demand.phases:
        share = demand.tokens(demand.targets(weights, g)) / demand.budget
        return _below(share * factor)
    told = [
        f"{weight} in {name!r}"
        for name, weight, phase in zip(demand.phases, lowered, weights)
        if phase[demand.names[g]]
    ]
    return " and ".join(told)


def _below(weight: Fraction) -> str:
    """Write a weight to three digits, rounded down."""
    digits = 3 if weight >= Fraction(1, 100) else 3 - math.floor(math.log10(weight)) if weight else 3
    return f"{math.floor(weight * 10**digits) / 10**digits:g}"


def spread_shortage(demand: Demand, weights: Sequence[Mapping[str, int]]) -> list[dict[str, int]]:
    """Hold short domains at their caps and spread the rest over the others in proportion to their weights.

    Each round holds the domains that are short and shares out anew; holding one can make another short, so rounds go
    on until none is (water-filling, at most as many rounds as domains). A domain's weights shrink alike in all phases.

    Raises:
        BudgetError: if a phase is left without a domain that could take more.
    """
    current = [dict(phase) for phase in weights]
    held: dict[int, Fraction] = {}
    while True:
        short = [g for g in short_domains(demand, current) if g not in held]
        if not short:
            return current
        for g in short:
            held[g] = exact(demand.max_epochs[g]) / demand.epochs(demand.targets(weights, g), g)
        current = [_share_out(demand, phase, held, weights) for phase in weights]


def _share_out(
    demand: Demand, phase: Mapping[str, int], held: Mapping[int, Fraction], weights: Sequence[Mapping[str, int]]
) -> dict[str, int]:
    """Return one phase's weights with held domains scaled down and the others scaled up alike."""
    kept = {demand.names[g]: phase[demand.names[g]] * scale for g, scale in held.items()}
    free = sum(units for name, units in phase.items() if name not in kept)
    most = DENOMINATOR - free
    total = sum(kept.values(), start=Fraction(0))
    if free and total > most:  # caps that allow more here than others leave, since other phases draw less
        lower = most / total
        kept = {name: units * lower for name, units in kept.items()}
    left = DENOMINATOR - sum(kept.values())
    if not free and left > len(kept):
        lines = "\n".join(shortage_line(demand, weights, g) for g in sorted(held))
        raise BudgetError(f"no domain is left to spread the shortage over:\n{lines}")
    return to_integers({name: kept.get(name, units * left / free if free else 0) for name, units in phase.items()})
