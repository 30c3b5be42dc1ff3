"""Token shards to tools that read rows or chunks: litdata's token chunks, and Parquet for Hugging Face datasets.

litdata: `chunk-0-N.bin` holds the number of documents, where each begins and ends (uint32, bytes from the file's start)
and their tokens; `index.json` lists the chunks. `litdata.TokensLoader(block_size=…)` cuts each chunk into windows, so
what is left at a chunk's end is lost there: chunks are large. Layout as written by litdata 0.2.76.
Parquet: a row for each document: `input_ids` (list of int32), `source`, `shard`, `row`, for Hugging Face.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixing.domain_index import shard_of
from mixing.domains import DomainTokens
from mixing.exchange import contiguous, documents_of

_CHUNK_BYTES = 1 << 28
_TORCH_INT32, _TORCH_UINT16 = 15, 20  # litdata's numbers of torch's types


def export_litdata(index_path: str | Path, folder: str | Path, *, chunk_bytes: int = _CHUNK_BYTES) -> dict[str, int]:
    """Write a domain's documents, in its order, as a folder that litdata's StreamingDataset opens.

    Memory grows with a chunk (it starts with where its documents lie), not with the domain.

    Args:
        index_path: contiguous index.
        folder: made; must be empty.
        chunk_bytes: bytes of tokens of a chunk, below 4 GiB; a longer document makes a larger one.

    Returns:
        num_documents, num_tokens, num_chunks.
    """
    domain, folder = contiguous(index_path), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wide = any(np.dtype(shard.dtype).itemsize > 2 for shard in domain.footer.shards)
    kind, number = ("<i4", _TORCH_INT32) if wide else ("<u2", _TORCH_UINT16)
    chunks: list[dict[str, Any]] = []
    for tokens, ends in _chunks(domain, chunk_bytes // np.dtype(kind).itemsize):
        name = f"chunk-0-{len(chunks)}.bin"
        size, width = _write_chunk(folder / name, tokens.astype(kind), ends), len(ends)
        chunks.append({"chunk_bytes": size, "chunk_size": width, "dim": len(tokens), "filename": name})
    config: dict[str, Any] = {
        "chunk_bytes": chunk_bytes, "chunk_size": None, "compression": None, "encryption": None,
        "data_format": [f"no_header_tensor:{number}"], "item_loader": "TokensLoader",
        "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}, sort_keys=True))
    return {
        "num_documents": domain.footer.num_documents, "num_tokens": domain.num_tokens, "num_chunks": len(chunks),
    }  # fmt: skip


def _chunks(domain: DomainTokens, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens of whole documents, at most `most` together (or one longer document), and the end of each, int64."""
    held: list[np.ndarray] = []
    lengths: list[int] = []
    together = 0
    for tokens, begins, ends in documents_of(domain):
        for begin, end in zip((begins - begins[0]).tolist(), (ends - begins[0]).tolist()):
            if lengths and together + end - begin > most:
                yield np.concatenate(held), np.cumsum(lengths)
                held, lengths, together = [], [], 0
            together += end - begin
            held.append(tokens[begin:end])
            lengths.append(end - begin)
    if lengths:
        yield np.concatenate(held), np.cumsum(lengths)


def _write_chunk(path: Path, tokens: np.ndarray, ends: np.ndarray) -> int:
    """Write a chunk; return its bytes."""
    head = 4 * (len(ends) + 2)
    offsets = head + np.concatenate(([0], ends)) * tokens.itemsize
    with path.open("wb") as chunk:
        chunk.write(np.uint32(len(ends)).tobytes() + offsets.astype("<u4").tobytes())
        chunk.write(tokens.tobytes())
    return head + tokens.nbytes


def export_parquet(index_path: str | Path, path: str | Path) -> dict[str, int]:
    """Write a domain's documents, in its order, as a Parquet file; memory grows with a group of documents.

    An empty document is no row: it holds nothing to draw, and lies in no run that would tell its shard.

    Returns:
        num_documents (rows written), num_tokens.
    """
    domain = contiguous(index_path)
    first = written = 0
    with pq.ParquetWriter(path, _ROWS_SCHEMA, compression="zstd") as writer:
        for tokens, begins, ends in documents_of(domain):
            rows = _rows(domain, tokens, begins, ends, first)
            writer.write_batch(rows)
            first, written = first + len(begins), written + rows.num_rows
    return {"num_documents": written, "num_tokens": domain.num_tokens}


_ROWS_SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("source", pa.string()), ("shard", pa.string()), ("row", pa.int64())]
)


def _rows(domain: DomainTokens, tokens: np.ndarray, begins: np.ndarray, ends: np.ndarray, first: int) -> pa.RecordBatch:
    """Rows of those of some documents that hold tokens; the first document is number `first` of the domain."""
    full = begins < ends
    rows = np.asarray(domain.documents[first : first + len(begins), 1])[full]
    begins, ends = begins[full], ends[full]
    runs = np.searchsorted(domain.runs[:, 0], begins, side="right") - 1
    shards = [domain.footer.shards[number] for number in shard_of(np.asarray(domain.runs)[runs, 1]).tolist()]
    offsets = np.append(0, np.cumsum(ends - begins))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(tokens.astype(np.int32)))
    columns = [
        lists,
        pa.array([s.source for s in shards], pa.string()),
        pa.array([s.shard for s in shards], pa.string()),
        pa.array(rows),
    ]
    return pa.record_batch(columns, schema=_ROWS_SCHEMA)
