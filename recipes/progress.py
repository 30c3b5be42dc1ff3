"""What a person sees while a run works: a line a stage, a bar while it lasts; plain lines without a terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[..., None]
_QUIET_LINE_EVERY_S = 10.0


class Narrator:
    """Tells what is made, what is reused and what it came to. With `silent` it keeps to itself (`--json`)."""

    def __init__(self, silent: bool = False, brief: bool = False) -> None:
        self.console = Console(stderr=True, quiet=silent, highlight=False)
        self.brief = brief  # only count the stages that were there already
        self.started = time.monotonic()
        self._told: set[str] = set()

    def say(self, message: str) -> None:
        """One line."""
        self.console.print(message, markup=False, soft_wrap=True)

    def say_once(self, message: str) -> None:
        """One line that is not told again."""
        if message not in self._told:
            self._told.add(message)
            self.say(message)

    def heading(self, title: str) -> None:
        """The name of a part of the run."""
        if self.brief:
            return
        self.console.print(f"\n[bold]{title}[/bold]")

    def reused(self, title: str, amount: str) -> None:
        """A stage that was there already."""
        if self.brief:
            return
        self.console.print(f"  [dim]{title:<38} {amount:<26} reused[/dim]", soft_wrap=True)

    def made(self, title: str, amount: str, elapsed_s: float, note: str = "") -> None:
        """A stage that has just been made; `note` stands behind its time."""
        self.console.print(f"  {title:<38} {amount:<26} {elapsed_s:6.1f} s{note}", soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, title: str, total: float, in_bytes: bool = False) -> Iterator[Advance]:
        """A bar for one stage. `advance(1)` moves it on; `advance(completed=…, note=…)` sets it."""
        if self.console.is_terminal and not self.console.quiet:
            with self._live_bar(title, total) as advance:
                yield advance
            return
        with self._plain_lines(title, total, in_bytes) as advance:
            yield advance

    @contextlib.contextmanager
    def _live_bar(self, title: str, total: float) -> Iterator[Advance]:
        columns = [
            TextColumn("  {task.description:<38}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(title, total=total, note="")

            def advance(step: float = 0, *, completed: float | None = None, note: str | None = None) -> None:
                fields: dict[str, Any] = {} if note is None else {"note": note}
                if completed is None:
                    progress.update(bar, advance=step, **fields)
                else:
                    progress.update(bar, completed=completed, **fields)

            yield advance

    @contextlib.contextmanager
    def _plain_lines(self, title: str, total: float, in_bytes: bool) -> Iterator[Advance]:
        done, last = 0.0, time.monotonic()

        def advance(step: float = 0, *, completed: float | None = None, note: str | None = None) -> None:
            nonlocal done, last
            done = done + step if completed is None else completed
            if time.monotonic() - last > _QUIET_LINE_EVERY_S:
                last = time.monotonic()
                how = compact_bytes if in_bytes else "{:,.10g}".format
                self.say(f"  {title:<38} {how(done)} of {how(total)} {note or ''}".rstrip())
                sys.stderr.flush()

        yield advance


def amount_of(counts: dict[str, Any]) -> str:
    """A stage's counts in a few words: the most telling ones first.

    What edits text says how the bytes of the documents still there changed; what matches all documents, how many it
    drops.
    """
    if counts.get("bytes_before"):
        return f"{compact(float(counts.get('kept', 0)))} documents, {_change(counts['bytes_before'], counts['bytes'])}"
    shown: list[str] = []
    for name, word in (("kept", "kept"), ("rows", "rows"), ("documents", "documents"), ("tokens", "tokens")):
        if name in counts and len(shown) < 2:
            shown.append(f"{compact(float(counts[name]))} {word}")
    if "padding" in counts:
        shown.append(f"{counts['padding_share']:.1%} padding")
    if "kept" not in counts and (drops := [n for name, n in counts.items() if name.startswith("drop.")]):
        shown.append(f"{compact(float(sum(drops)))} dropped")
    if counts.get("dates_unread"):
        shown.append(f"{several(counts['dates_unread'], 'unreadable date')} taken for missing")
    if counts.get("documents_unlisted"):
        shown.append(f"{compact(float(counts['documents_unlisted']))} not compared with all of their band groups")
    if counts.get("by_library"):
        because = counts.get("by_library_because", "added tokens in them, or text to normalise")
        shown.append(f"{compact(float(counts['by_library']))} documents by the tokenizers library ({because})")
    return " of ".join(shown) if "kept" in counts else ", ".join(shown)


def _change(before: int, after: int) -> str:
    """How a text grew or shrank, such as `text -1.2 %`."""
    return "unchanged" if before == after else f"text {(after - before) / before * 100:+.1f} %"


def compact(number: float) -> str:
    """A number in at most five characters: 950, 1,197, 12.3k, 4.56M, 3T. Whole numbers below 10,000 stay whole."""
    return f"{number:,.0f}" if abs(number) < 10_000 and number == int(number) else scaled(number)


def scaled(number: float) -> str:
    """Three digits and a letter: 950, 1.2k, 12.3k, 4.56M, 3T."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.4g}"


def compact_bytes(number: float) -> str:
    """A number of bytes: 950 B, 12.3 kB, 4.56 GB.

    >>> compact_bytes(4.26e9)
    '4.26 GB'
    """
    found = scaled(number).replace("B", "G")
    return f"{found[:-1]} {found[-1]}B" if found[-1].isalpha() else f"{found} B"


def folded(text: str, indent: str = "", hanging: str = "") -> list[str]:
    """A text as lines of the terminal's width (120 columns where there is none), by the cells that characters take.

    Args:
        text: without line breaks.
        indent: before the first line.
        hanging: before the others.
    """
    width = shutil.get_terminal_size((120, 24)).columns
    console = Console(width=width)
    lines = Text(text).wrap(console, max(20, width - max(len(indent), len(hanging))))
    return [f"{hanging if place else indent}{line.plain.rstrip()}" for place, line in enumerate(lines)]


def several(number: Any, thing: str) -> str:
    """1 document, 12,345 documents."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float) -> str:
    """0.4 s, 40 s, 12 min, 5.3 h, 12 days, 3.4 years."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    hours = seconds / 3600
    if hours < 1.5:
        return f"{seconds / 60:.0f} min"
    if hours < 72:
        return f"{hours:.1f} h"
    return f"{hours / 24:.0f} days" if hours < 8760 else f"{hours / 8760:.1f} years"
