"""Token shards from and to other tools: datatrove's `.ds` and Megatron's `.bin`/`.idx`.

datatrove: `NAME.ds` flat uint16 or uint32, `NAME.ds.index` the token offset after each document (uint64),
`NAME.ds.metadata` text. Megatron: `NAME.bin` flat tokens, `NAME.idx` a header (`MMIDIDX`, version 1, type, counts), the
length of each sequence (int32), its byte offset (int64) and the sequences at which documents begin (int64).
Layouts as read and written by datatrove 0.10.1 and Megatron-LM's indexed_dataset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mixing.domains import DomainTokens
from mixing.shards import TokenRecord, TokenShardError, check_ids, describe_tokens, map_tokens, read_record
from mixing.tokenizer import Tokenizer, decode

_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {1: "u1", 4: "<i4", 5: "<i8", 8: "<u2"}
_ROWS = 4096


@dataclass(frozen=True)
class ForeignTokens:
    """Tokens another tool wrote: the flat array, and the offset after each document, int64."""

    tokens: np.ndarray[Any, Any]
    ends: np.ndarray[Any, np.dtype[np.int64]]


def export_datatrove(index_path: str | Path, path: str | Path, *, tokenizer_name: str = "gristmill") -> dict[str, int]:
    """Write a domain's documents, in its order, as `path` (`….ds`), `path`.index and `path`.metadata.

    Memory grows with a group of documents, not with the domain.

    Args:
        index_path: contiguous index.
        path: file to write.
        tokenizer_name: written into the metadata.

    Returns:
        num_documents, num_tokens.
    """
    domain, path = contiguous(index_path), Path(path)
    width = max((np.dtype(shard.dtype).itemsize for shard in domain.footer.shards), default=2)
    with path.open("wb") as tokens, path.with_name(path.name + ".index").open("wb") as index:
        for documents, _, ends in documents_of(domain):
            tokens.write(documents.astype(f"<u{width}").tobytes())
            index.write(ends.astype("<u8").tobytes())
    counts = {"num_documents": domain.footer.num_documents, "num_tokens": domain.num_tokens}
    described = f"{tokenizer_name}|{width}\n{domain.num_tokens}\n{domain.num_tokens / 1e9:.3g} GT"
    path.with_name(path.name + ".metadata").write_text(described, encoding="utf-8")
    return counts


def export_megatron(index_path: str | Path, path: str | Path) -> dict[str, int]:
    """Write a domain's documents, one sequence each, as `path`.bin and `path`.idx; counts as `export_datatrove`."""
    domain, path = contiguous(index_path), Path(path)
    wide = any(np.dtype(shard.dtype).itemsize > 2 for shard in domain.footer.shards)
    number = domain.footer.num_documents
    with path.with_name(path.name + ".bin").open("wb") as tokens:
        for documents, _, _ in documents_of(domain):
            tokens.write(documents.astype("<i4" if wide else "<u2").tobytes())
    with path.with_name(path.name + ".idx").open("wb") as index:
        index.write(_MAGIC + struct.pack("<QBQQ", 1, 4 if wide else 8, number, number + 1))
        for _, begins, ends in documents_of(domain, tokens=False):
            index.write((ends - begins).astype("<i4").tobytes())
        for _, begins, _ in documents_of(domain, tokens=False):
            index.write((begins * (4 if wide else 2)).astype("<i8").tobytes())
        for start in range(0, number + 1, 1 << 20):
            index.write(np.arange(start, min(number + 1, start + (1 << 20)), dtype="<i8").tobytes())
    return {"num_documents": number, "num_tokens": domain.num_tokens}


def read_datatrove(path: str | Path) -> ForeignTokens:
    """Map `NAME.ds` and its index.

    Raises:
        TokenShardError: if the index is missing or does not fit the tokens.
    """
    path = Path(path)
    index = path.with_name(path.name + ".index")
    if not index.exists():
        raise TokenShardError(f"{index}: missing; datatrove writes it with save_index=True")
    ends = np.fromfile(index, "<u8").astype(np.int64)
    num_tokens = int(ends[-1]) if len(ends) else 0
    size = path.stat().st_size
    if size not in (2 * num_tokens, 4 * num_tokens):
        raise TokenShardError(f"{path}: {size} bytes, but its index ends at {num_tokens} tokens of 2 or 4 bytes")
    dtype = "<u2" if size == 2 * num_tokens else "<u4"
    return ForeignTokens(np.memmap(path, dtype, "r") if num_tokens else np.zeros(0, dtype), ends)


def read_megatron(path: str | Path) -> ForeignTokens:
    """Map `path`.bin by `path`.idx; its documents may hold several sequences.

    Raises:
        TokenShardError: if the index is not Megatron's, or its sequences do not lie one after the other.
    """
    path = Path(path)
    stored = path.with_name(path.name + ".idx").read_bytes()
    if stored[:9] != _MAGIC or len(stored) < 34:
        raise TokenShardError(f"{path}.idx: not an index of Megatron-LM")
    version, code, num_sequences, num_bounds = struct.unpack_from("<QBQQ", stored, 9)
    if version != 1 or code not in _MEGATRON_TYPES or len(stored) < 34 + 12 * num_sequences + 8 * num_bounds:
        raise TokenShardError(f"{path}.idx: version {version}, type {code}, {len(stored)} bytes: cannot be read")
    dtype = np.dtype(_MEGATRON_TYPES[code])
    lengths = np.frombuffer(stored, "<i4", num_sequences, 34).astype(np.int64)
    offsets = np.frombuffer(stored, "<i8", num_sequences, 34 + 4 * num_sequences)
    bounds = np.frombuffer(stored, "<i8", num_bounds, 34 + 12 * num_sequences)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    if not np.array_equal(offsets, ends[:-1] * dtype.itemsize):
        raise TokenShardError(f"{path}.idx: sequences do not lie one after the other; merge them with Megatron's tool")
    size, wanted = path.with_name(path.name + ".bin").stat().st_size, int(ends[-1]) * dtype.itemsize
    if size != wanted:
        raise TokenShardError(f"{path}.bin: {size} bytes, but the {ends[-1]} tokens of its index need {wanted}")
    tokens = np.memmap(path.with_name(path.name + ".bin"), dtype, "r") if wanted else np.zeros(0, dtype)
    return ForeignTokens(tokens, ends[bounds[1:]])


def import_tokens(
    foreign: ForeignTokens,
    tokenizer: Tokenizer,
    tokens_path: str | Path,
    documents_path: str | Path,
    *,
    licence: str | None = None,
) -> dict[str, int]:
    """Write foreign tokens as a token shard; row n is its n-th document.

    Each document is decoded for its size and content id, so a text is recognised as the one that other sources hold if
    the tokenizer loses nothing. A begin or end token counts as the tokenizer's own where every document has one.

    Returns:
        As `mixing.shards.write_token_shard`.

    Raises:
        TokenShardError: if a token id is not in the vocabulary.
    """
    counts = {
        "num_documents": len(foreign.ends),
        "num_tokens": len(foreign.tokens),
        "num_characters": 0,
        "size_bytes": 0,
    }
    checksum, dtype = xxhash.xxh3_128(), tokenizer.dtype
    starts = np.concatenate(([0], foreign.ends[:-1])) if len(foreign.ends) else foreign.ends
    with Path(tokens_path).open("wb") as tokens, pq.ParquetWriter(documents_path, _SCHEMA, store_schema=False) as rows:
        for first in range(0, len(starts), _ROWS):
            here = slice(first, first + _ROWS)
            ids = np.asarray(foreign.tokens[starts[here][0] : foreign.ends[here][-1]])
            check_ids(ids, tokenizer.vocabulary, f"documents {first} to {first + len(starts[here]) - 1}")
            stored = ids.astype(dtype).tobytes()
            tokens.write(stored)
            checksum.update(stored)
            batch = _described(ids, starts[here], foreign.ends[here], first, tokenizer, licence)
            rows.write_batch(batch)
            for column in ("num_characters", "size_bytes"):
                counts[column] += int(batch[column].to_numpy().sum())
        bos = tokenizer.bos if _all_are(foreign, starts, tokenizer.bos) else None
        eos = tokenizer.eos if _all_are(foreign, foreign.ends - 1, tokenizer.eos) else None
        record = TokenRecord(
            dtype.str,
            counts["num_tokens"],
            counts["num_documents"],
            tokenizer.vocabulary,
            tokenizer.identity,
            bos,
            eos,
            checksum.hexdigest(),
        )
        rows.add_key_value_metadata(describe_tokens(record))
    return counts


_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("end", pa.int64()),
        ("num_characters", pa.int64()),
        ("size_bytes", pa.int64()),
        ("content_id", pa.binary(16)),
        ("cluster", pa.binary(16)),
        ("licence", pa.string()),
    ]
)


def _described(
    ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: int, tokenizer: Tokenizer, licence: str | None
) -> pa.RecordBatch:
    texts = [decode(tokenizer, ids[a:b]) for a, b in zip(starts - starts[0], ends - starts[0])]
    encoded = [text.encode() for text in texts]
    columns = [
        pa.array(np.arange(first, first + len(ends)), pa.int64()),
        pa.array(ends, pa.int64()),
        pa.array([len(text) for text in texts], pa.int64()),
        pa.array([len(text) for text in encoded], pa.int64()),
        pa.array([xxhash.xxh3_128_digest(text) for text in encoded], pa.binary(16)),
        pa.nulls(len(ends), pa.binary(16)),
        pa.array([licence] * len(ends), pa.string()),
    ]
    return pa.record_batch(columns, schema=_SCHEMA)


def _all_are(foreign: ForeignTokens, places: np.ndarray, token: int | None) -> bool:
    return token is not None and len(places) > 0 and bool((np.asarray(foreign.tokens[places]) == token).all())


def contiguous(index_path: str | Path) -> DomainTokens:
    """Open a contiguous index; a packed one is refused."""
    domain = DomainTokens.open(index_path)
    if domain.footer.context is not None:
        raise TokenShardError(f"{index_path}: packed; export the contiguous index")
    return domain


def documents_of(domain: DomainTokens, *, tokens: bool = True) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens of a group of documents in the domain's order, and the offsets before and after each, int64."""
    maps: dict[int, np.ndarray] = {}
    for first in range(0, len(domain.documents), _ROWS):
        table = np.asarray(domain.documents[first : first + _ROWS + 1, 0])
        bounds = table if len(table) > _ROWS else np.append(table, domain.length)
        start, stop = (int(bounds[0]), int(bounds[-1])) if tokens else (0, 0)
        yield _stretch(domain, maps, start, stop), bounds[:-1], bounds[1:]


def _stretch(domain: DomainTokens, maps: dict[int, np.ndarray], start: int, stop: int) -> np.ndarray:
    """Tokens [start, stop) of a domain's stream."""
    pieces = [np.zeros(0, np.uint16)]
    run = int(np.searchsorted(domain.runs[:, 0], start, side="right")) - 1
    while start < stop:
        position, number, offset = domain.runs[run].tolist()
        end = int(domain.runs[run + 1, 0]) if run + 1 < len(domain.runs) else domain.length
        if number not in maps:
            files = domain.files(number)
            maps[number] = map_tokens(files, read_record(files))
        pieces.append(maps[number][offset + start - position : offset + min(end, stop) - position])
        start, run = min(end, stop), run + 1
    return np.concatenate(pieces)
