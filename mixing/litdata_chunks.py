"""Token chunks of litdata, read by their layout: `index.json` lists the chunks of its folder.

A chunk holds the number of documents, where each begins and ends (uint32, bytes from the file's start), and their
tokens one after the other. Only what `optimize(…, item_loader=TokensLoader())` writes is such a folder; items of other
shapes (dictionaries, pieces of a file, compressed or encrypted chunks) are refused by name. Layout as litdata 0.2.76.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mixing.shards import TokenShardError
from mixing.token_import import ForeignTokens

INDEX = "index.json"
# litdata's numbers of whole types, as torch and as numpy name them; 15 and 16 are both torch.int32.
_TORCH = {11: "u1", 12: "i1", 13: "<i2", 14: "<i2", 15: "<i4", 16: "<i4", 17: "<i8", 18: "<i8", 20: "<u2"}
_NUMPY = {0: "i1", 1: "<i2", 2: "<i4", 3: "<i8", 4: "u1", 5: "<u2", 6: "<u4", 7: "<u8"}
_AGAIN = "write the set again with optimize(…, item_loader=TokensLoader())"


def chunk_names(folder: Path) -> list[str]:
    """Names of the chunks that a folder's index lists, in its order."""
    return [str(chunk["filename"]) for chunk in _index(folder)["chunks"]]


def read_litdata(path: str | Path) -> ForeignTokens:
    """Map a chunk by the `index.json` beside it.

    Raises:
        TokenShardError: if the index is missing or does not list the chunk, the chunk is compressed, encrypted, cut or
            holds other things than whole numbers.
    """
    path = Path(path)
    index = _index(path.parent)
    dtype = _dtype_of(index["config"], path.parent / INDEX)
    listed = next((chunk for chunk in index["chunks"] if chunk["filename"] == path.name), None)
    if listed is None:
        raise TokenShardError(f"{path.parent / INDEX}: does not list {path.name}; name the folder, not a chunk")
    number, tokens = int(listed["chunk_size"]), int(listed["dim"] or 0)
    head = 4 * (number + 2)
    if listed["dim"] is None:
        raise TokenShardError(f"{path.parent / INDEX}: no number of tokens for {path.name}; {_AGAIN}")
    wanted, size = head + tokens * dtype.itemsize, path.stat().st_size
    if size != wanted:
        raise TokenShardError(
            f"{path}: {size} bytes, but {number} documents with {tokens} tokens of {dtype.itemsize} bytes need {wanted}"
        )
    stored = np.fromfile(path, "<u4", number + 2)
    ends = (stored[1:].astype(np.int64) - head) // dtype.itemsize
    offsets = head + ends * dtype.itemsize
    if stored[0] != number or ends[0] != 0 or ends[-1] != tokens or not np.array_equal(offsets, stored[1:]):
        raise TokenShardError(f"{path}: its table of {number} documents does not fit its tokens: the file was changed")
    if (np.diff(ends) < 0).any():
        raise TokenShardError(f"{path}: its table of {number} documents runs backwards: the file was changed")
    mapped = np.memmap(path, dtype, "r", head, (tokens,)) if tokens else np.zeros(0, dtype)
    return ForeignTokens(mapped, ends[1:])


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TokenShardError(f"{path}: missing; litdata writes it last, so this set was never finished") from None
    except ValueError as error:
        raise TokenShardError(f"{path}: not JSON: {error}") from None
    if not isinstance(index, dict) or not isinstance(index.get("chunks"), list) or not index.get("config"):
        raise TokenShardError(f"{path}: not an index of litdata: it has no `chunks` and `config`")
    return index


def _dtype_of(config: dict[str, Any], where: Path) -> np.dtype[Any]:
    """The type of the tokens, where the set is one that can be read.

    Raises:
        TokenShardError: if it is compressed, encrypted or no set of tokens.
    """
    compression = config.get("compression") or config.get("ipc_compression")
    if compression:
        raise TokenShardError(f"{where}: compressed ({compression}); write it again without `compression`")
    if config.get("encryption"):
        raise TokenShardError(f"{where}: encrypted; write it again without `encryption`")
    loader, formats = config.get("item_loader"), config.get("data_format") or []
    name, _, code = str(formats[0] if len(formats) == 1 else "").partition(":")
    known = {"no_header_tensor": _TORCH, "no_header_numpy": _NUMPY}.get(name)
    if known is None or loader not in (None, "TokensLoader"):
        raise TokenShardError(f"{where}: items are {formats} for {loader}, not one row of tokens each; {_AGAIN}")
    if not code.isdigit() or int(code) not in known:
        raise TokenShardError(f"{where}: items are {formats[0]}, not whole numbers of 1 to 8 bytes")
    return np.dtype(known[int(code)])
