"""What changes when a plan is edited: up to which position two plans agree, and what differs after it.

Two plans agree up to a position when every position before it leads to the same sequence of the same domain. That is
read off their structure, window by window: order windows are the same when they draw the same domains (of the same
size) from and to the same draws, under the same keys. What a domain's sequences contain is not the plan's to know.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mixing.order import Order, open_unsorted
from mixing.plan_record import Plan
from mixing.schedule import BySignal
from mixing.targets import Int64s, count_drawn
from mixing.windows import boundary

_MOST_NAMES = 5


@dataclass(frozen=True)
class DomainChange:
    """What an edit means for one domain, in sequences.

    Attributes:
        name: the domain.
        tokens_old: tokens it gives from the edit on, in the old plan.
        tokens_new: the same in the new plan.
        again: draws before the edit that the new plan makes after it, so that they are trained twice.
        left_out: draws that the new plan makes before the edit and the old one did not, so that they are never trained.
    """

    name: str
    tokens_old: int
    tokens_new: int
    again: int
    left_out: int


@dataclass(frozen=True)
class PlanDifference:
    """How a new plan differs from an old one that was followed up to a position.

    Attributes:
        same_before: the plans agree on every position before this one.
        at: the position from which the new plan is followed.
        reason: what differs first; empty when nothing does.
        domains: those for which something changes, by name.
        place: `same_before` as train step and token of the old plan, in words.
        reshuffled: domains whose sequences of one context come in another order, or are others, from the edit on:
            equal numbers of draws are then other sequences.
    """

    same_before: int
    at: int
    reason: str
    domains: tuple[DomainChange, ...]
    place: str = ""
    reshuffled: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The difference in words."""
        if not self.reason:
            return [f"no difference: both plans hold the same {self.same_before:,} positions"]
        told = [f"unchanged before position {self.same_before:,}{self.place}; from there on: {self.reason}"]
        if not self.at:
            told.append("nothing of the old run stays: the new plan begins anew")
        elif self.reshuffled:
            told.append(_reshuffled_line(self.reshuffled))
        elif self.at <= self.same_before:
            told.append(f"continued from position {self.at:,}: nothing is trained twice, nothing is left out")
        for change in self.domains:
            line = f"domain {change.name!r}: {change.tokens_old:,} -> {change.tokens_new:,} tokens from {self.at:,} on"
            if change.again or change.left_out:
                line += f"; {change.again:,} sequences again, {change.left_out:,} left out"
            told.append(line)
        return told


def diff(old_plan: Plan, new_plan: Plan, at: int | None = None) -> PlanDifference:
    """Say what is unchanged before a position and different after it, when `new` is followed from `at` on.

    Args:
        old_plan: the plan that was followed so far.
        new_plan: the plan that is to be followed.
        at: where the change is made; default: the first position on which they need not agree.
    """
    same_before, reason = first_difference(old_plan, new_plan)
    old, new = open_unsorted(old_plan), open_unsorted(new_plan)
    at = same_before if at is None else at
    names = sorted(set(old.names) | set(new.names))
    before = [_by_name(order, order.draws_before(min(at, order.plan.num_positions))) for order in (old, new)]
    tokens = [_tokens_after(order, min(at, order.plan.num_positions)) for order in (old, new)]
    changes = []
    for name in names:
        drawn = [counts.get(name, 0) for counts in before]
        if at <= same_before:
            drawn = [0, 0]
        again, left_out = max(0, drawn[0] - drawn[1]), max(0, drawn[1] - drawn[0])
        change = DomainChange(name, tokens[0].get(name, 0), tokens[1].get(name, 0), again, left_out)
        if change.tokens_old != change.tokens_new or again or left_out:
            changes.append(change)
    reshuffled = tuple(name for name in _reshuffled(old_plan, new_plan) if before[0].get(name))
    place = f" ({_step_and_token(old_plan, same_before)})"
    return PlanDifference(same_before, at, reason, tuple(changes), place, reshuffled)


def _reshuffled(old: Plan, new: Plan) -> tuple[str, ...]:
    """Domains of both plans whose permutations differ: by seed, stretch, or number of sequences of a common context."""
    suppliers = {domain.name: domain for domain in old.domains}
    contexts = {phase.context for phase in old.phases} & {phase.context for phase in new.phases}
    keys_differ = (old.seed, old.stretch_tokens) != (new.seed, new.stretch_tokens)
    return tuple(
        domain.name
        for domain in new.domains
        if domain.name in suppliers
        and (keys_differ or any(domain.num_sequences(c) != suppliers[domain.name].num_sequences(c) for c in contexts))
    )


def _reshuffled_line(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES:,} more" if names[_MOST_NAMES:] else "")
    return f"shuffled otherwise from there on: {shown}; their sequences of the epoch under way may come twice or never"


def _step_and_token(plan: Plan, position: int) -> str:
    """The train step that holds a position, and the tokens before it."""
    step = token = 0
    for phase in plan.phases:
        left = min(position, phase.stop) - phase.start
        for run in phase.steps:
            here = min(max(0, left), run.num_sequences)
            step, token, left = step + here // run.sequences, token + here * phase.context, left - here
    return f"train step {step:,}, {token:,} tokens"


def first_difference(old_plan: Plan, new_plan: Plan) -> tuple[int, str]:
    """Return the position before which two plans agree, told in whole order windows, and what differs there.

    The reason is empty when the plans agree on all their positions, of which there are equally many.
    """
    old, new = open_unsorted(old_plan), open_unsorted(new_plan)
    for s in range(min(old.tables.start.size, new.tables.start.size)):
        reason = _span_reason(old, new, s)
        if reason:
            return int(old.tables.start[s]), reason
        if not _ends_alike(old, new, s):
            return _common_windows(old, new, s), f"phase {_phase_name(new.plan, s)!r} has another length"
    lengths = old.plan.num_positions, new.plan.num_positions
    if lengths[0] != lengths[1]:
        return min(lengths), f"the {'old' if lengths[0] < lengths[1] else 'new'} plan ends there"
    return lengths[0], ""


def prefix_id(plan: Plan, position: int) -> str:
    """Return the hash of all that decides the positions before one, 32 hexadecimal digits.

    Different plans have the same prefix there when they agree on those positions (up to window structure, as
    in `first_difference`), whatever comes later. What the sequences contain must be hashed beside it.
    """
    order = open_unsorted(plan)
    digest = hashlib.blake2b(f"{plan.seed} {position}".encode(), digest_size=16)
    if position:
        last, _, _, _, high = order.window_at(position - 1)
        for s in range(last + 1):
            digest.update(_span_bytes(order, s))
            entries = _entries(order, s)
            ends = order.tables.draws[entries] if s < last or _is_sorted(order, s) else high
            digest.update(ends.tobytes())
    return digest.hexdigest()


def cut_windows(plan: Plan) -> list[tuple[int, int]]:
    """Return where each span's last order window begins and the span ends, as positions, of windows that the end cuts.

    What stands where in such a window depends on the end: a plan whose span goes on draws more there before it mixes.
    Up to the beginning, spans of one law agree whatever their lengths.
    """
    order = open_unsorted(plan)
    tables, cut = order.tables, []
    for s, (_, span) in enumerate(plan.spans):
        entries, num_windows = _entries(order, s), int(tables.num_windows[s])
        begins = int(boundary(tables, s, num_windows - 1, np.zeros(entries.stop - entries.start, np.int64)))
        if span.ramp or not np.array_equal(_drawn_by(order, s, num_windows), tables.draws[entries]):
            cut.append((span.start + begins, int(tables.stop[s])))
    return cut


def _drawn_by(order: Order, s: int, window: int) -> Int64s:
    """Return what each domain of a span without a ramp gives before a window if the span goes on, (entries,)."""
    tables, entries = order.tables, _entries(order, s)
    laws = zip(tables.weight[entries], tables.remainder[entries], strict=True)
    time = window * int(tables.window[s])
    return np.array([count_drawn(weight, 0, 0, remainder, time) for weight, remainder in laws], np.int64)


def _entries(order: Order, s: int) -> slice:
    return slice(int(order.tables.first[s]), int(order.tables.first[s + 1]))


def _phase_name(plan: Plan, s: int) -> str:
    return plan.spans[s][0].name


def _is_sorted(order: Order, s: int) -> bool:
    """Tell whether a span is ordered by a signal: then where it ends decides where everything stands in it."""
    return isinstance(order.plan.spans[s][0].order, BySignal)


def _columns(order: Order, s: int) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
    """Return what decides a span's windows, in words that a reason can name; lengths only where spans are sorted."""
    tables, entries = order.tables, _entries(order, s)
    phase, span = order.plan.spans[s]
    signal = (phase.order.signal, str(phase.order.descending)) if isinstance(phase.order, BySignal) else ()
    at_context = tables.before[entries] - tables.shift[entries]
    columns: dict[str, tuple[str, ...] | tuple[int, ...]] = {
        "seed": (order.plan.seed,),
        "stretch": (order.plan.stretch_tokens,),
        "first position": (span.start,),
        "context": (phase.context,),
        "order": signal,
        "domains": tuple(order.names[g] for g in span.domains),
        "sizes": tuple(tables.size[entries].tolist()),
        "ramp": (span.ramp,),
        "weights": span.weights + span.changes,
        "draws before": tuple(at_context.tolist()) + span.remainders + span.draws_before,
        "order window": (phase.window,),
    }
    if signal:  # a phase is sorted over all its spans, a ramp's too: which draws it has in all decides each of them
        drawn = [f"{order.names[g]}: {n}" for one in phase.spans for g, n in zip(one.domains, one.draws, strict=True)]
        columns["length"] = (str(phase.num_positions), *drawn)
    return columns


def _span_reason(old: Order, new: Order, s: int) -> str:
    """Return what differs in how a span begins and goes on; empty if nothing does."""
    first, second = _columns(old, s), _columns(new, s)
    for word, value in first.items():
        if value != second[word]:
            return f"phase {_phase_name(new.plan, s)!r} has other {word}"
    return ""


def _span_bytes(order: Order, s: int) -> bytes:
    return repr(sorted(_columns(order, s).items())).encode()


def _ends_alike(old: Order, new: Order, s: int) -> bool:
    return np.array_equal(old.tables.draws[_entries(old, s)], new.tables.draws[_entries(new, s)])


def _common_windows(old: Order, new: Order, s: int) -> int:
    """Return the position before which a span that only ends elsewhere is the same: the start of its last window."""
    start = int(old.tables.start[s])
    if _is_sorted(old, s):
        return start
    shorter, longer = sorted((old, new), key=lambda order: int(order.tables.num_windows[s]))
    window = int(shorter.tables.num_windows[s])
    count = _entries(longer, s).stop - _entries(longer, s).start
    ends = np.zeros(count, np.int64)
    total = int(boundary(longer.tables, s, window, ends))
    if window < longer.tables.num_windows[s] and np.array_equal(ends, shorter.tables.draws[_entries(shorter, s)]):
        return start + total  # the shorter span happens to end with a whole window
    return start + int(boundary(longer.tables, s, window - 1, ends))


def _by_name(order: Order, counts: Int64s) -> dict[str, int]:
    return {name: int(count) for name, count in zip(order.names, counts, strict=True)}


def _tokens_after(order: Order, position: int) -> dict[str, int]:
    """Return the tokens each domain gives from a position on."""
    tokens = np.zeros(len(order.names), np.int64)
    for phase in order.plan.phases:
        if phase.stop > position:
            from_here = order.draws_before(phase.stop) - order.draws_before(max(position, phase.start))
            tokens += from_here * phase.context
    return _by_name(order, tokens)
