"""What an ablation makes small: losses against those at natural weights, as one number without unit.

The objective is sum a_i * log(loss_i / loss_i at natural weights): negative is better than natural, and -0.01 is about
one per cent less loss (`relative_change` is exact). A quotient, because nats a token and bits a byte do not compare
across languages. Shapes as in `linear`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixing.patterns import covers, winners

Wanted = Mapping[str, float] | str | tuple[str, ...]


def relative_change(objective: float) -> float:
    """By which share losses are more (less, if negative) than at natural weights, where the objective says so.

    Every per cent that is shown is this one: for large values the logarithm itself would read as more than all loss.
    """
    return math.expm1(objective)


def percent(objective: float) -> str:
    """The change as sentences write it: `-2.31%`."""
    return f"{relative_change(objective):+.2%}"


class ObjectiveError(ValueError):
    """An objective on domains that nothing measures."""


@dataclass(frozen=True)
class Objective:
    """A weighted sum (`shares`), the largest (`worst`) or the equal sum of a front's axes (`pareto`).

    Attributes:
        kind: shares, worst or pareto.
        targets: measured domains.
        shares_T: share of each in the sum, sum 1; for `worst`, the domains that count have a positive one.
        reference_T: losses at natural weights, nats.
    """

    kind: str
    targets: tuple[str, ...]
    shares: np.ndarray
    reference: np.ndarray

    def axes(self, losses: np.ndarray) -> np.ndarray:
        """log(loss / loss at natural weights) of every domain, (..., T)."""
        logs: np.ndarray = np.log(np.maximum(losses, 1e-9) / self.reference)
        return logs

    def of(self, losses: np.ndarray) -> np.ndarray:
        """The objective of losses (..., T) -> (...)."""
        counted = self.shares > 0
        axes = self.axes(losses)[..., counted]
        value: np.ndarray = axes.max(-1) if self.kind == "worst" else axes @ self.shares[counted]
        return value

    def written(self) -> dict[str, object]:
        """As the analysis shows it."""
        counted = {name: float(s) for name, s in zip(self.targets, self.shares, strict=True) if s > 0}
        return {"kind": self.kind, "shares": counted}


def make_objective(
    wanted: Wanted, targets: Sequence[str], reference_T: np.ndarray, natural: Mapping[str, float]
) -> Objective:
    """Resolve an objective over the measured domains.

    Args:
        wanted: shares of names or patterns ({} for every domain alike), `worst`, or the patterns of a front. What a
            pattern covers shares in natural proportion, evenly where a domain is only measured and never trained on.
        targets: domains with a loss in every run that counts.
        reference_T: their losses at natural weights.
        natural: natural weights of the trained domains.

    Raises:
        ObjectiveError: for a pattern that names no measured domain.
    """
    even_T = np.full(len(targets), 1 / max(1, len(targets)))
    if wanted == "worst":
        return Objective("worst", tuple(targets), even_T, reference_T)
    if isinstance(wanted, str):
        raise ObjectiveError(f"objective {wanted!r} is not `worst`; write {{PATTERN: share}} for a weighted sum")
    patterns = list(wanted)
    _check(patterns, targets)
    if isinstance(wanted, tuple):
        counted_T = np.array([any(covers(pattern, target) for pattern in patterns) for target in targets])
        return Objective("pareto", tuple(targets), counted_T / counted_T.sum(), reference_T)
    if not wanted:
        return Objective("shares", tuple(targets), even_T, reference_T)
    shares_T = np.zeros(len(targets))
    chosen = winners(patterns, list(targets))
    for pattern, share in wanted.items():
        won = [place for place, target in enumerate(targets) if chosen[target] == pattern]
        supply = np.array([natural.get(targets[place], 0.0) for place in won])
        parts = supply / supply.sum() if len(won) and (supply > 0).all() else np.full(len(won), 1 / max(1, len(won)))
        shares_T[won] = share * parts
    if not shares_T.sum() > 0:
        raise ObjectiveError("the objective gives every measured domain a share of 0")
    return Objective("shares", tuple(targets), shares_T / shares_T.sum(), reference_T)


def _check(patterns: Sequence[str], targets: Sequence[str]) -> None:
    empty = [pattern for pattern in patterns if not any(covers(pattern, target) for target in targets)]
    if empty:
        raise ObjectiveError(
            f"objective: {', '.join(map(repr, empty))} names no domain whose held-out loss was measured in the runs; "
            f"measured: {', '.join(targets) or 'none'}. Give it held-out text (domains.held_out) or take it out"
        )
