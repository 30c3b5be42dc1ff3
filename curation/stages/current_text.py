"""What dedup must know of texts that steps have edited: their own hash and length, beside those of the rows layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation import config
from curation.compiled import LocalStage
from curation.dedup.keep import Criterion
from curation.passes import ShardInputs, text_batches
from curation.source.records import raw_bytes
from curation.stage import Counts, Output

if TYPE_CHECKING:
    from curation.program import Compiler

LENGTH = "current_characters"
_FACTS = pa.schema([("content_id", pa.binary(16)), (LENGTH, pa.int64())])


@dataclass(frozen=True)
class FactOptions:
    """Nothing to choose: xxh3-128 of a text's bytes, and its characters."""


def add_text_facts(
    compiler: Compiler, step: config.Dedup, names: list[str], keep: tuple[Criterion, ...]
) -> tuple[list[str], bool, tuple[Criterion, ...]]:
    """Measure texts that an earlier step edited, where the step compares or prefers by what is measured of raw text.

    Returns:
        What the step needs, whether copies are told by the hash of the current text, and the criteria with the current
        length. Without an edit: nothing, False, and the criteria as they are. An index of raw text stays one: it is
        compared with what other runs published.
    """
    by_hash = step.preset == "exact" and step.normalize == "raw" and step.index is None
    by_length = any(criterion.name == "longest" for criterion in keep)
    if not any(compiler.open[name].text for name in names) or not (by_hash or by_length):
        return [], False, keep
    label = f"{step.name} texts"
    for name in names:
        compiler.stages.append(LocalStage(name, "texts", label, make_text_facts, FactOptions(), joins=False))
    current = tuple(replace(one, column=LENGTH) if one.name == "longest" else one for one in keep)
    return [f"texts.{name}.{label}" for name in names], by_hash, current


def make_text_facts(inputs: ShardInputs, options: FactOptions, output: Output) -> Counts:
    """Write the hash and the characters of every row's text, null where there is none."""
    rows = 0
    with pq.ParquetWriter(output.path(".parquet"), _FACTS, write_statistics=False, write_page_checksum=True) as writer:
        for batch in text_batches(inputs):
            text = batch.column("text")
            lengths = pc.utf8_length(text)
            writer.write_batch(pa.RecordBatch.from_arrays([_hashes(text), lengths], schema=_FACTS))
            rows += batch.num_rows
    return {"rows": rows}


def _hashes(text: pa.Array) -> pa.Array:
    """xxh3_128 of each text, as the content ids of the rows layer are; null where there is none."""
    offsets, values = raw_bytes(text)
    hashed = [xxhash.xxh3_128_digest(values[start:stop]) for start, stop in pairwise(offsets.tolist())]
    return pa.array(hashed, pa.binary(16), mask=np.asarray(text.is_null()))
