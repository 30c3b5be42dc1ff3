"""What the token part of a run does to shards: train a tokenizer, write token shards, select domains.

Functions (inputs, options, output) of the same kind as `curation.passes`; keys and paths are decided by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.layers import layer_columns
from curation.passes import ShardInputs, kept_text
from curation.stage import Counts, Output
from mixing.shards import write_token_shard
from mixing.tokenizer import load_tokenizer


@dataclass(frozen=True)
class TokenOptions:
    """What a token shard depends on beside the kept rows.

    Attributes:
        bos: a begin token before each document.
        eos: an end token after each.
        licence: of the source, where a row brings none.
        split: layer column whose value chooses the part of the source a document belongs to, or None.
        tokenizer: path of a ready tokenizer; None where the run trains one (artifact `tokenizer`).
    """

    bos: bool
    eos: bool
    licence: str
    split: str | None = None
    tokenizer: str | None = field(default=None, metadata={"content": True})


PART = "part"  # column of the documents that names the part of the source


def make_tokens(inputs: ShardInputs, options: TokenOptions, output: Output) -> Counts:
    """Write the tokens of a shard's kept rows, and a row for each document."""
    tokenizer = load_tokenizer(options.tokenizer or inputs.artifact("tokenizer"))
    counts = write_token_shard(
        documents(inputs, options),
        tokenizer,
        output.path(".tokens"),
        output.path(".documents.parquet"),
        bos=options.bos,
        eos=options.eos,
    )
    named = {"num_documents": "documents", "num_tokens": "tokens", "num_characters": "characters", "size_bytes": "bytes"}
    return {named[name]: number for name, number in counts.items()}


def documents(inputs: ShardInputs, options: TokenOptions) -> Iterator[pa.RecordBatch]:
    """The kept rows of a shard as documents: row, text, content id, cluster, licence, part."""
    clusters = [name for path in inputs.layers for name in layer_columns(path) if name.startswith("cluster@")]
    columns = ["content_id", "licence", *clusters, *([options.split] if options.split else [])]
    for batch in kept_text(inputs, columns):
        kept = batch.filter(batch.column("kept"))
        if not kept.num_rows:
            continue
        made: dict[str, Any] = {name: kept.column(name) for name in ("row", "text", "content_id")}
        made["licence"] = pc.coalesce(kept.column("licence"), pa.scalar(options.licence, pa.large_string()))
        if clusters:
            # The last dedup step that put the row in a cluster says which.
            made["cluster"] = pc.coalesce(*[kept.column(name) for name in reversed(clusters)])
        if options.split:
            made[PART] = pc.fill_null(kept.column(options.split).cast(pa.string()), "none")
        yield pa.RecordBatch.from_arrays(list(made.values()), names=list(made))


def sample_of(texts: Iterator[pa.RecordBatch]) -> Iterator[pa.Array]:
    """Texts of row batches without nulls, for training on."""
    for batch in texts:
        text = batch.column("text").drop_null()
        if len(text):
            yield text
