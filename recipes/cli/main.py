"""The command line: `gristmill VERB RECIPE`. A verb stands in a file of its own, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import click

from recipes.cli.exit_codes import FAILED, INTERRUPTED, NO_SPACE, RECIPE_ERRORS

# verb -> (module below recipes.cli, one line). The order is the order of work.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("run", "Do all that a recipe asks for and is not there yet."),
    "fetch": ("fetch", "Bring the text that a recipe names in the catalogue or by URL, once, pinned by hash."),
    "curate": ("curate", "Curate: read, measure, decide, deduplicate."),
    "tokenize": ("tokenize", "Train the tokenizer and write token shards."),
    "plan": ("plan", "Show what the schedule draws from each domain, before anything trains."),
    "forecast": ("forecast", "Estimate documents, tokens, hours and bytes from a sample, before spending them."),
    "ablate": ("ablate", "Train the proxies, fit the surrogates, choose weights."),
    "pin": ("pin", "Write the weights that an ablation chose into the recipe."),
    "weights": ("weights", "Print the weights of a phase, for other trainers too."),
    "scale": ("scale", "Train a ladder of sizes, fit scaling laws, foretell the target."),
    "train": ("train", "Train the model, continuing from the newest whole checkpoint."),
    "evaluate": ("evaluate", "Measure held-out loss per domain at the last checkpoint."),
    "generate": ("generate", "Continue a prompt with the newest checkpoint, for a look."),
    "export": ("export", "Export the trained model to Hugging Face, checking its logits."),
    "finetune": ("finetune", "Tune the model on conversations, all weights or low-rank adapters."),
    "report": ("report", "Write the HTML report of what has been done so far."),
    "validate": ("validate", "Name every mistake of a recipe at once, without touching data."),
    "show": ("show", "Show what would run, the domains, and every resolved value."),
    "status": ("status", "Show where a run stands, on one screen."),
    "why": ("why", "Tell a document's fate: which step dropped it, on which value."),
    "whatif": ("whatif", "Say what a changed threshold would keep, without running anything."),
    "inspect": ("inspect", "Show documents that a rule kept, dropped or nearly dropped."),
    "overlap": ("overlap", "Show how much sources and indexes share, with examples."),
    "index": ("index", "List indexes, find documents in one, or publish a version without some."),
    "diff": ("diff", "Compare two runs: what was newly kept and dropped, and why."),
    "trace": ("trace", "List the documents of a train step, or the train steps of a document."),
    "clean": ("clean", "List or remove artifacts that no recipe reaches."),
    "doctor": ("doctor", "Check this machine and installation."),
}


class Verbs(click.Group):
    """The verbs, imported one at a time so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs in the order of work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, or None."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"recipes.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answer a misspelt verb with the nearest one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see gristmill --help"
            ctx.fail(f"no verb {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="gristmill", message="gristmill %(version)s")
def gristmill() -> None:
    """From raw text of many sources to a trained language model, by one recipe file.

    \b
    gristmill validate recipes/quickstart.yaml      name every mistake at once
    gristmill run recipes/quickstart.yaml           do what is missing, reuse the rest
    """


def main() -> NoReturn:
    """Entry point of the `gristmill` command: run a verb and turn every error into a message and an exit code."""
    try:
        gristmill.main(standalone_mode=False)
        sys.exit(0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(RECIPE_ERRORS)
    except (KeyboardInterrupt, click.Abort):
        _say("stopped. What was finished is kept; the same command continues from there.")
        _exit_now(INTERRUPTED)
    except BrokenPipeError:
        _exit_now(0)
    except Exception as error:  # noqa: BLE001  the last edge: every error becomes a message
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Print what went wrong and return the exit code."""
    from recipes.engine import TaskFailed
    from recipes.errors import RunError
    from recipes.schema.located import RecipeErrors

    if isinstance(error, RecipeErrors):
        click.echo(str(error), err=True)
        _say(f"{len(error.errors)} mistake{'s' * (len(error.errors) > 1)} in the recipe; nothing was run")
        return RECIPE_ERRORS
    if isinstance(error, TaskFailed):
        return _explain_task(error)
    if isinstance(error, RunError):
        _say(str(error))
        for note in getattr(error, "__notes__", ()):
            _say(note)
        return error.exit_code
    if _no_space(error):
        _say(f"no space left: {error}; free some (`gristmill clean`) and run the same command again")
        return NO_SPACE
    if isinstance(error, OSError):
        _say(f"{error.strerror or error}: {error.filename or ''}")
        return FAILED
    traceback.print_exception(error)
    _say(f"{type(error).__name__}: {error}\nThis is a mistake in gristmill; what was finished is kept.")
    return FAILED


def _no_space(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# What a plan refuses says itself what to change in the recipe; where it was found helps nobody.
_OF_THE_RECIPE = {"BudgetError", "PatternError", "PlanError", "ScheduleError", "WeightError"}


def _explain_task(error: Exception) -> int:
    """A task's error: its own words where it has a type of ours, and where the whole of it is written."""
    cause = error.__cause__
    if _no_space(cause):
        _say(f"no space left: {cause}; free some (`gristmill clean`) and run the same command again")
        return NO_SPACE
    kind = type(cause).__name__
    ours = type(cause).__module__.split(".")[0] in {"curation", "mixing", "training", "recipes"}
    _say(f"{error}" if ours else f"{kind}: {error}")
    for note in getattr(error, "__notes__", ()) if kind not in _OF_THE_RECIPE else ():
        _say(note)
    return FAILED


def _say(message: str) -> None:
    click.echo(click.style("gristmill: ", bold=True) + message, err=True)


def _exit_now(code: int) -> NoReturn:
    """Leave without waiting for worker threads; children end with us."""
    sys.stdout.flush() if not sys.stdout.closed else None
    os._exit(code)


def relative(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main()
