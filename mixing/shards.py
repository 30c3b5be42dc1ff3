"""Token shards: the tokens of a shard's kept documents, flat, and one row for each document.

`tokens` is a little-endian array of uint16 or uint32 (by vocabulary) without a header, to be memory-mapped.
`documents` is Parquet, in the shard's order: `row, end, num_characters, size_bytes, content_id, cluster, licence` and
the columns that domains are split by; `end` is the token offset after the document, its end token included. What the
tokens are (type, number, vocabulary, tokenizer, checksum) stands in the Parquet metadata under `gristmill.tokens`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from mixing.tokenizer import Tokenizer, TokenizerError, encode_counting

METADATA_KEY = b"gristmill.tokens"
OWN_COLUMNS = ("row", "end", "num_characters", "size_bytes", "content_id", "cluster", "licence")
_READ_BYTES = 8 << 20
_READ_ROWS = 65_536


class TokenShardError(ValueError):
    """A token shard is not what its record says, or cannot be written as asked."""


@dataclass(frozen=True)
class ShardFiles:
    """Where a token shard lies, and which shard of which source it was made of."""

    source: str
    shard: str
    tokens_path: Path
    documents_path: Path


@dataclass(frozen=True)
class TokenRecord:
    """What the flat array of a token shard is; stored beside its documents."""

    dtype: str
    num_tokens: int
    num_documents: int
    vocabulary: int
    tokenizer: str
    bos: int | None
    eos: int | None
    checksum: str


def write_token_shard(
    batches: Iterable[pa.RecordBatch],
    tokenizer: Tokenizer,
    tokens_path: str | Path,
    documents_path: str | Path,
    *,
    bos: bool = False,
    eos: bool = True,
) -> dict[str, int]:
    """Write the tokens of documents and a row for each.

    Memory grows with a row batch and a longest document, not with the shard.

    Args:
        batches: the kept rows: `row`, `text` (without nulls), `content_id`, and if there are any `cluster`, `licence`
            and columns that domains are split by, which are passed through.
        tokenizer: from `load_tokenizer`.
        tokens_path: written; flat tokens.
        documents_path: written; Parquet.
        bos: a begin token before each document.
        eos: an end token after each document.

    Returns:
        num_documents, num_tokens, num_characters and size_bytes (of the text that was encoded), and num_by_library: of
        the documents, those that `curation.bpe` left to the tokenizers library.

    Raises:
        TokenizerError: if the tokenizer has no begin or end token though one is wanted.
        TokenShardError: if a text is null.
    """
    around = (_needed(tokenizer, "bos") if bos else None, _needed(tokenizer, "eos") if eos else None)
    counts = {"num_documents": 0, "num_tokens": 0, "num_characters": 0, "size_bytes": 0, "num_by_library": 0}
    checksum = xxhash.xxh3_128()
    with Path(tokens_path).open("wb") as tokens, _DocumentsWriter(documents_path) as documents:
        for batch in batches:
            ends, by_library = _write_tokens(batch, tokenizer, around, counts["num_tokens"], tokens, checksum)
            described = _described(batch, ends)
            documents.write(described)
            counts["num_documents"] += len(ends)
            counts["num_by_library"] += by_library
            counts["num_tokens"] = int(ends[-1]) if len(ends) else counts["num_tokens"]
            for column in ("num_characters", "size_bytes"):
                counts[column] += pc.sum(described[column]).as_py() or 0
        documents.record(
            TokenRecord(
                tokenizer.dtype.str,
                counts["num_tokens"],
                counts["num_documents"],
                tokenizer.vocabulary,
                tokenizer.identity,
                *around,
                checksum.hexdigest(),
            )
        )
    return counts


def read_record(files: ShardFiles, *, verify: bool = False) -> TokenRecord:
    """What a token shard holds; its size is checked always, checksum and ids (below the vocabulary) if asked.

    Raises:
        TokenShardError: if a file is missing, cut, longer than it should be, or changed.
    """
    try:
        stored = (pq.read_metadata(files.documents_path).metadata or {}).get(METADATA_KEY)
    except FileNotFoundError:
        raise TokenShardError(f"{files.documents_path}: missing; run again") from None
    except (pa.ArrowException, OSError) as error:
        raise TokenShardError(f"{files.documents_path}: cannot be read ({error}); remove it and run again") from error
    if stored is None:
        raise TokenShardError(f"{files.documents_path}: no {METADATA_KEY.decode()} in its metadata: not a token shard")
    record = TokenRecord(**json.loads(stored))
    wanted = record.num_tokens * np.dtype(record.dtype).itemsize
    try:
        found = Path(files.tokens_path).stat().st_size
    except FileNotFoundError:
        raise TokenShardError(f"{files.tokens_path}: missing; run again") from None
    if found != wanted:
        raise TokenShardError(
            f"{files.tokens_path}: {found} bytes, but {record.num_tokens} tokens of {record.dtype} need {wanted}; "
            "remove this file and run again"
        )
    if verify:
        _verify(files, record)
    return record


def read_documents(files: ShardFiles, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Document rows of a token shard in order, in row batches."""
    with pq.ParquetFile(files.documents_path) as documents:
        yield from documents.iter_batches(batch_size=_READ_ROWS, columns=columns, use_threads=False)


def describe_tokens(record: TokenRecord) -> dict[bytes, bytes]:
    """Parquet metadata that says what the tokens are."""
    return {METADATA_KEY: json.dumps(asdict(record), sort_keys=True).encode()}


def map_tokens(files: ShardFiles, record: TokenRecord) -> np.ndarray[Any, Any]:
    """The flat tokens, memory-mapped, read-only."""
    if not record.num_tokens:
        return np.zeros(0, np.dtype(record.dtype))
    return np.memmap(files.tokens_path, np.dtype(record.dtype), mode="r", shape=(record.num_tokens,))


def with_ends(ids: np.ndarray, lengths: np.ndarray, bos: int | None, eos: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Put a begin and an end token around each document.

    Args:
        ids: tokens of documents after each other (n,).
        lengths: tokens of each document, int64 (d,).
        bos: id, or None for no begin token.
        eos: id, or None for no end token.

    Returns:
        Tokens, same dtype, and the offset after each document, int64 (d,).
    """
    ends = np.cumsum(lengths + (bos is not None) + (eos is not None))
    if bos is None and eos is None:
        return ids, ends
    placed = np.ones(int(ends[-1]) if len(ends) else 0, dtype=bool)
    around = np.empty(len(placed), ids.dtype)
    if bos is not None:
        starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        placed[starts] = False
        around[starts] = bos
    if eos is not None:
        placed[ends - 1] = False
        around[ends - 1] = eos
    around[placed] = ids
    return around, ends


def check_ids(ids: np.ndarray, vocabulary: int, where: object) -> None:
    """Refuse a token id that the vocabulary does not have, also one below 0 (a mask of labels, padding)."""
    least, largest = int(ids.min(initial=0)), int(ids.max(initial=0))
    if least < 0 or largest >= vocabulary:
        wrong, at = (least, int(np.argmin(ids))) if least < 0 else (largest, int(np.argmax(ids)))
        raise TokenShardError(
            f"{where}: token id {wrong} at {at}, but the vocabulary has {vocabulary} (0 to {vocabulary - 1}); "
            "these tokens were made by another tokenizer"
        )


class _DocumentsWriter:
    """Parquet of documents, opened at the first row batch (its columns are the schema), closed with the record."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _DocumentsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, documents: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, documents.schema, compression="zstd", store_schema=False, write_statistics=False
            )
        if documents.num_rows:
            self._writer.write_batch(documents)

    def record(self, record: TokenRecord) -> None:
        if self._writer is None:
            nothing = {"row": pa.array([], pa.int64()), "text": pa.array([], pa.large_string())}
            nothing["content_id"] = pa.array([], pa.binary(16))
            self.write(_described(pa.record_batch(nothing), np.zeros(0, np.int64)))
        assert self._writer is not None
        self._writer.add_key_value_metadata(describe_tokens(record))


def _write_tokens(
    batch: pa.RecordBatch,
    tokenizer: Tokenizer,
    around: tuple[int | None, int | None],
    before: int,
    tokens: BinaryIO,
    checksum: Any,
) -> tuple[np.ndarray, int]:
    """Encode and write the text of a row batch.

    Returns:
        Offsets after each document, counted from the shard's first token, and documents that the library encoded.
    """
    text = batch["text"]
    if text.null_count:
        row = batch["row"].filter(text.is_null())[0].as_py()
        raise TokenShardError(f"row {row}: its text is null; only kept rows become tokens")
    all_ends = [np.zeros(0, np.int64)]
    total_by_library = 0
    for ids, lengths, by_library in encode_counting(tokenizer, text):
        check_ids(ids, tokenizer.vocabulary, "encoded text")
        ids, ends = with_ends(ids, lengths, *around)
        stored = ids.tobytes()
        tokens.write(stored)
        checksum.update(stored)
        all_ends.append(ends + before)
        before += len(ids)
        total_by_library += by_library
    return np.concatenate(all_ends), total_by_library


def _described(batch: pa.RecordBatch, ends: np.ndarray) -> pa.RecordBatch:
    """The document rows of a row batch: our columns, then those passed through, by name."""
    text = batch["text"]
    own = {
        "row": batch["row"].cast(pa.int64()),
        "end": pa.array(ends, pa.int64()),
        "num_characters": pc.utf8_length(text).cast(pa.int64()),
        "size_bytes": pc.binary_length(text).cast(pa.int64()),
        "content_id": batch["content_id"].cast(pa.binary(16)),
        "cluster": _column(batch, "cluster", pa.binary(16)),
        "licence": _column(batch, "licence", pa.string()),
    }
    passed = sorted(set(batch.schema.names) - set(OWN_COLUMNS) - {"text"})
    return pa.record_batch(own | {name: batch[name] for name in passed})


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    return batch[name].cast(kind) if name in batch.schema.names else pa.nulls(batch.num_rows, kind)


def _needed(tokenizer: Tokenizer, kind: str) -> int:
    token: int | None = getattr(tokenizer, kind)
    if token is None:
        raise TokenizerError(
            f"sequences.{kind}: the tokenizer has no {kind} token; name one as `{kind}_token` in tokenizer_config.json "
            f"or set sequences.{kind} to false"
        )
    return token


def _verify(files: ShardFiles, record: TokenRecord) -> None:
    checksum = xxhash.xxh3_128()
    with Path(files.tokens_path).open("rb") as tokens:
        while stored := tokens.read(_READ_BYTES):
            checksum.update(stored)
            check_ids(np.frombuffer(stored, record.dtype), record.vocabulary, files.tokens_path)
    if checksum.hexdigest() != record.checksum:
        raise TokenShardError(
            f"{files.tokens_path}: checksum {checksum.hexdigest()}, recorded {record.checksum}: the file was changed; "
            "remove this file and run again"
        )
