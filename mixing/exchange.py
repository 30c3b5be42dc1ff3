"""Token shards from and to other tools: datatrove's `.ds` and Megatron's `.bin`/`.idx`.

datatrove: `NAME.ds` flat uint16 or uint32, `NAME.ds.index` the token offset after each document (uint64),
`NAME.ds.metadata` text. Megatron: `NAME.bin` flat tokens, `NAME.idx` a header (`MMIDIDX`, version 1, type, counts), the
length of each sequence (int32), its byte offset (int64) and the sequences at which documents begin (int64).
Layouts as read and written by datatrove 0.10.1 and Megatron-LM's indexed_dataset.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixing.domains import DomainTokens
from mixing.shards import TokenShardError, map_tokens, read_record
from mixing.token_import import ForeignTokens

_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {1: "u1", 4: "<i4", 5: "<i8", 8: "<u2"}
_ROWS = 4096


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
    if len(ends) and (ends[0] < 0 or (np.diff(ends) < 0).any()):
        raise TokenShardError(f"{index}: the ends of its documents do not rise; it is damaged or another kind of index")
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
    first, last = (int(bounds[0]), int(bounds[-1])) if num_bounds else (0, 0)
    if (lengths < 0).any() or (first, last) != (0, num_sequences) or (np.diff(bounds) < 0).any():
        raise TokenShardError(
            f"{path}.idx: its documents hold sequences {first} to {last} of {num_sequences}, which must be all of them "
            "in rising order: it is damaged"
        )
    if not np.array_equal(offsets, ends[:-1] * dtype.itemsize):
        raise TokenShardError(f"{path}.idx: sequences do not lie one after the other; merge them with Megatron's tool")
    size, wanted = path.with_name(path.name + ".bin").stat().st_size, int(ends[-1]) * dtype.itemsize
    if size != wanted:
        raise TokenShardError(f"{path}.bin: {size} bytes, but the {ends[-1]} tokens of its index need {wanted}")
    tokens = np.memmap(path.with_name(path.name + ".bin"), dtype, "r") if wanted else np.zeros(0, dtype)
    return ForeignTokens(tokens, ends[bounds[1:]])


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
