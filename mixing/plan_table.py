"""A plan for people to read before anything trains: a table of amounts per domain and phase, and a tree.

Amounts are what the run draws, repeats counted: 10 documents passed over twice are 20 documents. The unique share is
the part of the tokens drawn that no earlier draw of the run has brought.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mixing.patterns import members
from mixing.plan_record import DomainSupply, Plan, PlannedPhase
from mixing.schedule import Blocked, BySignal

_MOST_BRANCHES, _SHOWN_BRANCHES = 60, 40
_MOST_NAMES = 12  # of domains that are not drawn from


class _Total(str):
    """A name that is written `all` and equals no other name: a domain or phase may be called so."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


ALL: str = _Total("all")
"""The name of the row over all phases, or over all domains."""


@dataclass(frozen=True)
class PlanRow:
    """What one domain (or group of domains) gives in one phase (or in the run).

    Attributes:
        phase: its name, or `ALL`.
        domain: the domain's or group's name, or `ALL`.
        share: of the tokens of the phase or run.
        num_sequences: draws.
        num_tokens: tokens drawn.
        num_documents: documents drawn, to the nearest.
        size_bytes: bytes of text drawn, to the nearest.
        num_characters: characters of text drawn, to the nearest.
        epochs: tokens drawn as passes over the supply (over the group's supply together).
        unique_share: part of the tokens drawn that is new to the run; where phases differ in context, its expectation.
    """

    phase: str
    domain: str
    share: float
    num_sequences: int
    num_tokens: int
    num_documents: int
    size_bytes: int
    num_characters: int
    epochs: float
    unique_share: float


@dataclass(frozen=True)
class Drawn:
    """Amounts of one domain in one phase, to the nearest float; they add up over phases and domains."""

    sequences: int = 0
    tokens: int = 0
    new_tokens: float = 0
    documents: float = 0
    bytes: float = 0
    characters: float = 0
    supply: int = 0


Seen = dict[int, dict[int, int]]  # number of a domain -> context -> sequences drawn so far


def table(plan: Plan, groups: Mapping[str, Sequence[str]] | None = None) -> list[PlanRow]:
    """Return the plan's rows: for each phase and then for the run, each domain, each group, and all domains.

    Args:
        plan: the plan.
        groups: names of groups (patterns) and the domains they cover.

    Domains that give nothing in a phase have a row of zeros there.
    """
    amounts = _amounts(plan)
    phases = [(phase.name, [place]) for place, phase in enumerate(plan.phases)]
    if len(plan.phases) > 1:
        phases.append((ALL, list(range(len(plan.phases)))))
    domains: list[tuple[str, list[str]]] = [(domain.name, [domain.name]) for domain in plan.domains]
    domains += [(label, list(names)) for label, names in (groups or {}).items()]
    domains.append((ALL, [domain.name for domain in plan.domains]))
    rows = []
    for phase, places in phases:
        total = sum(plan.phases[place].num_tokens for place in places)
        for label, names in domains:
            # a domain's supply counts once, however many phases draw from it
            supply = sum(amounts[0][name].supply for name in names)
            rows.append(row_of(phase, label, [amounts[p][name] for p in places for name in names], supply, total))
    return rows


def tree(plan: Plan) -> str:
    """Return the plan as an indented tree: the run, its phases with steps and order, their domains with shares.

    Of more than 60 domains a phase shows the 40 that give most; the table has all.
    """
    lines = [f"plan {plan.id}: {plan.num_tokens:,} tokens, {plan.num_steps:,} train steps, seed {plan.seed}"]
    rows = {(row.phase, row.domain): row for row in table(plan)}
    for phase in plan.phases:
        last_phase = phase is plan.phases[-1]
        lines.append(f"{'└─' if last_phase else '├─'} {_phase_line(phase)}")
        drawn = [rows[phase.name, domain.name] for domain in plan.domains if rows[phase.name, domain.name].num_tokens]
        told = [
            f"{row.domain} {row.share:.2%}: {row.num_tokens:,} tokens, {row.epochs:.2f} epochs, "
            f"{row.unique_share:.0%} unique"
            for row in _largest(drawn)
        ]
        if len(told) < len(drawn):
            told.append(f"and {len(drawn) - len(told):,} more domains")
        stem = "   " if last_phase else "│  "
        lines += [f"{stem}{'└─' if place == len(told) else '├─'} {line}" for place, line in enumerate(told, start=1)]
    return "\n".join([*lines, *_not_drawn(plan, rows), *plan.warnings])


def _largest(rows: Sequence[PlanRow]) -> Sequence[PlanRow]:
    """Rows in their order; of too many for a tree, those of the most tokens, the largest first."""
    if len(rows) <= _MOST_BRANCHES:
        return rows
    return sorted(rows, key=lambda row: (-row.num_tokens, row.domain))[:_SHOWN_BRANCHES]


def _not_drawn(plan: Plan, rows: Mapping[tuple[str, str], PlanRow]) -> list[str]:
    """A line that names the domains which no phase draws from, with why, so that none is missing unseen."""
    whole = ALL if len(plan.phases) > 1 else plan.phases[0].name
    told = []
    for domain in plan.domains:
        if not rows[whole, domain.name].num_sequences:
            empty = "no documents left" if not domain.num_tokens else f"{domain.num_tokens:,} tokens"
            told.append(f"{domain.name} ({empty})")
    more = f" and {len(told) - _MOST_NAMES:,} more" if len(told) > _MOST_NAMES else ""
    return [f"not drawn from: {', '.join(told[:_MOST_NAMES])}{more}"] if told else []


def _phase_line(phase: PlannedPhase) -> str:
    order = "uniform"
    if isinstance(phase.order, Blocked):
        order = "blocked " + " | ".join(",".join(block) for block in phase.order.blocks)
    elif isinstance(phase.order, BySignal):
        order = f"by {phase.order.signal} {'desc' if phase.order.descending else 'asc'}"
    steps = ", then ".join(f"{run.num_steps:,} x {run.sequences:,} sequences" for run in phase.steps)
    ramp = next((f", ramp over {span.ramp:,} sequences" for span in phase.spans if span.ramp), "")
    return (
        f"{phase.name}: {phase.num_tokens:,} tokens = {steps} of {phase.context:,}, {order}{ramp}, "
        f"from position {phase.start:,}"
    )


def _amounts(plan: Plan) -> list[dict[str, Drawn]]:
    """Return what each domain gives in each phase."""
    drawn: Seen = {}
    amounts = []
    for phase in plan.phases:
        here: dict[int, int] = {}
        for span in phase.spans:
            for g, count in zip(span.domains, span.draws, strict=True):
                here[g] = here.get(g, 0) + count
        row = {}
        for g, domain in enumerate(plan.domains):
            count = here.get(g, 0)
            row[domain.name] = drawn_of(domain, phase.context, count, new_sequences(domain, g, phase, count, drawn))
        amounts.append(row)
    return amounts


def new_sequences(domain: DomainSupply, g: int, phase: PlannedPhase, count: int, drawn: Seen) -> float:
    """Return how many of `count` further draws bring text for the first time, and count them as drawn.

    Exact for one context. Text seen at another context is spread evenly over this one's sequences, in expectation.
    """
    if not count:
        return 0
    before = drawn.setdefault(g, {})
    new: float = max(0, min(count, domain.num_sequences(phase.context) - before.get(phase.context, 0)))
    for context, number in before.items():
        if context != phase.context:
            new *= 1 - min(1.0, number / domain.num_sequences(context))
    before[phase.context] = before.get(phase.context, 0) + count
    return new


def drawn_of(domain: DomainSupply, context: int, count: int, new: float) -> Drawn:
    """Return what `count` draws of a domain amount to, of which `new` bring text for the first time."""
    supply, tokens = domain.tokens_of_pass(context), count * context
    if not count:
        return Drawn(supply=supply)
    return Drawn(
        count,
        tokens,
        new * context,
        domain.num_documents * tokens / supply,
        domain.size_bytes * tokens / supply,
        domain.num_characters * tokens / supply,
        supply,
    )


def row_of(phase: str, label: str, parts: Sequence[Drawn], supply: int, total: int) -> PlanRow:
    """Return a row of amounts added up over `parts`; shares are of `total` tokens, epochs of `supply`."""
    tokens = sum(part.tokens for part in parts)
    return PlanRow(
        phase=phase,
        domain=label,
        share=tokens / total,
        num_sequences=sum(part.sequences for part in parts),
        num_tokens=tokens,
        num_documents=round(math.fsum(part.documents for part in parts)),
        size_bytes=round(math.fsum(part.bytes for part in parts)),
        num_characters=round(math.fsum(part.characters for part in parts)),
        epochs=tokens / supply if supply else 0.0,
        unique_share=math.fsum(part.new_tokens for part in parts) / tokens if tokens else 0.0,
    )


def groups_of(patterns: Iterable[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the domains that each pattern covers, for `table`: patterns that cover several, `"*"` left out."""
    groups = {pattern: members(pattern, names) for pattern in sorted(set(patterns) - {"*", *names})}
    return {pattern: covered for pattern, covered in groups.items() if len(covered) > 1}
