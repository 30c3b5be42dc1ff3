"""Limits of what a step may drop: above them a run stops, with the numbers and the switch that allows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recipes.errors import RunError


class TooMuchDropped(RunError):  # noqa: N818
    """A step drops more of a source than its `max_drop` allows, or hardly a row of it can be read."""


MOST_UNREADABLE = 0.95  # of a source's rows; as much as a step may drop before the run asks


def read_check(source: str, broken: float) -> Callable[[Mapping[str, Any]], None]:
    """Stops a run when (nearly) all rows of a source cannot be read, unless its `broken` share allows as much."""

    def check(counts: Mapping[str, Any]) -> None:
        by_reason = {k.removeprefix("drop.read."): n for k, n in counts.items() if k.startswith("drop.read.")}
        unread, rows, most = sum(by_reason.values()), counts.get("rows", 0), max(MOST_UNREADABLE, broken)
        if unread <= most * rows:
            return
        missing = by_reason.get("missing_text", 0)
        fix = f"Name the column that holds the text with sources.{source}.fields.text" if missing else "Mend the files"
        raise TooMuchDropped(
            f"{source}: {unread:,} of {rows:,} rows cannot be read ({_most_first(by_reason)}), more than {most:.0%}. "
            f"{fix}; `gristmill validate RECIPE --data` lists the columns. "
            f"To go on without them: --set sources.{source}.broken=1"
        )

    return check


def drop_check(source: str, steps: Sequence[tuple[str, float]]) -> Callable[[Mapping[str, Any]], None] | None:
    """Stops a run when a step dropped more of a source than it may."""
    if not steps:
        return None

    def check(counts: Mapping[str, Any]) -> None:
        for step, max_drop in steps:
            by_reason = {k.split(".", 2)[2]: v for k, v in counts.items() if k.startswith(f"drop.{step}.")}
            own = f"sources.{source}.steps.{step}"
            _refuse_too_much(source, step, max_drop, counts.get(f"reached.{step}", 0), by_reason, own)

    return check


def duplicates_check(
    sources: Sequence[str], steps: Sequence[tuple[str, float]]
) -> Callable[[Mapping[str, Any]], None] | None:
    """Stops a run when a dedup step dropped more of one source than it may, or formed a cluster above its size."""
    if not steps:
        return None

    def check(counts: Mapping[str, Any]) -> None:
        for step, max_drop in steps:
            for source in sources:
                duplicates = counts.get(f"of.{source}.duplicates", 0)
                reached = counts.get(f"of.{source}.documents", 0)
                _refuse_too_much(source, step, max_drop, reached, {"duplicate": duplicates}, f"steps.{step}")
            if counts.get("alarms"):
                raise TooMuchDropped(f"step {step}: {counts['alarms']}; raise max_cluster, or compare more strictly")

    return check


def _refuse_too_much(
    source: str, step: str, max_drop: float, reached: int, by_reason: Mapping[str, int], key: str
) -> None:
    dropped = sum(by_reason.values())
    if not reached or dropped <= max_drop * reached:
        return
    raise TooMuchDropped(
        f"{source}: step {step} drops {dropped} of {reached} rows ({_most_first(by_reason)}), "
        f"and max_drop is {max_drop:.0%}. "
        f"Look at them with `gristmill inspect RECIPE {step} --source {source}`, or allow it with "
        f"--set {key}.max_drop=1"
    )


def _most_first(by_reason: Mapping[str, int]) -> str:
    """The four reasons with most rows."""
    return ", ".join(f"{r} {n}" for r, n in sorted(by_reason.items(), key=lambda x: (-x[1], x[0]))[:4])
