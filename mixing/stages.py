"""What the token part of a run does: train a tokenizer, write token shards, select domains.

Functions (inputs, options, output) of the same kind as `curation.passes`; keys and paths are decided by the caller.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.layers import kept_rows, layer_columns, mask_columns, read_layers
from curation.passes import ShardInputs, kept_text
from curation.stage import Counts, Output
from curation.stages.inputs import GlobalInputs
from mixing.domains import build_domain_index
from mixing.held_out import Target, choose_held_out, read_held_out
from mixing.patterns import resolve_weights
from mixing.selections import UNKNOWN, Selection, count_parts, part_names, thin
from mixing.shards import ShardFiles, write_token_shard
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
    base: str | None = field(default=None, metadata={"content": True})


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
    wanted = resolve_weights(dict(options.shares), sorted(supply), supply)
    size_bytes = min(options.size_bytes, *(int(supply[d] / share) for d, share in wanted.items() if share > 0))
    limits, _ = text_limits({domain: _sizes(inputs.shards, split, domain) for domain in supply}, size_bytes, wanted)
    texts = take_text(_texts(inputs.shards, split), limits)
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


def domain_bytes(shards: Sequence[ShardInputs], split: Mapping[str, str]) -> dict[str, float]:
    """Bytes of kept text of each domain, from the layers alone."""
    supply: dict[str, float] = {}
    for shard in shards:
        column = split.get(shard.source)
        columns = ["size_bytes", *mask_columns(shard.layers), *([column] if column else [])]
        for batch in read_layers(shard.layers, columns):
            sizes = np.where(kept_rows(batch), batch.column("size_bytes").to_numpy(), 0)
            for domain, rows in _domains_of(shard.source, batch, column):
                supply[domain] = supply.get(domain, 0.0) + float(sizes[rows].sum())
    return {domain: size for domain, size in supply.items() if size}


def _domains_of(source: str, batch: pa.RecordBatch, column: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """Each domain of a row batch with its rows, bool (rows,)."""
    if column is None:
        yield source, np.ones(batch.num_rows, dtype=bool)
        return
    parts = part_names(batch.column(column))
    for part in sorted(parts.unique().to_pylist()):
        yield f"{source}/{part}", pc.equal(parts, part).to_numpy(zero_copy_only=False)


def _sizes(
    shards: Sequence[ShardInputs], split: Mapping[str, str], domain: str
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Content ids and bytes of a domain's kept documents, in row batches, from the layers alone."""
    for shard in shards:
        if shard.source != domain.partition("/")[0]:
            continue
        column = split.get(shard.source)
        columns = ["content_id", "size_bytes", *mask_columns(shard.layers), *([column] if column else [])]
        for batch in read_layers(shard.layers, columns):
            for name, rows in _domains_of(shard.source, batch, column):
                if name == domain:
                    taken = pa.array(rows & kept_rows(batch))
                    yield batch.column("content_id").filter(taken), batch.column("size_bytes").filter(taken).to_numpy()


def _texts(shards: Sequence[ShardInputs], split: Mapping[str, str]) -> Iterator[tuple[str, pa.Array, pa.Array]]:
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
    tokenizer: str | None = field(default=None, metadata={"content": True})


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
    named = {
        "num_documents": "documents",
        "num_tokens": "tokens",
        "num_characters": "characters",
        "size_bytes": "bytes",
    }
    return {named[name]: number for name, number in counts.items()}


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


# ---------------------------------------------------------------- domains


@dataclass(frozen=True)
class TokenInputs:
    """Token shards of all sources, and paths of what earlier stages made."""

    shards: tuple[ShardFiles, ...]
    artifacts: tuple[tuple[str, str], ...] = ()

    def artifact(self, name: str) -> Path:
        """Path of what an earlier stage made."""
        return Path(dict(self.artifacts)[name])


@dataclass(frozen=True)
class DomainOptions:
    """How sources become domains.

    Attributes:
        split: sources that are split, by the column `part` of their documents.
        held_out_tokens: most held-out tokens of a domain.
        held_out_share: most of a domain's tokens that are held out.
        validate_only: sources that are measured whole and never trained on.
        thinned: share of documents for each domain, where a proxy repeats as its target does; others stay whole.
    """

    split: tuple[str, ...]
    held_out_tokens: int
    held_out_share: float
    validate_only: tuple[str, ...] = ()
    thinned: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Domain:
    """A domain as `domains.json` lists it: amounts of its training text, and of its held-out text.

    `training` and `held_out` are paths of indexes, relative to the folder of `domains.json`; `training` is None for
    what is only validated on.
    """

    name: str
    training: str | None
    held_out: str | None
    num_tokens: int
    num_documents: int
    size_bytes: int
    num_characters: int
    held_out_tokens: int
    held_out_bytes: int


def make_domains(inputs: TokenInputs, options: DomainOptions, output: Output) -> Counts:
    """Choose held-out text and write an index of each domain's training text and of its held-out text."""
    selections = _selections(inputs.shards, options)
    targets = {
        name: (s, Target(None, 1.0) if s.source in options.validate_only else _target(options))
        for name, s in selections.items()
    }
    held_out_path = output.path(".held_out.parquet")
    choose_held_out(inputs.shards, targets, held_out_path)
    held_out = read_held_out(held_out_path)
    listed = [
        _index_domain(inputs, options, name, selection, held_out, output) for name, selection in selections.items()
    ]
    output.path(".domains.json").write_text(json.dumps([asdict(domain) for domain in listed], indent=1))
    return {
        "domains": len(listed),
        "tokens": sum(domain.num_tokens for domain in listed),
        "held_out_tokens": sum(domain.held_out_tokens for domain in listed),
    }


def _target(options: DomainOptions) -> Target:
    return Target(options.held_out_tokens, options.held_out_share)


def _selections(shards: Sequence[ShardFiles], options: DomainOptions) -> dict[str, Selection]:
    """The domains: each source, or each part of a source that is split, by name."""
    found: dict[str, Selection] = {}
    for source in sorted({files.source for files in shards}):
        if source not in options.split:
            found[source] = Selection(source)
            continue
        for part, tokens in count_parts([files for files in shards if files.source == source], PART).items():
            if tokens and part != UNKNOWN:
                found[f"{source}/{part}"] = Selection(source, PART, part)
            elif tokens:
                found[f"{source}/{UNKNOWN}"] = Selection(source, PART, UNKNOWN)
    return found


def _index_domain(
    inputs: TokenInputs, options: DomainOptions, name: str, selection: Selection, held_out: Any, output: Output
) -> Domain:
    word = file_word(name)
    held_suffix = f".{word}.held_out"
    held = build_domain_index(
        inputs.shards, selection, output.path(held_suffix), held_out=held_out, domain=name, part="held_out"
    )
    share = dict(options.thinned).get(name, 1.0)
    training: Mapping[str, int] = {}
    suffix = None
    if selection.source not in options.validate_only:
        suffix = f".{word}.training"
        selection = thin(selection, share) if share < 1 else selection
        training = build_domain_index(inputs.shards, selection, output.path(suffix), held_out=held_out, part="training")
    return Domain(
        name=name,
        training=f"all{suffix}" if suffix else None,
        held_out=f"all{held_suffix}",
        num_tokens=training.get("num_tokens", 0),
        num_documents=training.get("num_documents", 0),
        size_bytes=training.get("size_bytes", 0),
        num_characters=training.get("num_characters", 0),
        held_out_tokens=held["num_tokens"],
        held_out_bytes=held["size_bytes"],
    )


def file_word(domain: str) -> str:
    """A domain's name as part of a file's name, different for different domains.

    >>> file_word("web_de/head"), file_word("code/C++")
    ('web_de.head', 'code.C-6b246ac1')
    """
    word = re.sub(r"[^A-Za-z0-9_-]+", ".", domain)
    if re.fullmatch(r"[A-Za-z0-9_-]{1,60}(/[A-Za-z0-9_-]{1,60})?", domain):
        return word
    # Parts are named by what the text brings: C++ and C# must not share a file, nor a URL be longer than a name may.
    return f"{word[:60].rstrip('.')}-{hashlib.blake2b(domain.encode(), digest_size=4).hexdigest()}"


def read_domains(path: str | Path) -> list[Domain]:
    """The domains that `make_domains` listed."""
    return [Domain(**stored) for stored in json.loads(Path(path).read_text(encoding="utf-8"))]
