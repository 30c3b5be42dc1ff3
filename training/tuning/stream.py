"""The text of a fine-tuning: packed sequences of all sets, in the global order of a plan over epochs.

Each set is a domain. The order is `mixing.order`'s: in each epoch a set's sequences stand in a new keyed permutation,
and sets are mixed by what they have; nothing is drawn by a loader that could forget where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from mixing.order import open_order
from mixing.plan_record import DomainSupply, Plan, PlannedPhase
from mixing.schedule import Uniform
from mixing.spans import Span
from mixing.targets import DENOMINATOR, TICKS, first_remainder
from training.batches import HeldOut, TokenStream
from training.tuning.prepare import Prepared, PreparedSet

# Draws that are mixed together: a set's sequences are spread evenly over the run already.
_WINDOW = 4096


class PackedReader:
    """Sequences of packed files, memory-mapped; domains are numbered in the order of the files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._arrays = [np.load(path, mmap_mode="r") for path in paths]

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Coded ids (n, context + 1)."""
        rows = [self._arrays[d][s] for d, s in zip(domains.tolist(), sequences.tolist())]
        return np.stack(rows).astype(np.int64)


def draws_of(sets: Sequence[PreparedSet], epochs: Mapping[str, float]) -> dict[str, int]:
    """Sequences that each set gives in the whole run: its epochs by its own name, else by the pattern that fits.

    >>> one = PreparedSet("a", 9, {}, 9, 0, 0, 90, 50, 4, 0)
    >>> draws_of([one], {"*": 2.5})
    {'a': 10}
    """
    drawn = {}
    for one in sets:
        fitting = [pattern for pattern in epochs if fnmatchcase(one.name, pattern)]
        if not fitting:
            raise ValueError(f"finetuning.epochs names no set {one.name!r}; add it, or '*' for the rest")
        chosen = one.name if one.name in fitting else max(fitting, key=lambda pattern: (len(pattern), pattern))
        drawn[one.name] = round(epochs[chosen] * one.sequences)
    return drawn


def plan_of(prepared: Prepared, epochs: Mapping[str, float], seed: int) -> Plan:
    """The order of a fine-tuning: one phase that gives each set's draws exactly."""
    drawn = {name: count for name, count in draws_of(prepared.sets, epochs).items() if count}
    sets = [one for one in prepared.sets if one.name in drawn]
    length = sum(drawn.values())
    counts = [drawn[one.name] for one in sets]
    span = Span(
        start=0,
        num_positions=length,
        ticks=length * TICKS,
        ramp=0,
        domains=tuple(range(len(sets))),
        weights=tuple(count * DENOMINATOR // length for count in counts),
        changes=(0,) * len(sets),
        remainders=tuple(first_remainder(seed, one.name) for one in sets),
        draws_before=(0,) * len(sets),
        draws=tuple(counts),
    )
    supplies = tuple(
        DomainSupply(one.name, one.tokens, one.kept, sequences=((prepared.context, one.sequences),)) for one in sets
    )
    weights = {one.name: weight for one, weight in zip(sets, span.weights)}
    phase = PlannedPhase("tuning", prepared.context, 0, length, _WINDOW, Uniform(), (), weights, (span,))
    return Plan(seed, supplies, dict(epochs), (phase,))


def open_tuning(prepared: str, epochs: Mapping[str, float], seed: int) -> TokenStream:
    """Open what `training.tuning.prepare` wrote, in the order of `plan_of`."""
    folder = Path(prepared)
    found = Prepared.read(folder)
    plan = plan_of(found, epochs, seed)
    names = [supply.name for supply in plan.domains]
    reader = PackedReader([folder / f"{name}.train.npy" for name in names])
    measured = [one for one in found.sets if one.held_out_sequences]
    held_out = None
    if measured:
        held_out = HeldOut(
            domains=[one.name for one in measured],
            num_sequences=[one.held_out_sequences for one in measured],
            reader=PackedReader([folder / f"{one.name}.held_out.npy" for one in measured]),
            context=found.context,
        )
    return TokenStream(names, open_order(plan), reader, held_out)
