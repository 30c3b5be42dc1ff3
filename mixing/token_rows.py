"""Hugging Face datasets with a column of token ids: Arrow files of `save_to_disk`, and Parquet.

A row is a document. A folder of `save_to_disk` holds `state.json`, which lists its Arrow files (IPC streams); a
`DatasetDict` is a folder of such folders. Layouts as datasets 5.2 writes them, read without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.fields import did_you_mean
from mixing.shards import TokenShardError
from mixing.token_import import ForeignDocuments

TOKENS = "input_ids"
STATE, SPLITS = "state.json", "dataset_dict.json"
_ROWS = 1024
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NESTED_OR_LONG = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary)
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an Arrow stream that was written to its end


def saved_files(folder: Path) -> list[str]:
    """Names of the Arrow files of a folder that `save_to_disk` wrote, in order.

    Raises:
        TokenShardError: for a `DatasetDict`, whose parts have to be named, and for rows that were chosen by a table.
    """
    if (folder / SPLITS).exists():
        splits = json.loads((folder / SPLITS).read_text(encoding="utf-8")).get("splits", [])
        named = f"{folder.name}/{splits[0] if splits else 'train'}"
        raise TokenShardError(f"{folder}: a DatasetDict of {', '.join(splits)}; name one of them, such as {named}")
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise TokenShardError(f"{folder}: its rows are chosen by a table of indices; save it after flatten_indices()")
    return [str(one["filename"]) for one in state.get("_data_files", [])]


def columns_beside(path: str | Path, tokens: str = TOKENS) -> dict[str, pa.DataType]:
    """Columns beside the tokens of a file, with their types; lists and bytes are left out.

    Raises:
        TokenShardError: if there is no such column of tokens, or the file cannot be read.
    """
    with _opened(Path(path)) as (schema, _):
        _check(Path(path), schema, tokens)
        return {
            one.name: one.type
            for one in schema
            if one.name != tokens and not any(is_kind(one.type) for is_kind in _NESTED_OR_LONG)
        }


def read_rows(path: str | Path, tokens: str = TOKENS, columns: tuple[str, ...] = ()) -> Iterator[ForeignDocuments]:
    """Documents of an Arrow or Parquet file, in groups of rows. Memory grows with a group as it is stored.

    Args:
        path: the file.
        tokens: column of lists of token ids.
        columns: what is wanted beside them; those that the file does not have are left out.

    Raises:
        TokenShardError: if the file is cut, or the column is missing, null, or holds anything but whole numbers.
    """
    path = Path(path)
    with _opened(path) as (schema, source):
        _check(path, schema, tokens)
        wanted = [name for name in schema.names if name in columns]
        if isinstance(source, pq.ParquetFile):
            groups = source.iter_batches(_ROWS, columns=[tokens, *wanted], use_threads=False)
        else:
            groups = (part for batch in source for part in _slices(batch))
        first = 0
        for batch in groups:
            ids, ends = _ids_of(path, batch[tokens], tokens, first)
            yield ForeignDocuments(ids, ends, {name: batch[name] for name in wanted})
            first += batch.num_rows


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _ROWS):
        yield batch.slice(start, _ROWS)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, pq.ParquetFile | pa.RecordBatchReader]]:
    """The schema of a file and what its rows are read from; Arrow's and Parquet's errors name the file."""
    try:
        with path.open("rb") as file:
            begin = file.read(6)
            file.seek(max(-8, -path.stat().st_size), 2)
            end = file.read()
        if begin[:4] == b"PAR1":
            with pq.ParquetFile(path) as parquet:
                yield parquet.schema_arrow, parquet
            return
        if begin == b"ARROW1":
            raise TokenShardError(f"{path}: an Arrow file, not a stream as save_to_disk writes it; save it as Parquet")
        if end != _END:
            raise TokenShardError(f"{path}: cut, or neither Parquet nor an Arrow stream: its end is missing")
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
            yield stream.schema, stream
    except (pa.ArrowException, OSError) as error:
        raise TokenShardError(f"{path}: cannot be read: {error}") from None


def _check(path: Path, schema: pa.Schema, tokens: str) -> None:
    if tokens not in schema.names:
        named = did_you_mean(tokens, schema.names)
        raise TokenShardError(f"{path}: no column {tokens!r}{named}; say it with fields: {{tokens: COLUMN}}")
    kind = schema.field(tokens).type
    if not any(is_list(kind) for is_list in _LISTS) or not pa.types.is_integer(kind.value_type):
        raise TokenShardError(f"{path}: column {tokens!r} holds {kind}, not lists of whole numbers (token ids)")


def _ids_of(path: Path, column: pa.Array, tokens: str, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of some rows one after the other, and the offset after each, int64 (rows,)."""
    if column.null_count:
        row = first + column.is_null().index(True).as_py()
        raise TokenShardError(f"{path}: row {row}: its {tokens} are null")
    ids = column.flatten()
    ends = np.cumsum(pc.list_value_length(column).to_numpy(zero_copy_only=False), dtype=np.int64)
    if ids.null_count:
        row = first + int(np.searchsorted(ends, ids.is_null().index(True).as_py(), side="right"))
        raise TokenShardError(f"{path}: row {row}: one of its {tokens} is null")
    return ids.to_numpy(), ends
