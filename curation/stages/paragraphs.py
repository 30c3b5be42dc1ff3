"""Paragraph dedup as stages: hashes shard by shard, copies over all sources, then a new text layer without them."""

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
from curation.dedup.paragraph import VERSION, ParagraphInput, ParagraphOptions, find, hashes
from curation.dedup.paragraph_edit import edit
from curation.layers import RowsAhead
from curation.passes import ShardInputs, text_batches
from curation.stage import Counts, Output
from curation.stages.dedup import kept_mask
from curation.stages.inputs import GlobalInputs
from curation.stages.text import add_text, write_text

if TYPE_CHECKING:
    from curation.program import Compiler


@dataclass(frozen=True)
class ParagraphStageOptions:
    """Options of paragraph dedup, the step they belong to, and source patterns whose copies stay, best first."""

    step: str
    paragraphs: ParagraphOptions
    version: int
    keep: tuple[str, ...] = ()


def add_paragraphs(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> None:
    """Add the stages of a paragraph dedup to a program."""
    compiler.close(names)
    options = stage_options(step)
    label = f"{step.name} hashes"
    for name in names:
        compiler.stages.append(LocalStage(name, "signatures", label, hash_shard, options, joins=False))
    needs = tuple(f"signatures.{name}.{label}" for name in names)
    copies = f"copies.{step.name}"
    compiler.stages.append(GlobalStage(copies, "copies", step.name, tuple(names), find_copies, options, "/", needs))
    for name in names:
        add_text(compiler, name, step, remove_copies, options, (copies,))


def stage_options(step: config.Dedup) -> ParagraphStageOptions:
    """What a paragraph step's stages do."""
    keep = "first" if step.preset == "paragraphs_keep_first" else "none"
    group = None if step.group is None else step.group.number
    options = ParagraphOptions(keep, step.normalize, step.min_words, step.false_positives, group)
    return ParagraphStageOptions(step.name, options, VERSION, tuple(str(rule.name) for rule in step.keep))


def hash_shard(inputs: ShardInputs, options: ParagraphStageOptions, output: Output) -> Counts:
    """Write the paragraph hashes of every row of a shard."""
    path, writer, rows = output.path(".parquet"), None, 0
    for batch in text_batches(inputs):
        made = hashes(batch.column("text"), options.paragraphs)
        writer = writer or pq.ParquetWriter(path, made.schema, write_statistics=False, write_page_checksum=True)
        writer.write_batch(made)
        rows += batch.num_rows
    if writer is None:
        made = hashes(pa.array([], pa.large_string()), options.paragraphs)
        writer = pq.ParquetWriter(path, made.schema, write_statistics=False, write_page_checksum=True)
    writer.close()
    return {"rows": rows}


def find_copies(inputs: GlobalInputs, options: ParagraphStageOptions, output: Output) -> Counts:
    """Mark the paragraphs of all shards that are copies; one file a shard below a folder."""
    folders = {name.split(".")[1]: path for name, path in inputs.artifacts if name.startswith("signatures.")}
    preference = preference_of_sources(options.keep, sorted(folders))
    given = [
        ParagraphInput(
            shard.source,
            shard.shard,
            f"{folders[shard.source]}/{task}.parquet",
            kept_mask(shard),
            preference[shard.source],
        )
        for shard, task in zip(inputs.shards, inputs.tasks)
    ]
    folder = output.path(".copies")
    folder.mkdir()
    paths = [str(folder / f"{shard.source}.{task}.parquet") for shard, task in zip(inputs.shards, inputs.tasks)]
    return dict(find(given, options.paragraphs, paths, inputs.memory, scratch=str(folder.parent)))


def remove_copies(inputs: ShardInputs, options: ParagraphStageOptions, output: Output) -> Counts:
    """Write a shard's text without the paragraphs that were marked."""
    marks = inputs.artifact(f"copies.{options.step}") / f"all.copies/{inputs.source}.{inputs.task}.parquet"
    counts: Counter[str] = Counter()
    ahead = RowsAhead(marks, ["remove"])

    def edited(text: pa.Array) -> tuple[pa.Array, list[pa.Array]]:
        remove = ahead.take(len(text)).column("remove")
        made = edit(text, remove if text.null_count == 0 else _without_nulls(remove, text))
        counts["paragraphs"] += int(pc.sum(made.column("paragraphs")).as_py() or 0)
        counts["paragraphs_removed"] += int(pc.sum(made.column("removed")).as_py() or 0)
        return made.column("text"), [made.column("removed")]

    return write_text(inputs, options.step, edited, output, {"paragraphs_removed": pa.int32()}) | counts


def _without_nulls(remove: pa.Array, text: pa.Array) -> pa.Array:
    """Null marks where there is no text."""
    return pc.if_else(text.is_valid(), remove, pa.scalar(None, remove.type))
