"""Ready token shards become token shards of a run: by format, and refused where they are not whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixing.document_ids import DocumentIds, ids_path
from mixing.domains import DomainTokens, build_domain_index
from mixing.exchange import export_datatrove, export_megatron
from mixing.exchange_rows import export_litdata, export_parquet
from mixing.selections import Selection, count_parts
from mixing.shards import ShardFiles, TokenShardError, read_documents, read_record
from mixing.token_source import ImportOptions, TokenFile, columns_of, files_in, make_imported

TEXTS = ["3 4", "6", "7 8 9"]
TOKENS = [3, 4, 0, 6, 0, 7, 8, 9, 0]


class Written:
    """An output whose files stay where they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, suffix: str) -> Path:
        return self.folder / f"made{suffix}"


def write_stream(path, table):
    """An Arrow stream as `save_to_disk` writes it."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)


@pytest.fixture
def ready(make_shard, number_tokenizer, tmp_path):
    """The same documents in each format."""
    files = make_shard("web", "a", TEXTS)
    build_domain_index([files], Selection("web"), tmp_path / "index")
    export_datatrove(tmp_path / "index", tmp_path / "web.ds")
    export_megatron(tmp_path / "index", tmp_path / "web")
    export_litdata(tmp_path / "index", tmp_path / "lit")
    export_parquet(tmp_path / "index", tmp_path / "web.parquet")
    write_stream(tmp_path / "web.arrow", pq.read_table(tmp_path / "web.parquet"))
    shutil.copy(files.tokens_path, tmp_path / "own.tokens")
    shutil.copy(files.documents_path, tmp_path / "own.documents.parquet")
    number_tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<end>", "bos_token": "<begin>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(str(config).replace("'", '"'))
    return tmp_path


def imported(folder, kind, name, **changes):
    options = ImportOptions(kind, "CC0-1.0", str(folder), **changes)
    counts = make_imported(TokenFile("web", name, str(folder / name)), options, Written(folder))
    files = ShardFiles("web", name, folder / "made.tokens", folder / "made.documents.parquet")
    return counts, files


CHUNK = "lit/chunk-0-0.bin"
FILES = [
    ("ds", "web.ds"), ("megatron", "web.bin"), ("tokens", "own.tokens"), ("litdata", CHUNK),
    ("datasets", "web.parquet"), ("datasets", "web.arrow"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), FILES)
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
        ("tokens", "own.tokens", "own.tokens"), ("litdata", CHUNK, CHUNK), ("litdata", CHUNK, "lit/index.json"),
        ("datasets", "web.parquet", "web.parquet"), ("datasets", "web.arrow", "web.arrow"),
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


@pytest.mark.parametrize(
    ("kind", "name", "place"), [("ds", "web.ds", 1), ("megatron", "web.bin", 1), ("litdata", CHUNK, 11)]
)
def test_ready_tokens_above_the_vocabulary_are_refused_by_name(ready, kind, name, place):
    tokens = np.fromfile(ready / name, "<u2")
    tokens[place] = 60_000
    tokens.tofile(ready / name)
    with pytest.raises(TokenShardError, match=rf"{name}.*60000"):
        imported(ready, kind, name)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([[3, 0], [4, -100]]), "documents 0 to 1: token id -100 at 3"),
        (pa.array([[3, 0], [4, 70_000]]), "documents 0 to 1: token id 70000 at 3"),
        (pa.array([[3, 0], None]), "row 1: its input_ids are null"),
        (pa.array([[3, 0], [4, None]]), "row 1: one of its input_ids is null"),
        (pa.array([[3.0], [4.0]]), "holds list.*double.*, not lists of whole numbers"),
        (pa.array(["3 0", "4 0"]), "holds string, not lists of whole numbers"),
        (pa.array([[[3]], [[4]]]), "not lists of whole numbers"),
    ],
)
def test_rows_that_are_no_token_ids_are_refused_by_name(ready, name, column, told):
    table = pa.table({"input_ids": column})
    pq.write_table(table, ready / "rows.parquet")
    write_stream(ready / "rows.arrow", table)
    with pytest.raises(TokenShardError, match=rf"{name}.*{told}"):
        imported(ready, "datasets", name)


@pytest.mark.parametrize("kind", [pa.list_(pa.uint16()), pa.large_list(pa.int64()), pa.list_(pa.int32(), 2)])
def test_rows_of_any_list_of_whole_numbers_are_read(ready, kind):
    table = pa.table({"ids": pa.array([[3, 0], [4, 0]], kind), "license": ["MIT", None], "text": ["3", "4"]})
    pq.write_table(table, ready / "rows.parquet")
    with pytest.raises(TokenShardError, match=r"no column 'input_ids'.*known: ids, license, text"):
        imported(ready, "datasets", "rows.parquet")
    fields = (("licence", "license"), ("tokens", "ids"))
    counts, files = imported(ready, "datasets", "rows.parquet", fields=fields)
    assert counts["tokens"] == 4
    assert np.fromfile(files.tokens_path, "<u2").tolist() == [3, 0, 4, 0]
    (rows,) = read_documents(files)
    assert rows["licence"].to_pylist() == ["MIT", "CC0-1.0"]


def test_columns_of_numbers_stay_beside_the_tokens_and_one_column_splits(ready):
    table = pa.table(
        {
            "input_ids": [[3, 4, 0], [6, 0], [7, 8, 9, 0]], "quality": [0.5, None, 0.25], "topic": ["x", None, "y"],
            "size_bytes": [99, 99, 99],
        }
    )  # fmt: skip
    pq.write_table(table, ready / "rows.parquet")
    assert list(columns_of("datasets", str(ready / "rows.parquet"))) == ["quality", "topic", "size_bytes"]
    _, files = imported(ready, "datasets", "rows.parquet", split="topic")
    (rows,) = read_documents(files)
    assert rows["quality"].to_pylist() == [0.5, None, 0.25]
    assert rows["size_bytes"].to_pylist() == [3, 1, 5]  # ours: a column of that name is not what it says
    assert count_parts([files], "part") == {"unknown": 2, "x": 3, "y": 4}
    with pytest.raises(TokenShardError, match="no column 'topik' to split by; there are quality, "):
        imported(ready, "datasets", "rows.parquet", split="topik")


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_sample_of_ready_tokens_is_nested_and_the_same_of_every_format(make_shard, ready, kind, name):
    texts = [f"{number} {number + 1}" for number in range(3, 400)]
    files = make_shard("many", "a", texts)
    build_domain_index([files], Selection("many"), ready / "index")
    for path in (ready / "lit").iterdir():
        path.unlink()
    export_datatrove(ready / "index", ready / "web.ds")
    export_megatron(ready / "index", ready / "web")
    export_litdata(ready / "index", ready / "lit")
    export_parquet(ready / "index", ready / "web.parquet")
    write_stream(ready / "web.arrow", pq.read_table(ready / "web.parquet"))
    _, files = imported(ready, "ds", "web.ds")
    for suffix in (".tokens", ".documents.parquet"):  # with content ids of the text, as an import has them
        shutil.copy(files.tokens_path.with_suffix(suffix), ready / f"own{suffix}")
    taken = []
    for share in (0.1, 0.4):
        counts, files = imported(ready, kind, name, sample=share)
        rows = [row for batch in read_documents(files) for row in batch.to_pylist()]
        tokens = np.fromfile(files.tokens_path, "<u2").tolist()
        assert read_record(files, verify=True).num_tokens == counts["tokens"] == len(tokens)
        assert [tokens[row["end"] - 3] for row in rows] == [row["row"] + 3 for row in rows]
        taken.append({row["row"] for row in rows})
    assert taken[0] < taken[1]
    assert 130 < len(taken[1]) < 190  # of 397
    _, files = imported(ready, "megatron", "web.bin", sample=0.4)
    assert {row for batch in read_documents(files) for row in batch["row"].to_pylist()} == taken[1]


def test_own_tokens_are_split_by_a_column_of_their_documents(make_shard, ready):
    files = make_shard("web", "b", [{"text": "3 4", "bucket": "x"}, {"text": "6", "bucket": "y"}])
    shutil.copy(files.tokens_path, ready / "own.tokens")
    shutil.copy(files.documents_path, ready / "own.documents.parquet")
    assert "bucket" in columns_of("tokens", str(ready / "own.tokens"))
    _, made = imported(ready, "tokens", "own.tokens", split="bucket")
    assert count_parts([made], "part") == {"x": 3, "y": 2}
    assert made.tokens_path.read_bytes() == files.tokens_path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"compression": "zstd"}, "compressed .zstd.; write it again without"),
        ({"ipc_compression": "zstd"}, "compressed"),
        ({"encryption": {"algorithm": "fernet"}}, "encrypted; write it again without"),
        ({"item_loader": "PyTreeLoader"}, r"not one row of tokens each; .*TokensLoader\(\)"),
        ({"data_format": ["no_header_tensor:1"]}, "no_header_tensor:1, not whole numbers"),
        ({"data_format": ["no_header_tensor:20", "int"]}, "not one row of tokens each"),
        (
            {"data_format": ["no_header_tensor:15"]},
            r"chunk-0-0.bin: 38 bytes, but 3 documents with 9 tokens of 4 bytes",
        ),
        ({"data_format": ["no_header_numpy:5"]}, None),
    ],
)
def test_chunks_that_hold_other_things_than_tokens_are_refused(ready, changes, told):
    path = ready / "lit" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "config": {**index["config"], **changes}}))
    if told is None:
        assert imported(ready, "litdata", CHUNK)[0]["tokens"] == 9
        return
    with pytest.raises(TokenShardError, match=told):
        imported(ready, "litdata", CHUNK)


def test_chunks_whose_table_was_changed_or_that_are_not_listed_are_refused(ready):
    stored = bytearray((ready / CHUNK).read_bytes())
    stored[8] ^= 1
    (ready / CHUNK).write_bytes(stored)
    with pytest.raises(TokenShardError, match="its table of 3 documents does not fit"):
        imported(ready, "litdata", CHUNK)
    shutil.copy(ready / CHUNK, ready / "lit" / "chunk-0-9.bin")
    with pytest.raises(TokenShardError, match="does not list chunk-0-9"):
        imported(ready, "litdata", "lit/chunk-0-9.bin")
    (ready / "lit" / "index.json").unlink()
    with pytest.raises(TokenShardError, match=r"index\.json is missing"):
        imported(ready, "litdata", CHUNK)
    with pytest.raises(TokenShardError, match="this set was never finished"):
        files_in("litdata", ready / "lit")


def test_datasets_that_were_saved_to_disk_are_read_without_the_library(ready):
    datasets = pytest.importorskip("datasets", reason="writing what `datasets` saves needs it")
    rows = {"input_ids": [[3, 4, 0], [6, 0], [7, 8, 9, 0]], "quality": [0.5, 0.75, 0.25]}
    saved = datasets.Dataset.from_dict(rows)
    saved.save_to_disk(ready / "saved", num_shards=2)
    found = [
        np.fromfile(imported(ready, "datasets", f"saved/{path.name}")[1].tokens_path, "<u2").tolist()
        for path in files_in("datasets", ready / "saved")
    ]
    assert found == [[3, 4, 0, 6, 0], [7, 8, 9, 0]]
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(ready / "both")
    with pytest.raises(TokenShardError, match="a DatasetDict of train, test; name one of them, such as both/train"):
        files_in("datasets", ready / "both")


def test_ready_tokens_without_their_index_are_refused(ready):
    (ready / "web.idx").unlink()
    with pytest.raises(TokenShardError, match=r"web\.idx is missing"):
        imported(ready, "megatron", "web.bin")


def test_own_tokens_of_another_tokenizer_are_refused(ready):
    text = (ready / "tokenizer.json").read_text()
    (ready / "tokenizer.json").write_text(text.replace('"4999"', '"4999x"'))
    with pytest.raises(TokenShardError, match="name the one that wrote it"):
        imported(ready, "tokens", "own.tokens")


@pytest.mark.parametrize(
    ("last", "eos"), [([], 0), ([[8, 9, 0], []], 0), ([[]], 0), ([[8, 9, 0], [10, 11]], None)]
)  # fmt: skip
def test_shards_of_one_source_may_end_differently_or_be_empty(ready, last, eos):
    made = []
    for name, documents in {"a": [[3, 4, 0], [5, 0]], "b": last}.items():
        np.array([token for document in documents for token in document], "<u2").tofile(ready / f"{name}.ds")
        np.cumsum([len(document) for document in documents]).astype("<u8").tofile(ready / f"{name}.ds.index")
        (ready / name).mkdir()
        options = ImportOptions("ds", "CC0-1.0", str(ready))
        make_imported(TokenFile("web", name, str(ready / f"{name}.ds")), options, Written(ready / name))
        made.append(ShardFiles("web", name, ready / name / "made.tokens", ready / name / "made.documents.parquet"))
    counts = build_domain_index(made, Selection("web"), ready / "both")
    assert counts["num_documents"] == 2 + len(last)
    assert DomainTokens.open(ready / "both").footer.eos == eos
