"""Ready token shards as a source: what another tool (or an earlier run) wrote becomes token shards of this run.

Nothing is curated or tokenised again: the documents are taken as they are, one row each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.stage import Counts, Output
from mixing.document_ids import SUFFIX as IDS
from mixing.document_ids import write_document_ids
from mixing.exchange import read_datatrove, read_megatron
from mixing.litdata_chunks import INDEX, chunk_names, read_litdata
from mixing.selections import part_names
from mixing.shards import (
    ShardFiles,
    TokenRecord,
    TokenShardError,
    map_tokens,
    read_documents,
    read_record,
)
from mixing.stages import PART
from mixing.token_import import ForeignDocuments, ForeignTokens, documents_in, import_documents, write_described
from mixing.token_rows import SPLITS, STATE, TOKENS, columns_beside, read_rows, saved_files
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
        format: ds, megatron, tokens, litdata or datasets.
        licence: of the source, where a row brings none.
        tokenizer: path of the tokenizer that wrote them.
        fields: (role, column) of datasets: `tokens` and `licence`.
        split: column that the source is split by.
        sample: share of the documents, by content.
    """

    format: str
    licence: str
    tokenizer: str = field(metadata={"content": "tokenizer"})
    fields: tuple[tuple[str, str], ...] = ()
    split: str | None = None
    sample: float = 1.0


SUFFIXES = {
    "ds": (".ds",), "megatron": (".bin",), "tokens": (".tokens",), "litdata": (".bin",),
    "datasets": (".arrow", ".parquet"),
}  # fmt: skip
_BESIDE = {"ds": "{name}.index", "megatron": "{stem}.idx", "tokens": "{stem}.documents.parquet", "litdata": INDEX}


def parts_of(kind: str, path: str) -> list[Path]:
    """The files that one file of ready tokens consists of; the named one first.

    >>> [part.name for part in parts_of("megatron", "web.bin")]
    ['web.bin', 'web.idx']
    """
    named = Path(path)
    beside = _BESIDE.get(kind)
    return [named] if beside is None else [named, named.with_name(beside.format(name=named.name, stem=named.stem))]


def files_in(kind: str, folder: Path) -> list[Path]:
    """The files of ready tokens that lie in a folder itself, in order: below it our exports keep held-out text.

    Raises:
        TokenShardError: if the folder says that it is another's, or was never finished.
    """
    if kind == "litdata":
        return [folder / name for name in chunk_names(folder)]
    if kind == "datasets" and any((folder / name).exists() for name in (STATE, SPLITS)):
        return [folder / name for name in saved_files(folder)]
    found = (path for suffix in SUFFIXES[kind] for path in folder.glob(f"*{suffix}"))
    return sorted(path for path in found if path.is_file())


def columns_of(kind: str, path: str, tokens: str = TOKENS) -> dict[str, pa.DataType]:
    """Columns that a file of ready tokens has beside the tokens, to split or to sort by, with their types.

    Raises:
        TokenShardError: if the file cannot be read.
    """
    if kind == "datasets":
        return columns_beside(path, tokens)
    if kind != "tokens":
        return {}
    try:
        schema = pq.read_schema(parts_of(kind, path)[1])
    except (pa.ArrowException, OSError) as error:
        raise TokenShardError(f"{parts_of(kind, path)[1]}: cannot be read: {error}") from None
    return {one.name: one.type for one in schema if one.name not in ("row", "end", "content_id", "cluster")}


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
        counts = _own(inputs, options, tokenizer, tokens, documents)
    else:
        try:
            counts = import_documents(
                _foreign(inputs, options), tokenizer, tokens, documents,
                licence=options.licence, split=options.split, sample=options.sample,
            )  # fmt: skip
        except TokenShardError as error:
            told = str(error)
            raise TokenShardError(told if inputs.path in told else f"{inputs.path}: {told}") from None
    write_document_ids(documents, output.path(IDS))
    return {name: counts[key] for name, key in _COUNTED.items()}


_COUNTED = {
    "documents": "num_documents", "tokens": "num_tokens", "characters": "num_characters", "bytes": "size_bytes",
}  # fmt: skip


def _foreign(inputs: TokenFile, options: ImportOptions) -> Iterator[ForeignDocuments]:
    """The documents of a file that another tool wrote."""
    if options.format == "datasets":
        fields = dict(options.fields)
        tokens, licence = fields.get("tokens", TOKENS), fields.get("licence", "licence")
        for group in read_rows(inputs.path, tokens, tuple(columns_beside(inputs.path, tokens))):
            columns = {name: column for name, column in group.columns.items() if name != "licence"}
            if licence in group.columns:
                columns["licence"] = group.columns[licence]
            yield ForeignDocuments(group.tokens, group.ends, columns)
        return
    readers: dict[str, Callable[[Path], ForeignTokens]] = {
        "ds": read_datatrove, "megatron": _read_megatron, "litdata": read_litdata,
    }  # fmt: skip
    yield from documents_in(readers[options.format](Path(inputs.path)))


def _read_megatron(path: Path) -> ForeignTokens:
    return read_megatron(path.with_suffix(""))


def _own(
    inputs: TokenFile, options: ImportOptions, tokenizer: Tokenizer, tokens: Path, documents: Path
) -> dict[str, int]:
    """Take our own token shard after reading it whole against its checksum: a copy, or what the sample holds of it."""
    files = ShardFiles(inputs.source, inputs.shard, *parts_of("tokens", inputs.path))
    record = read_record(files, verify=True)
    if record.tokenizer != tokenizer.identity:
        raise TokenShardError(
            f"{inputs.path}: written by tokenizer {record.tokenizer}, but the recipe's is {tokenizer.identity}; "
            "name the one that wrote it"
        )
    if options.sample < 1 or options.split not in (None, PART):
        groups = _own_documents(files, record, options.split)
        return write_described(groups, tokenizer, tokens, documents, sample=options.sample)
    shutil.copyfile(files.tokens_path, tokens)
    shutil.copyfile(files.documents_path, documents)
    return {"num_documents": record.num_documents, "num_tokens": record.num_tokens, **_sizes(files)}


def _own_documents(
    files: ShardFiles, record: TokenRecord, split: str | None
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Tokens and rows of groups of documents; the part is told by the column that the source is split by."""
    tokens, before = map_tokens(files, record), 0
    for batch in read_documents(files):
        ends = batch["end"].to_numpy()
        columns = {name: batch[name] for name in batch.schema.names}
        if split is not None:
            columns[PART] = part_names(batch[split])
        stop = int(ends[-1]) if len(ends) else before
        yield (
            np.asarray(tokens[before:stop]),
            pa.record_batch(columns | {"end": pa.array(ends - before, pa.int64())}),
        )
        before = stop


def _sizes(files: ShardFiles) -> dict[str, int]:
    import pyarrow.compute as pc

    sizes = pq.read_table(files.documents_path, columns=["num_characters", "size_bytes"])
    return {name: pc.sum(sizes[name]).as_py() or 0 for name in sizes.column_names}
