"""What a person sees of a training while it runs: the preflight's table, a line of progress, losses by domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recipes.progress import compact
from training.preflight_report import table

# Of more domains the screen shows those with the greatest loss; held_out.csv has them all.
MOST_DOMAINS = 12


class Watching:
    """Turns what the processes write into lines and a bar.

    Args:
        log: the run's folder of this training.
        advance: sets the bar: `advance(completed=…, note=…)`.
        say: writes a line above it.
    """

    def __init__(self, log: Path, advance: Callable[..., None], say: Callable[[str], None]) -> None:
        self._log, self._advance = log, advance
        self._write = say
        self._begun = False
        self._shown_preflight, self._shown_held_out, self._shown_slow = False, -1, ""

    def say(self, text: str) -> None:
        """One line, indented as stages are."""
        self._write(f"  {text}")

    def see(self, status: Mapping[str, Any]) -> None:
        """Take a new status.json in."""
        self.show_preflight()
        self._show_begin(status)
        self._advance(completed=status.get("step", 0), note=progress_note(status))
        held_out = status.get("held_out")
        if held_out and held_out["step"] != self._shown_held_out:
            self._shown_held_out = held_out["step"]
            self.say(held_out_line(held_out))
        slow = str(status.get("slow") or "")
        if slow and slow != self._shown_slow:
            self.say(slow)
        self._shown_slow = slow

    def _show_begin(self, status: Mapping[str, Any]) -> None:
        """Once: the checkpoint that it continues from, and why newer ones are passed over."""
        if self._begun or "resumed" not in status:
            return
        self._begun = True
        for reason in status.get("passed_over", ()):
            self.say(reason)
        if status["resumed"]:
            self.say(f"continues from {status['resumed']}")

    def show_preflight(self) -> None:
        """The preflight's table, once it is there."""
        if self._shown_preflight:
            return
        try:
            found = json.loads((self._log / "preflight.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return
        self._shown_preflight = True
        for line in table(found).splitlines():
            self.say(line)


def progress_note(status: Mapping[str, Any]) -> str:
    """Tokens, tokens a second, MFU, loss, held-out loss, gradient norm and learning rate, as far as they are known."""
    parts = [f"{compact(status['tokens'])} tokens"] if status.get("tokens") else []
    if status.get("tokens_per_s"):
        parts.append(f"{status['tokens_per_s']:,.0f} tokens/s")
    if status.get("mfu"):
        parts.append(f"MFU {status['mfu']:.0%}")  # the convention stands in training/peak.py
    if isinstance(status.get("loss"), float):
        parts.append(f"loss {status['loss']:.3f}")
    held_out = status.get("held_out") or {}
    if isinstance(held_out.get("loss"), float):
        bits = held_out.get("bits_per_byte")
        then = f" at step {held_out['step']:,}" if held_out.get("step") not in (None, status.get("step")) else ""
        parts.append(f"held out{then} {held_out['loss']:.3f}" + (f" ({bits:.3f} bpb)" if bits else ""))
    if isinstance(status.get("gradient_norm"), float):
        parts.append(f"norm {status['gradient_norm']:.2f}")
    if status.get("learning_rate"):
        parts.append(f"lr {status['learning_rate']:.2e}")
    return "  ".join(parts)


def held_out_line(held_out: Mapping[str, Any]) -> str:
    """Losses by domain in nats a token, with bits per byte where they are known; the training loss beside them."""
    measured = [(name, loss, bits) for name, (loss, bits) in held_out["domains"].items() if loss is not None]
    shown = sorted(measured, key=lambda one: (-one[1], one[0]))[:MOST_DOMAINS]
    parts = [f"{name} {loss:.3f}" + (f" ({bits:.3f} bpb)" if bits else "") for name, loss, bits in shown]
    more = f" and {len(measured) - len(shown)} more" if len(measured) > len(shown) else ""
    return f"train step {held_out['step']}, held out: {', '.join(parts)}{more}"
