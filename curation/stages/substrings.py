"""Substring dedup as stages: units shard by shard, repeated spans over all sources, a new text layer without them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import config
from curation.compiled import GlobalStage, LocalStage
from curation.dedup.keep import preference_of_sources
from curation.dedup.substring import SubstringInput, SubstringOptions, edit, find, units
from curation.layers import RowsAhead
from curation.passes import ShardInputs, text_batches
from curation.stage import Counts, Output
from curation.stages.dedup import kept_mask
from curation.stages.inputs import GlobalInputs
from curation.stages.text import add_text, write_text

if TYPE_CHECKING:
    from curation.program import Compiler

_ROWS_AT_ONCE = 1024  # of units, 8 bytes a word


@dataclass(frozen=True)
class SubstringStageOptions:
    """Options of substring dedup, the step they belong to, and source patterns whose copies stay, best first."""

    step: str
    substrings: SubstringOptions
    keep: tuple[str, ...] = ()


def add_substrings(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> None:
    """Add the stages of a substring dedup to a program."""
    compiler.close(names)
    options = SubstringStageOptions(step.name, _options(step), tuple(str(rule.name) for rule in step.keep))
    label, copies = f"{step.name} units", f"copies.{step.name}"
    for name in names:
        compiler.stages.append(LocalStage(name, "signatures", label, hash_units, options.substrings, joins=False))
    needs = tuple(f"signatures.{name}.{label}" for name in names)
    compiler.stages.append(GlobalStage(copies, "copies", step.name, tuple(names), find_spans, options, "/", needs))
    for name in names:
        add_text(compiler, name, step, remove_spans, options, (copies,))


def _options(step: config.Dedup) -> SubstringOptions:
    unit, size = "words", 50
    if step.shingle is not None:
        unit = "words" if step.shingle.words is not None else "characters"
        size = step.shingle.words or step.shingle.characters or size
    return SubstringOptions(size, unit, step.normalize, step.min_words)


def hash_units(inputs: ShardInputs, options: SubstringOptions, output: Output) -> Counts:
    """Write the unit hashes of every row of a shard."""
    schema = units(pa.array([], pa.large_string()), options).schema
    rows = 0
    with pq.ParquetWriter(
        output.path(".parquet"), schema, compression="zstd", write_statistics=False, write_page_checksum=True
    ) as writer:
        for batch in text_batches(inputs):
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                writer.write_batch(units(batch.column("text").slice(start, _ROWS_AT_ONCE), options))
            rows += batch.num_rows
    return {"rows": rows}


def find_spans(inputs: GlobalInputs, options: SubstringStageOptions, output: Output) -> Counts:
    """Find the repeated spans of all shards; one file a shard below a folder."""
    folders = {name.split(".")[1]: path for name, path in inputs.artifacts if name.startswith("signatures.")}
    preference = preference_of_sources(options.keep, sorted(folders))
    given = [
        SubstringInput(
            shard.source,
            shard.shard,
            f"{folders[shard.source]}/{task}.parquet",
            kept_mask(shard),
            preference[shard.source],
            shard.layers[0],
        )
        for shard, task in zip(inputs.shards, inputs.tasks)
    ]
    folder = output.path(".copies")
    folder.mkdir()
    paths = [str(folder / f"{shard.source}.{task}.parquet") for shard, task in zip(inputs.shards, inputs.tasks)]
    return dict(find(given, options.substrings, paths, inputs.memory, scratch=str(folder.parent)))


_LEDGER = ("duplicate_source", "duplicate_shard", "duplicate_row")


def remove_spans(inputs: ShardInputs, options: SubstringStageOptions, output: Output) -> Counts:
    """Write a shard's text without its repeated spans, what each row lost, and which document has the first copy."""
    found = inputs.artifact(f"copies.{options.step}") / f"all.copies/{inputs.source}.{inputs.task}.parquet"
    counts: Counter[str] = Counter()
    ahead = RowsAhead(found)

    def edited(text: pa.Array) -> tuple[pa.Array, list[pa.Array]]:
        spans = ahead.take(len(text))
        here = text.is_valid()
        made = edit(text, pc.if_else(here, spans.column("spans"), pa.scalar(None, spans.column("spans").type)),
                    options.substrings)  # fmt: skip
        lost = made.column("characters_removed")
        counts["characters_removed"] += int(pc.sum(lost).as_py() or 0)
        counts["documents_cut"] += int(pc.sum(pc.greater(lost, 0)).as_py() or 0)
        whose = [pc.if_else(here, spans.column(name), pa.scalar(None, spans.column(name).type)) for name in _LEDGER]
        return made.column("text"), [pc.if_else(here, lost, pa.scalar(None, lost.type)), *whose]

    columns = {"characters_removed": pa.int64(), "duplicate_source": pa.string()}
    columns |= {"duplicate_shard": pa.string(), "duplicate_row": pa.int64()}
    return write_text(inputs, options.step, edited, output, columns) | counts
