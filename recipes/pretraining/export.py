"""Export and evaluation as parts of a run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.artifacts import key_of, to_json, write_atomically
from recipes.curating.curate import ALL
from recipes.errors import RunError
from recipes.pipeline import held

if TYPE_CHECKING:
    from recipes.run import Run

# Raised when the same checkpoint makes another export. 2: all files of the tokenizer.
VERSION = 2


def export(run: Run, checkpoint: Path) -> Path:
    """Export the trained model to Hugging Face, with a check of its logits; a whole export is reused."""
    wanted: Any = run.recipe.export
    checkpoints = _checkpoints(run, checkpoint)
    names, longer = [path.name for path in checkpoints], longer_context(run)
    key = key_of(VERSION, run.training.key, names, wanted.precision, run.tokens.tokenizer_key, *filter(None, [longer]))
    folder = run.store.workdir / f"export-{key}"
    run.use(folder.name, "export", "Hugging Face export", {})
    with held(run.narrator, folder, "Hugging Face export"):
        return _export(run, checkpoints, folder)


def _export(run: Run, checkpoints: Sequence[Path], folder: Path) -> Path:
    wanted: Any = run.recipe.export
    record = folder / "export.json"
    if record.exists():
        run.narrator.reused("Hugging Face export", wanted.precision)
        return folder / "huggingface"
    from training.export import ExportOptions, export_huggingface

    started = time.monotonic()
    temporary = folder / "huggingface.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    options = ExportOptions(
        precision=wanted.precision,
        tokenizer=run.tokens.tokenizer,
        name=run.name,
        sheet=data_sheet(run),
        prompt=_prompt(run),
        context=longer_context(run),
    )
    check = export_huggingface(checkpoints, temporary, options)
    shutil.rmtree(folder / "huggingface", ignore_errors=True)
    temporary.rename(folder / "huggingface")
    write_atomically(record, to_json(asdict(check)))
    run.narrator.made("Hugging Face export", f"logits differ {check.logit_difference:.1e}", time.monotonic() - started)
    return folder / "huggingface"


def _checkpoints(run: Run, last: Path) -> list[Path]:
    """The checkpoints that are exported: the last, or those whose average is wanted, oldest first."""
    recipe: Any = run.recipe
    average = recipe.export.average
    if average is None:
        return [last]
    from recipes.pretraining.train import own_checkpoints, step_of, steps_of

    every = steps_of(recipe, average.every)
    found = spread(own_checkpoints(run.training), step_of, step_of(last), average.last, every)
    if len(found) < average.last:
        raise RunError(
            f"export.average: {average.last} checkpoints, {every} train steps apart, are wanted, and "
            f"{len(found)} are there ({', '.join(path.name for path in found)}); save and keep more of them "
            "(checkpoints.every, checkpoints.keep), or average fewer"
        )
    return found


def spread(
    checkpoints: Sequence[Path], step_of: Callable[[Path], int], last: int, number: int, every: int
) -> list[Path]:
    """The checkpoint of step `last` and newest ones before it, at least `every` train steps apart; oldest first."""
    chosen: list[Path] = []
    for path in reversed(checkpoints):
        if len(chosen) < number and step_of(path) <= (step_of(chosen[-1]) - every if chosen else last):
            chosen.append(path)
    return chosen[::-1]


def longer_context(run: Run) -> int:
    """The longest context of a phase, where it is longer than the model's own; else 0."""
    longest = max(phase.context for phase in run.training.plan.phases)
    return longest if longest > run.training.spec.shape.context else 0


def _prompt(run: Run) -> str:
    """The beginning of some held-out text, for a look at what the model writes."""
    languages = {source.language[0] for source in run.recipe.sources.values()}
    return "Die " if "de" in languages else "The "


def data_sheet(run: Run) -> dict[str, Any]:
    """What the model was trained on, for its card: each domain with its share, tokens, epochs and licence."""
    from mixing.plan_table import ALL as WHOLE
    from mixing.plan_table import table
    from recipes.pretraining.train import read_plan

    plan = read_plan(run.plan)
    whole = WHOLE if len(plan.phases) > 1 else plan.phases[0].name
    rows = [row for row in table(plan) if row.phase == whole and row.domain != WHOLE]
    licences = {name: source.licence for name, source in run.recipe.sources.items()}
    return {
        "domains": [
            {
                "domain": row.domain,
                "share": round(row.share, 6),
                "tokens": row.num_tokens,
                "epochs": round(float(row.epochs), 4),
                "licence": licences.get(row.domain.split("/")[0], "unknown"),
            }
            for row in rows
        ],
        "tokens": plan.num_tokens,
        "plan": plan.id,
        "domains_of": run.tokens.domains.file(ALL, ".domains.json").rsplit("/", 2)[-2],
    }
