"""What the token part of a run does first: train a tokenizer and write token shards (`mixing.domain_stage` goes on).

Functions (inputs, options, output) of the same kind as `curation.passes`; keys and paths are decided by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.layers import kept_rows, layer_columns, mask_columns, read_layers
from curation.passes import ShardInputs, kept_text
from curation.stage import Counts, Output
from curation.stages.inputs import GlobalInputs
from mixing.document_ids import SUFFIX, write_document_ids
from mixing.patterns import PatternError, resolve_weights, winners
from mixing.selections import part_names
from mixing.shards import write_token_shard
from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_extension import extend_tokenizer
from mixing.tokenizer_text import take_text, text_limits
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer


class NoText(ValueError):  # noqa: N818
    """Curation kept nothing that a step could work on."""


PART = "part"  # column of a token shard's documents that names the part of the source


# ---------------------------------------------------------------- tokenizer


@dataclass(frozen=True)
class TokenizerStageOptions:
    """A tokenizer to train, and on which text.

    Attributes:
        tokenizer: what is trained.
        size_bytes: bytes of text, less where there is less.
        shares: share of the bytes for each pattern of domains.
        split: source -> layer column whose value names the part of the source.
        base: path of a tokenizer that is extended by new ids; None trains one from nothing.
    """

    tokenizer: TokenizerOptions
    size_bytes: int
    shares: tuple[tuple[str, float], ...]
    split: tuple[tuple[str, str], ...] = ()
    base: str | None = field(default=None, metadata={"content": "tokenizer"})


def make_tokenizer(inputs: GlobalInputs, options: TokenizerStageOptions, output: Output) -> Counts:
    """Train a tokenizer on kept text, taken by content so that each pattern gives its share of the bytes.

    Where a domain has less than its share, all take less, so that the shares hold. The text of a domain is nested: a
    larger amount holds a smaller one's documents. Text is read once, in canonical order.
    """
    split = dict(options.split)
    supply = domain_bytes(inputs.shards, split)
    if not supply:
        sources = ", ".join(sorted({shard.source for shard in inputs.shards}))
        raise NoText(
            f"no text to train a tokenizer on: of {sources} not one document is kept. `gristmill inspect` shows what "
            "drops them; a ready tokenizer needs no text (`tokenizer: PATH`)"
        )
    wanted = text_shares(dict(options.shares), supply)
    size_bytes = min(options.size_bytes, *(int(supply[d] / share) for d, share in wanted.items() if share > 0))
    limits, _ = text_limits(
        {domain: domain_sizes(inputs.shards, split, domain) for domain in supply}, size_bytes, wanted
    )
    texts = take_text(domain_texts(inputs.shards, split), limits)
    if options.base is not None:
        made = extend_tokenizer(
            options.base,
            texts,
            options.tokenizer.vocabulary,
            output.path(".tokenizer"),
            special=options.tokenizer.special,
        )
        return {"vocabulary": made["vocabulary"], "new_tokens": made["num_new_tokens"]}
    counts = train_tokenizer(texts, options.tokenizer, output.path(".tokenizer"))
    return {"documents": counts["num_documents"], "bytes": counts["size_bytes"], "vocabulary": counts["vocabulary"]}


def text_shares(shares: Mapping[str, float], supply: Mapping[str, float]) -> dict[str, float]:
    """Share of the text of each domain that the recipe's shares name; the others give none.

    Raises:
        PatternError: a pattern that no domain with text is left for.
    """
    try:
        named = [domain for domain, pattern in winners(shares, sorted(supply)).items() if pattern is not None]
        return resolve_weights(shares, named, supply)
    except PatternError as error:
        raise PatternError(f"tokenizer.text.shares: {error}") from None


def domain_bytes(shards: Sequence[ShardInputs], split: Mapping[str, str]) -> dict[str, float]:
    """Bytes of kept text of each domain, from the layers alone, or of the text that steps have edited."""
    supply: dict[str, float] = {}
    for shard in shards:
        column = split.get(shard.source)
        for batch, _, sizes in _sized(shard, [column] if column else []):
            for domain, rows in _domains_of(shard.source, batch, column):
                supply[domain] = supply.get(domain, 0.0) + float(sizes[rows].sum())
    return {domain: size for domain, size in supply.items() if size}


def _sized(shard: ShardInputs, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
    """Row batches of some columns, which rows are kept, and bytes of their text as the steps left it (else 0)."""
    if shard.text is None:
        for batch in read_layers(shard.layers, ["size_bytes", *mask_columns(shard.layers), *columns]):
            kept = kept_rows(batch)
            yield batch, kept, np.where(kept, batch.column("size_bytes").to_numpy(), 0)
        return
    for batch in kept_text(shard, columns):  # the rows layer has the sizes that were read
        sizes = pc.binary_length(batch.column("text")).fill_null(0)
        yield batch, batch.column("kept").to_numpy(zero_copy_only=False), sizes.to_numpy().astype(np.int64)


def _domains_of(source: str, batch: pa.RecordBatch, column: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """Each domain of a row batch with its rows, bool (rows,)."""
    if column is None:
        yield source, np.ones(batch.num_rows, dtype=bool)
        return
    parts = part_names(batch.column(column))
    for part in sorted(parts.unique().to_pylist()):
        yield f"{source}/{part}", pc.equal(parts, part).to_numpy(zero_copy_only=False)


def domain_sizes(
    shards: Sequence[ShardInputs], split: Mapping[str, str], domain: str
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Content ids and bytes of a domain's kept documents, in row batches, as `domain_bytes` counts them."""
    for shard in shards:
        if shard.source != domain.partition("/")[0]:
            continue
        column = split.get(shard.source)
        for batch, kept, sizes in _sized(shard, ["content_id", *([column] if column else [])]):
            for name, rows in _domains_of(shard.source, batch, column):
                if name == domain:
                    yield batch.column("content_id").filter(pa.array(rows & kept)), sizes[rows & kept]


def domain_texts(shards: Sequence[ShardInputs], split: Mapping[str, str]) -> Iterator[tuple[str, pa.Array, pa.Array]]:
    """Domain, content ids and kept text of all shards, in row batches, in canonical order."""
    for shard in shards:
        column = split.get(shard.source)
        for batch in kept_text(shard, ["content_id", *([column] if column else [])]):
            for domain, rows in _domains_of(shard.source, batch, column):
                here = pa.array(rows & batch.column("kept").to_numpy(zero_copy_only=False))
                yield domain, batch.column("content_id").filter(here), batch.column("text").filter(here)


# ---------------------------------------------------------------- token shards


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
    tokenizer: str | None = field(default=None, metadata={"content": "tokenizer"})


def make_tokens(inputs: ShardInputs, options: TokenOptions, output: Output) -> Counts:
    """Write the tokens of a shard's kept rows, a row for each document, and the index of their content ids."""
    tokenizer = load_tokenizer(options.tokenizer or inputs.artifact("tokenizer"))
    documents_path = output.path(".documents.parquet")
    counts = write_token_shard(
        documents(inputs, options),
        tokenizer,
        output.path(".tokens"),
        documents_path,
        bos=options.bos,
        eos=options.eos,
    )
    write_document_ids(documents_path, output.path(SUFFIX))
    named = {
        "num_documents": "documents",
        "num_tokens": "tokens",
        "num_characters": "characters",
        "size_bytes": "bytes",
    }
    made: dict[str, Any] = {named[name]: counts[name] for name in named}
    if counts["num_by_library"]:
        made["by_library"] = counts["num_by_library"]
        if tokenizer.own[1]:
            made["by_library_because"] = tokenizer.own[1]
    return made


def documents(inputs: ShardInputs, options: TokenOptions) -> Iterator[pa.RecordBatch]:
    """The kept rows of a shard as documents: row, text, content id, cluster, licence, part."""
    clusters = [name for path in inputs.layers for name in layer_columns(path) if name.startswith("cluster@")]
    columns = ["content_id", "licence", *clusters, *([options.split] if options.split else [])]
    for batch in kept_text(inputs, columns):
        kept = batch.filter(batch.column("kept"))
        made: dict[str, Any] = {name: kept.column(name) for name in ("row", "text", "content_id")}
        made["licence"] = pc.coalesce(kept.column("licence"), pa.scalar(options.licence, pa.large_string()))
        if clusters:
            # The last dedup step that put the row in a cluster says which.
            made["cluster"] = pc.coalesce(*[kept.column(name) for name in reversed(clusters)])
        if options.split:
            made[PART] = part_names(kept.column(options.split))
        yield pa.RecordBatch.from_arrays(list(made.values()), names=list(made))
