"""Small token shards made by hand: a tokenizer whose ids are the numbers in the text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from mixing.shards import ShardFiles, write_token_shard
from mixing.tokenizer import load_tokenizer


def made_number_tokenizer(folder: Path, vocabulary: int):
    """`7 8 9` is encoded as 7, 8, 9; id 0 ends a document, id 1 begins one, id 2 is padding and unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {"<end>": 0, "<begin>": 1, "<pad>": 2} | {str(number): number for number in range(3, vocabulary)}
    encoder = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    encoder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder.add_special_tokens(["<end>", "<begin>", "<pad>"])
    encoder.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "<end>", "bos_token": "<begin>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return load_tokenizer(folder)


def content_id_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def made_rows(documents, first_row: int = 0) -> pa.RecordBatch:
    """Rows of a token shard from texts, or mappings with text and any of row, content_id, cluster, bucket."""
    rows = [{"text": document} if isinstance(document, str) else document for document in documents]
    columns = {
        "row": pa.array([row.get("row", first_row + number) for number, row in enumerate(rows)], pa.int64()),
        "text": pa.array([row["text"] for row in rows], pa.large_string()),
        "content_id": pa.array(
            [row.get("content_id", content_id_of(row["text"] or "")) for row in rows], pa.binary(16)
        ),
        "cluster": pa.array([row.get("cluster") for row in rows], pa.binary(16)),
        "bucket": pa.array([row.get("bucket") for row in rows], pa.string()),
    }
    return pa.record_batch(columns)


@pytest.fixture(scope="session")
def number_tokenizer(tmp_path_factory):
    return made_number_tokenizer(tmp_path_factory.mktemp("numbers") / "tokenizer", 5000)


@pytest.fixture
def make_shard(tmp_path, number_tokenizer):
    """Make a token shard of a source from documents; options as for `write_token_shard`."""

    def make(
        source: str, shard: str, documents, *, tokenizer=None, rows_per_batch: int = 1000, **options
    ) -> ShardFiles:
        files = ShardFiles(source, shard, tmp_path / f"{source}-{shard}.tokens", tmp_path / f"{source}-{shard}.parquet")
        rows = made_rows(documents)
        batches = [rows.slice(start, rows_per_batch) for start in range(0, rows.num_rows, rows_per_batch)]
        write_token_shard(batches, tokenizer or number_tokenizer, files.tokens_path, files.documents_path, **options)
        return files

    return make


@pytest.fixture(scope="session")
def numbers_text():
    """Text of some numbers: `numbers_text(3, 6)` is `3 4 5`."""
    return lambda start, stop: " ".join(map(str, range(start, stop)))
