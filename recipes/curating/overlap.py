"""What `gristmill overlap` answers: sources and indexes by name, the stages that compare them, the table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.compiled import GlobalStage, LocalStage
from curation.config import Dedup
from curation.dedup.index import Version
from curation.dedup.minhash import Options
from curation.dedup.overlap import CompareOptions
from curation.fields import did_you_mean
from curation.stages.dedup import SignatureOptions, make_signatures, match_options
from curation.stages.overlap import TABLE, OverlapOptions, make_overlap
from recipes.curating.curate import ALL, Plan, plan_curation, plan_stages, read_sources
from recipes.curating.indexes import chain_of, index_folders
from recipes.errors import RunError
from recipes.show import refuse_missing

if TYPE_CHECKING:
    from recipes.run import Run

_LABEL = "overlap signatures"


@dataclass(frozen=True)
class Asked:
    """What to compare, and how: `curated` documents that the run keeps, or all that are read."""

    names: tuple[str, ...] = ()
    similarity: float = 0.8
    examples: int = 2
    curated: bool = False


def overlap(run: Run, asked: Asked) -> dict[str, Any]:
    """The table of overlap between sources and index versions, made where it is missing.

    Raises:
        RunError: for a name that is neither, an index of another config, or a source that cannot be read.
    """
    sources, labels = resolve_names(run, asked.names)
    compare = _options(run, [chain_of(run.store, label)[-1] for label in labels], asked)
    plan = _documents(run, sources, asked)
    stages: list[LocalStage | GlobalStage] = []
    needs = [f"index.{label}" for label in labels]
    if compare.exact_column == "exact":
        made = SignatureOptions(compare.signatures)
        stages += [LocalStage(name, "signatures", _LABEL, make_signatures, made, joins=False) for name in sources]
        needs += [f"signatures.{name}.{_LABEL}" for name in sources]
    options = OverlapOptions((*sources, *labels), compare)
    stages.append(GlobalStage("overlap", "overlap", "all", sources, make_overlap, options, "/", tuple(needs)))
    planned = plan_stages(plan, stages)
    run.make(planned)
    found: dict[str, Any] = planned[-1].read_json(ALL, TABLE)
    return {"documents": "kept" if asked.curated else "read", **found}


def resolve_names(run: Run, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sources and index versions that some names mean; without one, all sources of text and indexes of the recipe.

    Raises:
        RunError: for a name that is neither a source of text, nor a pattern of them, nor an index's version.
    """
    known = sorted(run.recipe.text_sources())
    if not names:
        steps = [step for step in run.recipe.steps if isinstance(step, Dedup) and step.index is not None]
        labels = {label for step in steps if step.index is not None for label in step.index.against}
        return tuple(known), tuple(sorted(labels))
    sources: set[str] = set()
    labels = set()
    for name in names:
        matching = [source for source in known if fnmatchcase(source, name)]
        if "@" in name:
            chain_of(run.store, name)
            labels.add(name)
        elif matching:
            sources.update(matching)
        elif any(fnmatchcase(source, name) for source in run.recipe.token_sources()):
            raise RunError(f"source {name!r} is ready tokens, which have no text to compare; name sources of text")
        else:
            raise RunError(f"{name!r} is no source of {run.recipe.path}{did_you_mean(name, _all_names(run, known))}")
    return tuple(sorted(sources)), tuple(sorted(labels))


def _all_names(run: Run, sources: list[str]) -> Iterator[str]:
    from curation.dedup.index import names_in

    yield from sources
    for folder in index_folders(run.store):
        for name, numbers in names_in(folder).items():
            yield f"{name}@{numbers[-1]}"


def _options(run: Run, indexes: list[Version], asked: Asked) -> CompareOptions:
    """Signatures as the indexes have them; without one, as the recipe's first MinHash step, else 5 words and 14 x 8."""
    if indexes:
        config = dict(indexes[0].manifest["config"])
        if config.pop("compares") == "raw text":
            return CompareOptions(Options(shingle=1, bands=0, rows=1), "content_id", asked.similarity, asked.examples)
        signatures = Options(**{name: config[name] for name in Options.__dataclass_fields__})
        return CompareOptions(signatures, "exact", asked.similarity, asked.examples)
    steps = [step for step in run.recipe.steps if isinstance(step, Dedup) and step.preset == "minhash"]
    signatures = match_options(steps[0]).signatures if steps else Options()
    return CompareOptions(signatures, "exact", asked.similarity, asked.examples)


def _documents(run: Run, sources: tuple[str, ...], asked: Asked) -> Plan:
    if not asked.curated:
        return read_sources(run, sources)
    plan = plan_curation(run)
    refuse_missing(run, plan.stages, "overlap --curated")
    plan.sources = {name: state for name, state in plan.sources.items() if name in sources}
    return plan


# ---------------------------------------------------------------- the table for people


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each ordered pair that shares a document: counts, and shares of the first one's documents and text."""
    rows = []
    for cell in found["overlap"]:
        told = found["collections"][cell["of"]]
        both = cell["exact"] + cell["near"]
        if both:
            share = both / told["documents"]
            text = cell["characters"] / told["characters"] if told["characters"] else None
            shares = {"share_of_documents": round(share, 6), "share_of_text": text and round(text, 6)}
            rows.append({**cell, "documents": told["documents"], **shares})
    return rows


def write_csv(found: dict[str, Any], path: Path) -> None:
    """Write the rows of `rows_of` as CSV."""
    columns = ["of", "in", "documents", "exact", "near", "share_of_documents", "share_of_text", "characters"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows_of(found))
