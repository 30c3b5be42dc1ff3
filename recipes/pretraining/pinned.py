"""What a training began with: its domains and plan, kept for as long as it is under way, whatever the recipe says then.

Domains are keyed by all that made them, so text that is curated anew makes new domains beside the old ones, and an
unfinished training would begin anew on them without a word. So it is noted beside the run (`trained_on.json`) which
domains and plan a training reads and which values made them; a run that comes to other domains stops with the
difference, trace goes on reading the old ones, and `gristmill clean` leaves them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.domain_stage import Domain, read_domains
from mixing.domains import DomainTokens
from mixing.shards import ShardFiles
from recipes.curating.curate import ALL
from recipes.errors import RunError
from recipes.pretraining.training_log import PINNED, steps_logged
from recipes.progress import compact
from recipes.schema.resolved import differing, values_of

if TYPE_CHECKING:
    from recipes.pretraining.train import Training
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

LEDGER = f"{PINNED}.ledger.json"
_SECTIONS = ("sources", "steps", "domains", "tokenizer", "sequences")  # what makes domains
_TRAINED_BY = ("schedule", "training")  # what trains a model on them
_MOST = 12


@dataclass(frozen=True)
class PinnedTokens:
    """The tokens that a training began with, as `recipes.tokenizing.tokens.Tokens` has them for whoever only reads."""

    tokenizer: str
    domains_path: Path
    shards: tuple[ShardFiles, ...]


def pin(run: Run, training: Training) -> None:
    """Note what a training reads, before it trains."""
    values = run.sort_values
    run.remember(
        PINNED,
        {
            "domains": str(run.tokens.domains_path),
            "tokenizer": run.tokens.tokenizer,
            "plan": run.plan.file(ALL, ".plan.json"),
            "sorted_by": None if values is None else values.file(ALL, ".values.json"),
            "log": str(training.log),
            "num_steps": training.spec.num_steps,
            "folders": sorted(run.used),
            "values": _values(run.recipe),
            "trained_by": training_values(run.recipe),
            "prefix": training.spec.prefix,
            "finished": False,
        },
    )
    if (run.folder / "ledger.json").exists():
        shutil.copyfile(run.folder / "ledger.json", run.folder / LEDGER)


def finish(run: Run) -> None:
    """Note that the training came to its end: other text may follow."""
    run.remember(PINNED, {**run.recall(PINNED), "finished": True})


def under_way(run: Run) -> tuple[dict[str, Any], int] | None:
    """What an unfinished training of this run began with, and its train steps so far; None where there is none."""
    began = run.recall(PINNED)
    if began is None or began["finished"] or not Path(began["domains"]).exists():
        return None
    step = steps_logged(Path(began["log"]))
    return (began, step) if step else None


def refuse_other_text(run: Run) -> None:
    """Stop where an unfinished training began with other domains than the recipe now gives.

    Raises:
        RunError: with the values and the domains that differ, and both ways on.
    """
    found, now = under_way(run), run.tokens.domains_path
    if found is None or found[0]["domains"] == str(now):
        return
    began, step = found
    changed = differing(began["values"], _values(run.recipe))
    told = [f"{path}: {before or 'nothing'} -> {after or 'nothing'}" for path, (before, after) in changed.items()]
    told = told or ["no value of the recipe, but files that it reads"]
    raise RunError(
        "\n".join(
            [
                f"{run.recipe.path}: {step:,} of {began['num_steps']:,} train steps were trained on other text than "
                "the recipe now gives; nothing was trained. What changed:",
                *first_lines(told),
                "What it makes of the domains:",
                *first_lines(_domain_changes(read_domains(began["domains"]), read_domains(now))),
                "To go on with the text it began with, which is still there: put back "
                f"{'these values' if changed else 'those files'} and run the same command",
                "To train on the new text from the beginning: save the recipe under another name, or remove "
                f"{run.folder / PINNED}.json (the checkpoints so far stay)",
            ]
        )
    )


def open_pinned(run: Run) -> dict[str, Any] | None:
    """Let a run read the tokens, domains and ledger of its unfinished training, where the recipe gives others by now.

    Returns:
        What the training began with; None where the recipe still gives it, or nothing is under way.
    """
    found = under_way(run)
    if found is None:
        return None
    began = found[0]
    if not differing(began["values"], _values(run.recipe)) and str(run.tokens.domains_path) == began["domains"]:
        return None
    path = Path(began["domains"])
    indexes = [one for domain in read_domains(path) for one in (domain.training, domain.held_out) if one is not None]
    opened = [DomainTokens.open(path.parent / one) for one in indexes]
    shards = {(f.source, f.shard): f for index in opened for f in map(index.files, range(len(index.footer.shards)))}
    run.__dict__["tokens"] = PinnedTokens(began["tokenizer"], path, tuple(shards[key] for key in sorted(shards)))
    run.ledger_file = LEDGER
    return began


def _values(recipe: Recipe) -> dict[str, list[Any]]:
    """The values that make domains."""
    return {path: value for path, value in values_of(recipe).items() if path.partition(".")[0] in _SECTIONS}


def training_values(recipe: Recipe) -> dict[str, list[Any]]:
    """The values that train a model on domains."""
    return {path: value for path, value in values_of(recipe).items() if path.partition(".")[0] in _TRAINED_BY}


def _domain_changes(before: list[Domain], after: list[Domain]) -> list[str]:
    """A line for each domain whose training text has another size, or is there only before or only after."""
    old, new = ({domain.name: domain for domain in domains} for domains in (before, after))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        sizes = [
            "nothing" if one is None else f"{compact(one.num_documents)} documents, {compact(one.num_tokens)} tokens"
            for one in (old.get(name), new.get(name))
        ]
        if sizes[0] != sizes[1]:
            lines.append(f"{name}: {sizes[0]} -> {sizes[1]}")
    return lines or ["as many documents and tokens as before, but others"]


def first_lines(lines: list[str]) -> list[str]:
    """A message's lines, indented; of many the first, and how many more there are."""
    more = [f"  and {len(lines) - _MOST:,} more"] if len(lines) > _MOST else []
    return [*(f"  {line}" for line in lines[:_MOST]), *more]
