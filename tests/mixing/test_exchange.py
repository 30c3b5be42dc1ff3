from __future__ import annotations

import json
import os
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

from mixing.domains import build_domain_index
from mixing.exchange import export_datatrove, export_megatron, read_datatrove, read_megatron
from mixing.exchange_rows import export_litdata, export_parquet
from mixing.litdata_chunks import chunk_names, read_litdata
from mixing.selections import Selection
from mixing.shards import ShardFiles, TokenShardError, read_documents, read_record
from mixing.token_import import documents_in, import_documents


@pytest.fixture
def domain(make_shard, tmp_path):
    """Part x of two shards: tokens 3 4 0 | 6 0 | 0 | 7 8 9 0."""
    first = [{"text": "3 4", "bucket": "x"}, {"text": "5", "bucket": "y"}, {"text": "6", "bucket": "x"}]
    second = [{"text": "", "bucket": "x"}, {"text": "7 8 9", "bucket": "x"}]
    shards = [make_shard("web", "a", first), make_shard("web", "b", second)]
    build_domain_index(shards, Selection("web", "bucket", "x"), tmp_path / "domain")
    return tmp_path / "domain"


TOKENS = [3, 4, 0, 6, 0, 0, 7, 8, 9, 0]
ENDS = [3, 5, 6, 10]


def test_datatrove_export_has_its_layout(domain, tmp_path):
    assert export_datatrove(domain, tmp_path / "out.ds") == {"num_documents": 4, "num_tokens": 10}
    assert np.fromfile(tmp_path / "out.ds", "<u2").tolist() == TOKENS
    assert np.fromfile(tmp_path / "out.ds.index", "<u8").tolist() == ENDS
    assert (tmp_path / "out.ds.metadata").read_text().splitlines()[:2] == ["gristmill|2", "10"]


@pytest.mark.slow  # imports torch
def test_datatrove_reads_what_is_exported(domain, tmp_path):
    pytest.importorskip("torch", reason="datatrove's dataset needs torch")
    from datatrove.utils.dataset import DatatroveFileDataset

    export_datatrove(domain, tmp_path / "out.ds")
    windows = DatatroveFileDataset(str(tmp_path / "out.ds"), seq_len=4, token_size=2)
    assert windows[1]["input_ids"].tolist() == TOKENS[5:10]


def test_datatrove_writes_what_is_read(tmp_path, number_tokenizer):
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    written = TokenizedFile(str(tmp_path), "in.ds")
    for document in ([3, 4, 0], [5, 0]):
        written.write(document, None)
    written.close()
    foreign = read_datatrove(tmp_path / "in.ds")
    assert (foreign.tokens.tolist(), foreign.ends.tolist()) == ([3, 4, 0, 5, 0], [3, 5])


def test_megatron_export_has_its_layout(domain, tmp_path):
    export_megatron(domain, tmp_path / "out")
    assert np.fromfile(tmp_path / "out.bin", "<u2").tolist() == TOKENS
    index = (tmp_path / "out.idx").read_bytes()
    assert index[:34] == b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 4, 5)
    assert struct.unpack("<4i4q5q", index[34:]) == (3, 2, 1, 4, 0, 6, 10, 12, 0, 1, 2, 3, 4)


def test_megatron_index_is_the_one_that_datatrove_writes(domain, tmp_path):
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile

    export_megatron(domain, tmp_path / "ours")
    theirs = MegatronTokenizedFile(str(tmp_path), "theirs")
    for start, end in zip([0, *ENDS], ENDS):
        theirs.write(TOKENS[start:end])
    theirs.close()
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


@pytest.mark.parametrize("tool", ["datatrove", "megatron"])
def test_export_and_import_give_the_same_documents(domain, tmp_path, number_tokenizer, tool):
    if tool == "datatrove":
        export_datatrove(domain, tmp_path / "out.ds")
        foreign = read_datatrove(tmp_path / "out.ds")
    else:
        export_megatron(domain, tmp_path / "out")
        foreign = read_megatron(tmp_path / "out")
    assert (foreign.tokens.tolist(), foreign.ends.tolist()) == (TOKENS, ENDS)
    files = ShardFiles("other", "a", tmp_path / "imported", tmp_path / "imported.parquet")
    counts = import_documents(documents_in(foreign), number_tokenizer, files.tokens_path, files.documents_path)
    assert counts == {"num_documents": 4, "num_tokens": 10, "num_characters": 9, "size_bytes": 9}
    record = read_record(files, verify=True)
    assert (record.eos, record.bos, record.num_documents) == (0, None, 4)
    rows = [row for batch in read_documents(files) for row in batch.to_pylist()]
    assert [row["end"] for row in rows] == ENDS
    # the content is the text itself: a copy in another source is recognised
    assert rows[3]["content_id"] == xxhash.xxh3_128_digest(b"7 8 9")
    build_domain_index([files], Selection("other"), tmp_path / "again")
    export_datatrove(tmp_path / "again", tmp_path / "again.ds")
    assert np.fromfile(tmp_path / "again.ds", "<u2").tolist() == TOKENS


def test_megatron_documents_of_several_sequences_are_joined(tmp_path):
    np.array([3, 4, 5, 6], "<i4").tofile(tmp_path / "in.bin")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 3, 3)
    (tmp_path / "in.idx").write_bytes(header + struct.pack("<3i3q3q", 1, 2, 1, 0, 4, 12, 0, 2, 3))
    foreign = read_megatron(tmp_path / "in")
    assert (foreign.tokens.tolist(), foreign.ends.tolist()) == ([3, 4, 5, 6], [3, 4])


@pytest.mark.parametrize("bounds", [(0, 1, 2), (1, 2, 3), (0, 3, 2), (0, 4, 3)])
def test_megatron_index_that_leaves_sequences_out_is_refused(tmp_path, bounds):
    np.array([3, 4, 5, 6], "<i4").tofile(tmp_path / "in.bin")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 3, 3)
    (tmp_path / "in.idx").write_bytes(header + struct.pack("<3i3q3q", 1, 2, 1, 0, 4, 12, *bounds))
    with pytest.raises(TokenShardError, match="which must be all of them in rising order"):
        read_megatron(tmp_path / "in")


def test_import_token_outside_the_vocabulary_is_refused(tmp_path, number_tokenizer):
    np.array([3, 5000], "<u2").tofile(tmp_path / "in.ds")
    np.array([2], "<u8").tofile(tmp_path / "in.ds.index")
    foreign = read_datatrove(tmp_path / "in.ds")
    with pytest.raises(TokenShardError, match="token id 5000 at 1"):
        import_documents(documents_in(foreign), number_tokenizer, tmp_path / "tokens", tmp_path / "documents")


def test_read_files_that_do_not_fit_are_refused(tmp_path):
    np.array([3, 4, 5], "<u2").tofile(tmp_path / "in.ds")
    with pytest.raises(TokenShardError, match="missing; datatrove writes it"):
        read_datatrove(tmp_path / "in.ds")
    np.array([4], "<u8").tofile(tmp_path / "in.ds.index")
    with pytest.raises(TokenShardError, match="6 bytes, but its index ends at 4"):
        read_datatrove(tmp_path / "in.ds")
    np.array([2, 1, 3], "<u8").tofile(tmp_path / "in.ds.index")
    with pytest.raises(TokenShardError, match="the ends of its documents do not rise"):
        read_datatrove(tmp_path / "in.ds")
    (tmp_path / "in.idx").write_bytes(b"TNTIDX\x00\x00")
    with pytest.raises(TokenShardError, match="not an index of Megatron"):
        read_megatron(tmp_path / "in")


def test_export_of_a_domain_larger_than_a_group_is_whole(make_shard, tmp_path, monkeypatch):
    monkeypatch.setattr("mixing.exchange._ROWS", 3)
    documents = [" ".join(["7"] * (number % 4)) for number in range(11)]
    build_domain_index([make_shard("web", "a", documents)], Selection("web"), tmp_path / "domain")
    export_megatron(tmp_path / "domain", tmp_path / "out")
    foreign = read_megatron(tmp_path / "out")
    assert foreign.ends.tolist() == np.cumsum([number % 4 + 1 for number in range(11)]).tolist()
    assert foreign.tokens.tolist() == [t for number in range(11) for t in [*[7] * (number % 4), 0]]


def read_chunks(folder):
    """Documents of a folder of litdata's token chunks, by their layout."""
    index = json.loads((folder / "index.json").read_text())
    kind = {"no_header_tensor:20": "<u2", "no_header_tensor:15": "<i4"}[index["config"]["data_format"][0]]
    documents = []
    for chunk in index["chunks"]:
        stored = (folder / chunk["filename"]).read_bytes()
        assert len(stored) == chunk["chunk_bytes"]
        (number,) = struct.unpack_from("<I", stored)
        offsets = np.frombuffer(stored, "<u4", number + 1, 4)
        assert number == chunk["chunk_size"]
        found = [np.frombuffer(stored[a:b], kind).tolist() for a, b in pairwise(offsets.tolist())]
        assert sum(map(len, found)) == chunk["dim"]
        documents += found
    return documents


@pytest.mark.parametrize(("most", "chunks"), [(1 << 20, 1), (10, 2), (2, 4)])
def test_litdata_export_has_its_layout(domain, tmp_path, most, chunks):
    counts = export_litdata(domain, tmp_path / "out", chunk_bytes=most)
    assert counts == {"num_documents": 4, "num_tokens": 10, "num_chunks": chunks}
    assert read_chunks(tmp_path / "out") == [[3, 4, 0], [6, 0], [0], [7, 8, 9, 0]]


@pytest.mark.slow  # imports torch in a process of its own
def test_litdata_reads_what_is_exported(domain, tmp_path):
    python = Path(os.environ.get("GRISTMILL_PEERS", "")) / "litdata" / "bin" / "python"
    if not python.is_file():
        pytest.skip("GRISTMILL_PEERS names no folder with an environment `litdata` (docs/order.md)")
    export_litdata(domain, tmp_path / "out")
    read = (
        "import litdata, sys; data = litdata.StreamingDataset(sys.argv[1], item_loader=litdata.TokensLoader(5)); "
        "print([data[i].tolist() for i in range(len(data))])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", read, str(tmp_path / "out")], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [TOKENS[:5], TOKENS[5:]]


def test_parquet_export_is_a_dataset_of_documents(domain, tmp_path):
    datasets = pytest.importorskip("datasets", reason="reading it as Hugging Face does needs `datasets`")
    assert export_parquet(domain, tmp_path / "out.parquet") == {"num_documents": 4, "num_tokens": 10}
    rows = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    assert rows["input_ids"][:] == [[3, 4, 0], [6, 0], [0], [7, 8, 9, 0]]
    assert list(zip(rows["source"][:], rows["shard"][:], rows["row"][:])) == [
        ("web", "a", 0), ("web", "a", 2), ("web", "b", 0), ("web", "b", 1),
    ]  # fmt: skip


WRITE = """
import sys
import litdata, torch

def one(ids):
    return torch.tensor(ids, dtype=torch.int32)

if __name__ == "__main__":
    documents = [[3, 4, 0], [6, 0], [0], [7, 8, 9, 0]]
    options = {"inputs": documents, "num_workers": 1, "chunk_size": 5}
    litdata.optimize(fn=one, output_dir=sys.argv[1] + "/tokens", item_loader=litdata.TokensLoader(), **options)
    litdata.optimize(fn=one, output_dir=sys.argv[1] + "/items", **options)
"""


@pytest.mark.slow  # imports torch in a process of its own
def test_what_litdata_writes_is_read(tmp_path):
    python = Path(os.environ.get("GRISTMILL_PEERS", "")) / "litdata" / "bin" / "python"
    if not python.is_file():
        pytest.skip("GRISTMILL_PEERS names no folder with an environment `litdata` (docs/order.md)")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (tmp_path / "write.py").write_text(WRITE)
    subprocess.run([python, tmp_path / "write.py", str(tmp_path)], check=True, capture_output=True, env=environment)
    chunks = [read_litdata(tmp_path / "tokens" / name) for name in chunk_names(tmp_path / "tokens")]
    assert len(chunks) > 1
    assert [token for chunk in chunks for token in chunk.tokens.tolist()] == TOKENS
    lengths = [length for chunk in chunks for length in np.diff(chunk.ends, prepend=0).tolist()]
    assert np.cumsum(lengths).tolist() == ENDS
    with pytest.raises(TokenShardError, match="not one row of tokens each"):
        read_litdata(tmp_path / "items" / chunk_names(tmp_path / "items")[0])


@pytest.mark.parametrize(
    ("shards", "rows"),
    [
        ([("a", ["3 4", "", "5"]), ("b", ["", "6", ""])], [([3, 4], "a", 0), ([5], "a", 2), ([6], "b", 1)]),
        ([("a", ["", ""])], []),
        ([("a", [])], []),
    ],
)
def test_parquet_export_leaves_empty_documents_out(make_shard, tmp_path, shards, rows):
    made = [make_shard("web", name, texts, eos=False) for name, texts in shards]
    build_domain_index(made, Selection("web"), tmp_path / "domain")
    assert export_parquet(tmp_path / "domain", tmp_path / "out.parquet")["num_documents"] == len(rows)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["input_ids"], row["shard"], row["row"]) for row in found] == rows
