"""Writes docs/cli.md: every verb with its help, as the command prints it. A test fails when the page is stale."""

from __future__ import annotations

from pathlib import Path

import click

from recipes.cli.main import VERBS, gristmill

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

_HEAD = """# The command line

`gristmill VERB RECIPE [flags]`. This page is written by `python -m recipes.cli.document`.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed; the message says what, where, and what to do |
| 2 | mistakes in the recipe or on the command line; nothing was run |
| 3 | the recipe asks for what is not there yet |
| 10 | training was asked to stop (SIGTERM, Ctrl-C), saved, and wants to be started again |
| 20 | training stalled: no train step for `execution.training.stall` |
| 21 | a training process was lost, or did not come |
| 22 | training diverged: loss or gradient is no number; starting again alone will not help |
| 23 | no space left |
| 24 | a spike of the loss, where the recipe asks to go back, more often than a command goes back |
| 25 | nothing was trained: processes differ (versions, text, specification), or cannot read or write what they need |
| 130 | interrupted (Ctrl-C) outside of training; the same command continues |
"""


def cli_page() -> str:
    """The page as it should stand."""
    parts = [_HEAD]
    above = click.Context(gristmill, info_name="gristmill", **gristmill.context_settings)
    for verb, (_, line) in VERBS.items():
        command = gristmill.get_command(above, verb)
        assert command is not None
        context = click.Context(command, above, verb, max_content_width=110, terminal_width=110)
        parts.append(f"## {verb}\n\n{line}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
