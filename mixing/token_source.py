"""Ready token shards as a source: what another tool (or an earlier run) wrote becomes token shards of this run.

Nothing is curated or tokenised again: the documents are taken as they are, one row each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from curation.stage import Counts, Output
from mixing.document_ids import SUFFIX as IDS
from mixing.document_ids import write_document_ids
from mixing.exchange import ForeignTokens, import_tokens, read_datatrove, read_megatron
from mixing.shards import ShardFiles, TokenShardError, read_record
from mixing.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class TokenFile:
    """A file of ready tokens: its source, its path below `execution.raw`, and where it is."""

    source: str
    shard: str
    path: str


@dataclass(frozen=True)
class ImportOptions:
    """How ready tokens are read.

    Attributes:
        format: ds, megatron or tokens.
        tokenizer: path of the tokenizer that wrote them.
        licence: of the source.
    """

    format: str
    licence: str
    tokenizer: str = field(metadata={"content": True})


SUFFIXES = {"ds": ".ds", "megatron": ".bin", "tokens": ".tokens"}


def parts_of(kind: str, path: str) -> list[Path]:
    """The files that one file of ready tokens consists of; the named one first.

    >>> [part.name for part in parts_of("megatron", "web.bin")]
    ['web.bin', 'web.idx']
    """
    named = Path(path)
    beside = {"ds": f"{named.name}.index", "megatron": f"{named.stem}.idx", "tokens": f"{named.stem}.documents.parquet"}
    return [named, named.with_name(beside[kind])]


def make_imported(inputs: TokenFile, options: ImportOptions, output: Output) -> Counts:
    """Write one file of ready tokens as a token shard.

    Raises:
        TokenShardError: if a part of it is missing, cut or changed, or it was written by another tokenizer.
    """
    tokenizer = load_tokenizer(options.tokenizer)
    missing = [str(part) for part in parts_of(options.format, inputs.path) if not part.is_file()]
    if missing:
        raise TokenShardError(f"{inputs.path}: {missing[0]} is missing; a {options.format} shard consists of both")
    tokens, documents = output.path(".tokens"), output.path(".documents.parquet")
    if options.format == "tokens":
        counts = _copied(inputs, tokenizer, tokens, documents)
    else:
        readers: dict[str, Callable[[Path], ForeignTokens]] = {"ds": read_datatrove, "megatron": _read_megatron}
        foreign = readers[options.format](Path(inputs.path))
        try:
            counts = import_tokens(foreign, tokenizer, tokens, documents, licence=options.licence)
        except TokenShardError as error:
            raise TokenShardError(f"{inputs.path}: {error}") from None
    write_document_ids(documents, output.path(IDS))
    return {name: counts[key] for name, key in _COUNTED.items()}


_COUNTED = {
    "documents": "num_documents", "tokens": "num_tokens", "characters": "num_characters", "bytes": "size_bytes",
}  # fmt: skip


def _read_megatron(path: Path) -> ForeignTokens:
    return read_megatron(path.with_suffix(""))


def _copied(inputs: TokenFile, tokenizer: Tokenizer, tokens: Path, documents: Path) -> dict[str, int]:
    """Copy our own token shard after reading it whole against its checksum."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    files = ShardFiles(inputs.source, inputs.shard, *parts_of("tokens", inputs.path))
    record = read_record(files, verify=True)
    if record.tokenizer != tokenizer.identity:
        raise TokenShardError(
            f"{inputs.path}: written by tokenizer {record.tokenizer}, but the recipe's is {tokenizer.identity}; "
            "name the one that wrote it"
        )
    shutil.copyfile(files.tokens_path, tokens)
    shutil.copyfile(files.documents_path, documents)
    sizes = pq.read_table(files.documents_path, columns=["num_characters", "size_bytes"])
    counted = {name: pc.sum(sizes[name]).as_py() or 0 for name in sizes.column_names}
    return {"num_documents": record.num_documents, "num_tokens": record.num_tokens, **counted}
