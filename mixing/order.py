"""The global order: position <-> (domain, draw) <-> (epoch, sequence), as pure functions of the plan.

A span's plan time is cut into order windows of B sequences. Window b of a span holds, of each domain g, the draws from
K_g(bB) to K_g((b+1)B), laid out domain after domain, and a keyed permutation of the window mixes them. The last window
ends with the span. So a position is found by the window it lies in, and draws of different windows never change places.
Draw k of a domain is place k mod n of its epoch k div n, and a keyed permutation, fresh for each epoch, tells which of
the n sequences stands there. Keys come from the seed, the domain's name, the context and the span's first position.

Every look-up evaluates the targets at two window boundaries, O(domains); there is no state and nothing is read but the
plan. Memory: ten numbers for each span and domain, and 8 bytes for each sequence of a phase ordered by a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mixing.permutation import name_key
from mixing.plan import Plan, PlannedPhase
from mixing.schedule import BySignal
from mixing.spans import Span
from mixing.targets import TICKS, Int64s
from mixing.windows import (
    Located,
    Tables,
    fill_draws,
    fill_positions,
    fill_sequences,
    find_window,
    locate_sorted,
)

SignalValues = Callable[[str, str, int], npt.NDArray[Any]]
"""(domain, signal, context) -> the signal of each of the domain's sequences, in their order."""


class OrderError(ValueError):
    """A position, draw or sequence that the order does not hold."""


@dataclass(frozen=True)
class Order:
    """The global order of a plan; make it with `open_order`."""

    plan: Plan
    names: tuple[str, ...]
    tables: Tables

    def locate(self, positions: npt.ArrayLike) -> Located:
        """Return what stands at positions, int64 (n,), in any order and with repeats.

        Rising positions cost some 100 ns each, scattered ones O(domains) each.

        Raises:
            OrderError: for a position outside the plan.
        """
        wanted = np.ascontiguousarray(positions, dtype=np.int64)
        _check_range("position", wanted, self.plan.num_positions)
        where = np.argsort(wanted, kind="stable")
        count = wanted.size
        out = Located(
            np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
        )
        locate_sorted(self.tables, wanted[where], where, out)
        return out

    def positions_of_draws(self, domain: str, draws: npt.ArrayLike) -> Int64s:
        """Return the position of each draw of a domain, int64 (n,): the inverse of `locate`.

        Raises:
            OrderError: for a draw the run never makes, or an unknown domain.
        """
        entries = self._entries(domain)
        wanted = np.ascontiguousarray(draws, dtype=np.int64)
        ends = self.tables.before[entries] + self.tables.draws[entries]
        _check_range(f"draw of domain {domain!r}", wanted, int(ends[-1]) if ends.size else 0)
        if not wanted.size:
            return np.empty(0, np.int64)
        entry_of = entries[np.searchsorted(ends, wanted, side="right")]
        span_of = np.searchsorted(self.tables.first, entry_of, side="right") - 1
        positions = np.empty(wanted.size, np.int64)
        drawn = wanted - self.tables.before[entry_of]
        fill_positions(self.tables, span_of, entry_of, drawn, positions)
        return positions

    def positions_of_sequence(self, domain: str, sequence: int, context: int | None = None) -> Int64s:
        """Return all positions at which a domain's sequence is trained, rising, int64 (times,).

        Args:
            domain: its name.
            sequence: which of the domain's sequences.
            context: of what length; needed only where the run's phases differ.

        Raises:
            OrderError: for an unknown domain or context, or a sequence the domain does not have.
        """
        context = self._context(context)
        size = self.plan.domains[self._index(domain)].num_sequences(context)
        _check_range(f"sequence of domain {domain!r}", np.array([sequence]), size)
        draws = [np.empty(0, np.int64)]
        for s, e in self._at_context(domain, context):
            draws.append(self._draws_in_span(s, e, sequence))
        return np.sort(self.positions_of_draws(domain, np.concatenate(draws)))

    def draws_before(self, position: int) -> Int64s:
        """Return how many sequences each domain has given before a position (0 to the number of positions), (domains,).

        Costs O(domains + one order window): the window that holds the position is counted out.
        """
        _check_range("position", np.array([position]), self.plan.num_positions + 1)
        counts = np.zeros(len(self.names), np.int64)
        tables = self.tables
        for s in range(int(np.searchsorted(tables.stop, position, side="right"))):
            entries = slice(int(tables.first[s]), int(tables.first[s + 1]))
            np.add.at(counts, tables.domain[entries], tables.draws[entries])
        if position < self.plan.num_positions:
            s, _, start, low, _ = self.window_at(position)
            counts[tables.domain[tables.first[s] : tables.first[s + 1]]] += low
            np.add.at(counts, self.locate(np.arange(start, position)).domain, 1)
        return counts

    def window_at(self, position: int) -> tuple[int, int, int, Int64s, Int64s]:
        """Return (span, window, its first position, low, high) for the order window that holds a position.

        `low` and `high` are what each of the span's domains has given in the span by the window's start and stop.
        """
        _check_range("position", np.array([position]), self.plan.num_positions)
        s = int(np.searchsorted(self.tables.start, position, side="right")) - 1
        count = int(self.tables.first[s + 1] - self.tables.first[s])
        low, high = np.zeros(count, np.int64), np.zeros(count, np.int64)
        offset = position - int(self.tables.start[s])
        window, start, _ = find_window(self.tables, s, offset, low, high)
        return s, int(window), int(self.tables.start[s]) + int(start), low, high

    def phase_at(self, position: int) -> PlannedPhase:
        """Return the phase that holds a position."""
        _check_range("position", np.array([position]), self.plan.num_positions)
        return next(phase for phase in self.plan.phases if position < phase.stop)

    def _index(self, domain: str) -> int:
        try:
            return self.names.index(domain)
        except ValueError:
            raise OrderError(f"domain {domain!r} is not in the plan; it has {', '.join(self.names[:20])}") from None

    def _entries(self, domain: str) -> Int64s:
        """Return a domain's entries, in order of position (and of draws) and only those that draw."""
        chosen = (self.tables.domain == self._index(domain)) & (self.tables.draws > 0)
        return np.flatnonzero(chosen)

    def _context(self, context: int | None) -> int:
        contexts = sorted({phase.context for phase in self.plan.phases})
        if context is None and len(contexts) == 1:
            return contexts[0]
        if context not in contexts:
            raise OrderError(f"context {context}: the run's sequences have {' or '.join(map(str, contexts))} tokens")
        return context

    def _at_context(self, domain: str, context: int) -> list[tuple[Span, int]]:
        spans = self.plan.spans
        found = []
        for e in self._entries(domain):
            phase, span = spans[int(np.searchsorted(self.tables.first, e, side="right")) - 1]
            if phase.context == context:
                found.append((span, int(e)))
        return found

    def _draws_in_span(self, span: Span, e: int, sequence: int) -> Int64s:
        """Return the draws of one entry that are a given sequence."""
        tables = self.tables
        before, count, size = int(tables.before[e]), int(tables.draws[e]), int(tables.size[e])
        first, stop = before, before + count
        in_order = tables.in_order[tables.sorted_from[e] : tables.sorted_from[e] + count]
        if tables.sorted_from[e] >= 0:  # sorted over the whole phase: the entry gives draws of any of its spans
            first, stop = int(in_order.min()), int(in_order.max()) + 1
        shift = int(tables.shift[e])
        epochs = np.arange((first - shift) // size, (stop - shift - 1) // size + 1, dtype=np.int64)
        draws = np.empty(epochs.size, np.int64)
        fill_draws(size, tables.epoch_key[e], tables.stretch[e], epochs, sequence, draws)
        draws += shift
        if tables.sorted_from[e] < 0:
            kept: Int64s = draws[(draws >= first) & (draws < stop)]
            return kept
        places: Int64s = np.flatnonzero(np.isin(in_order, draws)) + before
        return places


def open_order(plan: Plan, signal_values: SignalValues | None = None) -> Order:
    """Open the order of a plan.

    Args:
        plan: the plan.
        signal_values: for phases ordered by a signal: each sequence's value. Equal values stay in shuffled order.

    Raises:
        OrderError: if a phase is ordered by a signal and `signal_values` is missing or of the wrong length.
    """
    tables = _tables(plan)
    if any(isinstance(phase.order, BySignal) for phase in plan.phases):
        tables = _sort_by_signal(plan, tables, signal_values)
    return Order(plan, tuple(domain.name for domain in plan.domains), tables)


def open_unsorted(plan: Plan) -> Order:
    """Open the order of a plan without the values that phases ordered by a signal need.

    Positions and draws are those of `open_order`; in such phases sequences are not. For counting and comparing plans.
    """
    return Order(plan, tuple(domain.name for domain in plan.domains), _tables(plan))


def _tables(plan: Plan) -> Tables:
    """Lay the plan out as arrays."""
    spans = plan.spans
    counts = [len(span.domains) for _, span in spans]
    num_windows = [-(-span.ticks // (TICKS * phase.window)) for phase, span in spans]
    sizes, shifts, keys, stretches = [], [], [], []
    drawn_at: dict[tuple[int, int], int] = {}
    base_keys: dict[tuple[int, int], int] = {}
    for phase, span in spans:
        for g, before, count in zip(span.domains, span.draws_before, span.draws, strict=True):
            domain = plan.domains[g]
            place = (g, phase.context)
            if place not in base_keys:
                base_keys[place] = name_key(plan.seed, "epoch", str(phase.context), domain.name)
            sizes.append(domain.num_sequences(phase.context))
            shifts.append(before - drawn_at.get(place, 0))
            keys.append(base_keys[place])
            stretches.append(plan.stretch_tokens // phase.context)
            drawn_at[place] = drawn_at.get(place, 0) + count
    flat = {
        name: np.array([value for _, span in spans for value in getattr(span, name)], dtype=np.int64)
        for name in ("domains", "weights", "changes", "remainders", "draws_before", "draws")
    }
    return Tables(
        start=np.array([span.start for _, span in spans], np.int64),
        stop=np.array([span.stop for _, span in spans], np.int64),
        window=np.array([phase.window for phase, _ in spans], np.int64),
        num_windows=np.array(num_windows, np.int64),
        ramp=np.array([span.ramp for _, span in spans], np.int64),
        window_key=np.array([name_key(plan.seed, "window", str(span.start)) for _, span in spans], np.uint64),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        domain=flat["domains"].astype(np.int32),
        weight=flat["weights"],
        change=flat["changes"],
        remainder=flat["remainders"],
        before=flat["draws_before"],
        draws=flat["draws"],
        size=np.array(sizes, np.int64),
        shift=np.array(shifts, np.int64),
        epoch_key=np.array(keys, np.uint64),
        stretch=np.array(stretches, np.int64),
        sorted_from=np.full(len(sizes), -1, np.int64),
        in_order=np.empty(0, np.int64),
    )


def _sort_by_signal(plan: Plan, tables: Tables, signal_values: SignalValues | None) -> Tables:
    """Sort the draws of phases ordered by a signal: within each epoch by value, ties in shuffled order.

    A domain's draws are sorted over the whole phase, its ramp included. Sequences without a value (NaN) come last.
    """
    sorted_from, pieces, length = tables.sorted_from.copy(), [], 0
    for phase, order, entries in _entries_by_signal(plan, tables):
        domain = plan.domains[int(tables.domain[entries[0]])].name
        if signal_values is None:
            raise OrderError(f"phase {phase.name!r} is ordered by {order.signal!r}: its values are needed")
        values = np.asarray(signal_values(domain, order.signal, phase.context))
        if values.shape != (tables.size[entries[0]],):
            raise OrderError(
                f"domain {domain!r}: {values.shape} values of {order.signal!r} "
                f"for {tables.size[entries[0]]} sequences of {phase.context}"
            )
        pieces.append(_sorted_draws(tables, entries, -values if order.descending else values))
        for e in entries:
            sorted_from[e] = length
            length += int(tables.draws[e])
    return tables._replace(sorted_from=sorted_from, in_order=np.concatenate([np.empty(0, np.int64), *pieces]))


def _entries_by_signal(plan: Plan, tables: Tables) -> Iterator[tuple[PlannedPhase, BySignal, list[int]]]:
    """Yield each phase ordered by a signal with the entries, span after span, of each domain it draws from."""
    s = 0
    for phase in plan.phases:
        of_domain: dict[int, list[int]] = {}
        for _ in phase.spans:
            for e in range(int(tables.first[s]), int(tables.first[s + 1])):
                if tables.draws[e]:
                    of_domain.setdefault(int(tables.domain[e]), []).append(e)
            s += 1
        if isinstance(phase.order, BySignal):
            yield from ((phase, phase.order, entries) for entries in of_domain.values())


def _sorted_draws(tables: Tables, entries: list[int], values: npt.NDArray[Any]) -> Int64s:
    """Return the draws of a domain's entries in one phase (they follow each other) by (epoch, value, draw)."""
    first, last = entries[0], entries[-1]
    draws = np.arange(tables.before[first], tables.before[last] + tables.draws[last], dtype=np.int64)
    epochs, sequences = np.empty(draws.size, np.int64), np.empty(draws.size, np.int64)
    fill_sequences(tables, first, draws, epochs, sequences)
    return draws[np.lexsort((draws, values[sequences], epochs))]


def _check_range(what: str, numbers: Int64s, stop: int) -> None:
    if numbers.ndim != 1:
        raise OrderError(f"{what}s must be one-dimensional, not of shape {numbers.shape}")
    outside = numbers[(numbers < 0) | (numbers >= stop)]
    if outside.size:
        raise OrderError(f"{what} {outside[0]} is outside 0 to {stop - 1}" if stop else f"{what}: there are none")
