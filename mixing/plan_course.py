"""A plan over training: what each domain gives in one stretch of train steps after the other, and a picture in text.

Read off the plan's targets, like everything of a plan: no order is walked, so three trillion tokens take as long as
three million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mixing.order import open_unsorted
from mixing.plan_record import Plan, PlannedPhase
from mixing.plan_table import ALL, Drawn, PlanRow, Seen, drawn_of, new_sequences, row_of

_LEVELS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Stretch:
    """A stretch of training inside one phase.

    Attributes:
        phase: its name.
        first_token: tokens trained before it.
        num_tokens: tokens trained in it.
        rows: amounts of each domain, group and all in this stretch alone, by name.
        epochs: passes over each domain and group from the start of training to the end of the stretch.
    """

    phase: str
    first_token: int
    num_tokens: int
    rows: Mapping[str, PlanRow]
    epochs: Mapping[str, float]


def course(plan: Plan, stretches: int = 60, groups: Mapping[str, Sequence[str]] | None = None) -> list[Stretch]:
    """Return a plan's amounts over training, in about so many stretches of like length that end with phases.

    Exact counts of whole draws; documents, bytes and characters in proportion. Costs O(stretches x domains).
    """
    order = open_unsorted(plan)
    names: dict[str, list[str]] = {domain.name: [domain.name] for domain in plan.domains}
    names |= {label: list(covered) for label, covered in (groups or {}).items()}
    names[ALL] = [domain.name for domain in plan.domains]
    seen: Seen = {}
    totals: dict[str, float] = dict.fromkeys(names, 0.0)
    before = np.zeros(len(plan.domains), np.int64)
    found, token = [], 0
    for phase in plan.phases:
        for start, stop in pairwise(_edges(phase, plan, stretches)):
            after = order.draws_before(stop)
            amounts = _amounts(plan, phase, after - before, seen)
            before, num_tokens = after, (stop - start) * phase.context
            rows = {}
            for label, covered in names.items():
                parts = [amounts[name] for name in covered]
                rows[label] = row_of(phase.name, label, parts, sum(part.supply for part in parts), num_tokens)
                totals[label] += rows[label].epochs
            found.append(Stretch(phase.name, token, num_tokens, rows, dict(totals)))
            token += num_tokens
    return found


def _edges(phase: PlannedPhase, plan: Plan, stretches: int) -> list[int]:
    """Positions that cut a phase into its share of the stretches, whole train steps as far as there are enough."""
    number = max(1, round(stretches * phase.num_tokens / plan.num_tokens))
    inner = {phase.start + phase.num_positions * place // number for place in range(number)}
    return sorted(inner | {phase.stop})


def _amounts(plan: Plan, phase: PlannedPhase, draws: np.ndarray, seen: Seen) -> dict[str, Drawn]:
    """Return what each domain's further draws amount to; counts them as seen."""
    amounts = {}
    for g, domain in enumerate(plan.domains):
        count = int(draws[g])
        new = new_sequences(domain, g, phase, count, seen)
        amounts[domain.name] = drawn_of(domain, phase.context, count, new)
    return amounts


def spark(values: Sequence[float], most: float | None = None) -> str:
    """Return values from 0 to their largest (or `most`) as a line of blocks; what is not zero never looks it.

    >>> spark([0, 1, 4, 8])
    ' ▁▄█'
    """
    top = most or max(values, default=0.0)
    levels = [0 if not value else max(1, min(8, round(8 * value / top))) for value in values]
    return "".join(_LEVELS[level] for level in levels)


def drawing(stretches: Sequence[Stretch], caps: Mapping[str, float], most_domains: int = 40) -> list[str]:
    """Return the plan over training as lines of text: a domain or group each, the largest first, then new text.

    Each line's blocks run from the first to the last token; their height is the domain's share, from 0 to its largest.
    """
    tokens = {name: _tokens(stretches, name) for name in stretches[0].rows if name != ALL}
    drawn = sorted((name for name in tokens if tokens[name]), key=lambda name: (-tokens[name], name))
    shown, column = drawn[:most_domains], max([14, *(len(name) for name in drawn[:most_domains])])
    lines = [f"{'over training':<{column}} {'share':>7} {_phase_marks(stretches)} {'share':>7} {'epochs':>7}"]
    for name in shown:
        shares = [stretch.rows[name].share for stretch in stretches]
        cap = f" of {caps[name]:g}" if caps.get(name, float("inf")) != float("inf") else ""
        epochs = f"{stretches[-1].epochs[name]:>7.2f}{cap}"
        lines.append(f"{name:<{column}} {shares[0]:>7.2%} {spark(shares)} {shares[-1]:>7.2%} {epochs}")
    if len(drawn) > len(shown):
        lines.append(f"{'':<{column}} and {len(drawn) - len(shown):,} more domains")
    unique = [stretch.rows[ALL].unique_share for stretch in stretches]
    lines.append(f"{'unique text':<{column}} {unique[0]:>7.0%} {spark(unique, 1.0)} {unique[-1]:>7.0%}")
    return lines


def _tokens(stretches: Sequence[Stretch], name: str) -> int:
    return sum(stretch.rows[name].num_tokens for stretch in stretches)


def _phase_marks(stretches: Sequence[Stretch]) -> str:
    """Names of the phases above the stretches they hold, each behind a bar."""
    marks, place = "", 0
    while place < len(stretches):
        phase = stretches[place].phase
        wide = sum(stretch.phase == phase for stretch in stretches[place:])
        marks += f"|{phase}"[:wide].ljust(wide)
        place += wide
    return marks
