"""Errors that end a run with a message and an exit code of their own; everything else is a mistake of ours."""

from __future__ import annotations

from recipes.cli.exit_codes import FAILED, NOT_YET


class RunError(Exception):
    """What went wrong, the value, where, and the fix. `exit_code` is what the command returns."""

    exit_code = FAILED


class NotYet(RunError):  # noqa: N818  reads as a sentence
    """A recipe asks for what gristmill does not do yet, or for what another command has to make first."""

    exit_code = NOT_YET
