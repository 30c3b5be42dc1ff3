"""Ready token shards become token shards of a run: by format, and refused where they are not whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mixing.document_ids import DocumentIds, ids_path
from mixing.domains import build_domain_index
from mixing.exchange import export_datatrove, export_megatron
from mixing.selections import Selection
from mixing.shards import ShardFiles, TokenShardError, read_documents, read_record
from mixing.token_source import ImportOptions, TokenFile, make_imported

TEXTS = ["3 4", "6", "7 8 9"]
TOKENS = [3, 4, 0, 6, 0, 7, 8, 9, 0]


class Written:
    """An output whose files stay where they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, suffix: str) -> Path:
        return self.folder / f"made{suffix}"


@pytest.fixture
def ready(make_shard, number_tokenizer, tmp_path):
    """The same documents in each format."""
    files = make_shard("web", "a", TEXTS)
    build_domain_index([files], Selection("web"), tmp_path / "index")
    export_datatrove(tmp_path / "index", tmp_path / "web.ds")
    export_megatron(tmp_path / "index", tmp_path / "web")
    shutil.copy(files.tokens_path, tmp_path / "own.tokens")
    shutil.copy(files.documents_path, tmp_path / "own.documents.parquet")
    number_tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<end>", "bos_token": "<begin>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(str(config).replace("'", '"'))
    return tmp_path


def imported(folder, kind, name):
    options = ImportOptions(kind, "CC0-1.0", str(folder))
    counts = make_imported(TokenFile("web", name, str(folder / name)), options, Written(folder))
    files = ShardFiles("web", name, folder / "made.tokens", folder / "made.documents.parquet")
    return counts, files


@pytest.mark.parametrize(("kind", "name"), [("ds", "web.ds"), ("megatron", "web.bin"), ("tokens", "own.tokens")])
def test_ready_tokens_of_any_format_are_the_same_shard(ready, kind, name):
    counts, files = imported(ready, kind, name)
    assert counts == {"documents": 3, "tokens": 9, "characters": 9, "bytes": 9}
    assert read_record(files, verify=True).eos == 0
    assert np.fromfile(files.tokens_path, "<u2").tolist() == TOKENS
    rows = [row for batch in read_documents(files) for row in batch.to_pylist()]
    assert [(row["row"], row["end"]) for row in rows] == [(0, 3), (1, 5), (2, 9)]
    ids = DocumentIds.open(ids_path(files))  # by which trace finds a document
    assert [ids.id_of(row["row"]) for row in rows] == [row["content_id"].hex() for row in rows]
    assert all(row["licence"] == "CC0-1.0" for row in rows) or kind == "tokens"


@pytest.mark.parametrize(
    ("kind", "name", "part"),
    [
        ("ds", "web.ds", "web.ds"), ("megatron", "web.bin", "web.bin"), ("megatron", "web.bin", "web.idx"),
        ("tokens", "own.tokens", "own.tokens"),
    ],
)  # fmt: skip
def test_ready_tokens_cut_by_a_byte_are_refused_by_name(ready, kind, name, part):
    path = ready / part
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TokenShardError, match=part):
        imported(ready, kind, name)


def test_ready_tokens_with_a_flipped_bit_are_refused(ready):
    stored = bytearray((ready / "own.tokens").read_bytes())
    stored[0] ^= 1
    (ready / "own.tokens").write_bytes(stored)
    with pytest.raises(TokenShardError, match="checksum"):
        imported(ready, "tokens", "own.tokens")


@pytest.mark.parametrize(("kind", "name"), [("ds", "web.ds"), ("megatron", "web.bin")])
def test_ready_tokens_above_the_vocabulary_are_refused_by_name(ready, kind, name):
    tokens = np.fromfile(ready / name, "<u2")
    tokens[1] = 60_000
    tokens.tofile(ready / name)
    with pytest.raises(TokenShardError, match=rf"{name}.*60000"):
        imported(ready, kind, name)


def test_ready_tokens_without_their_index_are_refused(ready):
    (ready / "web.idx").unlink()
    with pytest.raises(TokenShardError, match=r"web\.idx is missing"):
        imported(ready, "megatron", "web.bin")


def test_own_tokens_of_another_tokenizer_are_refused(ready):
    text = (ready / "tokenizer.json").read_text()
    (ready / "tokenizer.json").write_text(text.replace('"4999"', '"4999x"'))
    with pytest.raises(TokenShardError, match="name the one that wrote it"):
        imported(ready, "tokens", "own.tokens")
