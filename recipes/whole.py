"""The whole run in order, and its summary."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.errors import NotYet, RunError
from recipes.pretraining.several import prepare_process
from recipes.run import Stopped, elapsed_since

if TYPE_CHECKING:
    from recipes.cli.options import Flags
    from recipes.run import Run


def run_all(run: Run, until: str | None = None, as_json: bool = False) -> None:
    """Do every part the recipe asks for, stopping after the part or step `until`."""
    refuse_later(run)
    prepare_process(run, "run")
    check_until(run, until)
    refuse_starts(run, until or "report")
    started = time.monotonic()
    run.until = None if until in parts_of(run) else until
    done = False
    try:
        for part in parts_of(run):
            if part == "report":
                run.write_summary()
            make_part(run, part)
            if part == until or (part == "curate" and run.until is not None):
                break
        done = run.until is None
    except Stopped as stopped:
        run.narrator.say(f"stopped after {stopped}, as asked")
    run.write_summary(done, whole=done and until is None)
    if done and "export" in parts_of(run) and until is None:
        run.narrator.say(f"\n  the model, for transformers: {run.exported}")
    if done and "finetune" in parts_of(run) and until is None:
        run.narrator.say(f"  the tuned model, for transformers: {run.finetuned}")
    run.narrator.say(f"\ndone in {elapsed_since(started)}")
    if as_json:
        _print_result(run)


def _print_result(run: Run) -> None:
    """What a run used, as JSON."""
    from recipes.cli.options import print_json

    print_json({"run": run.name, "folder": run.folder, "stages": list(run.used.values())})


def run_parts(flags: Flags, part: str) -> None:
    """Make one part of a recipe with all that it needs."""
    with flags.open_run() as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, part)
            return
        refuse_later(run)
        prepare_process(run, part)
        check_until(run, flags.until)
        parts = parts_of(run)
        refuse_unasked(run, part)
        refuse_starts(run, part)
        if flags.until is not None:  # a step is a part of curation
            wanted = flags.until if flags.until in parts else "curate"
            part = min(part, wanted, key=parts.index)
        run.until = None if flags.until in parts else flags.until
        done = False
        try:
            made = make_part(run, part)
            done = run.until is None
        except Stopped as stopped:
            run.narrator.say(f"stopped after {stopped}, as asked")
            made = None
        finally:
            if run.used and part != "report" and run.remembers:
                run.write_summary(done)
        if not run.remembers:  # one of torchrun's processes, not the first
            return
        if flags.as_json:
            _print_result(run)
        elif isinstance(made, Path):
            click.echo(made)


# What each part begins with, beside curated text.
_SECTIONS = {
    "tokenize": "tokenizer",
    "ablate": "tokenizer, ablation and a phase with `weights: ablation` (or no schedule)",
    "scale": "tokenizer, scaling",
    "plan": "tokenizer, schedule, model",
    "train": "tokenizer, schedule, model",
    "evaluate": "tokenizer, schedule, model",
    "export": "tokenizer, schedule, model, export",
    "finetune": "finetuning",
}


def refuse_unasked(run: Run, part: str) -> None:
    """Refuse a part that the recipe does not ask for.

    Raises:
        RunError: naming the recipe, the part and the sections that ask for it.
    """
    if part in parts_of(run):
        return
    needs = f"`{part}` needs {_SECTIONS[part]}" if part in _SECTIONS else f"it only has {', '.join(parts_of(run))}"
    raise RunError(f"{run.recipe.path}: it does not ask for {part}: {needs} (docs/recipe.md)")


def parts_of(run: Run) -> list[str]:
    """Parts that the recipe asks for, in order."""
    recipe = run.recipe
    if not recipe.sources:  # other weights are tuned
        return ["finetune"]
    parts = ["curate"]
    if recipe.tokenizer is not None:
        parts.append("tokenize")
    # An ablation without a phase that asks for its weights is left alone, unless nothing else is to be trained.
    wanted = not recipe.schedule or recipe.open_phases()
    if recipe.ablation is not None and recipe.tokenizer is not None and wanted:
        parts.append("ablate")
    if recipe.scaling is not None and recipe.tokenizer is not None:
        parts.append("scale")
    if recipe.schedule and recipe.model is not None and recipe.tokenizer is not None:
        parts += ["plan", "train", "evaluate"]
        if recipe.export is not None:
            parts.append("export")
    if recipe.finetuning is not None:
        parts.append("finetune")
    return [*parts, "report"]


def parts_up_to(run: Run, last: str) -> list[str]:
    """Parts that the recipe asks for, up to one of them or to all that a whole run makes; none up to a step."""
    parts = parts_of(run)
    if last in parts:
        return parts[: parts.index(last) + 1]
    return parts if last == "report" else []


def make_part(run: Run, part: str) -> Any:
    """Make one part with all it needs."""
    if part == "evaluate":
        from recipes.pretraining.evaluate import evaluate

        return evaluate(run)
    if part == "report":
        from recipes.report import write_report

        return write_report(run)
    made = {
        "curate": "curation",
        "tokenize": "tokens",
        "ablate": "ablation",
        "scale": "scaling",
        "plan": "plan",
        "train": "trained",
        "export": "exported",
        "finetune": "finetuned",
    }
    return getattr(run, made[part])


def refuse_later(run: Run) -> None:
    """Stop where the recipe asks for what is not there yet, with the line of each."""
    from recipes.schema.validation import not_yet

    later = not_yet(run.recipe)
    if later:
        raise NotYet("\n".join(str(message) for message in later))


def stops_of(run: Run) -> list[str]:
    """What `--until` may name: the parts of a run and the recipe's steps."""
    return [*parts_of(run), *(step.name for step in run.recipe.steps)]


def refuse_starts(run: Run, last: str) -> None:
    """Refuse models to start from, examples, templates and kernels that are missing or do not fit: now, not after days.

    Args:
        run: of the recipe.
        last: the part up to which it goes, or a step.
    """
    from recipes.finetuning.start import refuse_missing_parts
    from recipes.pretraining.attention import refuse_unserved_attention
    from recipes.pretraining.start_weights import refuse_other_start

    needed = parts_up_to(run, last)
    refuse_unserved_attention(run.recipe, needed)
    if "train" in needed:
        refuse_other_start(run.recipe)
    if "finetune" in needed:
        refuse_missing_parts(run.recipe)


def refuse_until(run: Run, verb: str, until: str) -> None:
    """Refuse `--until` for a verb that goes to its own end, before it does anything."""
    raise RunError(
        f"--until {until}: {verb} does not stop on its way; `gristmill run {run.recipe.called} --until STOP` does, "
        f"where STOP is one of {', '.join(stops_of(run))}"
    )


def check_until(run: Run, until: str | None) -> None:
    """Refuse a part or step that the recipe does not have."""
    known = stops_of(run)
    if until is not None and until not in known:
        raise RunError(f"--until {until}: the recipe has no such part or step; there are {', '.join(known)}")


def show_plan(run: Run, as_json: bool = False, last: str = "curate") -> None:
    """What would be made and what would be reused up to the part `last`, as far as it is known before anything runs."""
    from recipes.cli.forecast import later_costs
    from recipes.show import compiled_stages, later_parts

    rows, later = compiled_stages(run), later_parts(run, last)
    if as_json:
        from recipes.cli.options import print_json

        print_json({"stages": rows, "parts": later})
        return
    for row in rows:
        state = "reused" if not row["missing"] else f"{row['missing']} of {row['tasks']} to make"
        click.echo(f"{row['stage']:<44} {state}")
    for part in later:
        click.echo(f"{part['what']:<70} {part['state']}")
    for line in later_costs(run, last):
        click.echo(line)
