from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mixing.shards import (
    METADATA_KEY,
    ShardFiles,
    TokenShardError,
    check_ids,
    map_tokens,
    read_documents,
    read_record,
    with_ends,
    write_token_shard,
)
from mixing.tokenizer import TokenizerError, load_tokenizer


def tokens_of(files: ShardFiles) -> list[int]:
    return map_tokens(files, read_record(files)).tolist()


def test_token_shard_of_three_documents_is_flat_with_an_end_token_each(make_shard):
    files = make_shard("web", "a", ["3 4 5", "", "6"])
    assert np.fromfile(files.tokens_path, "<u2").tolist() == [3, 4, 5, 0, 0, 6, 0]
    documents = pq.read_table(files.documents_path)
    assert documents["end"].to_pylist() == [4, 5, 7]
    assert documents["row"].to_pylist() == [0, 1, 2]
    assert documents["num_characters"].to_pylist() == [5, 0, 1]
    assert documents.column_names == [
        "row", "end", "num_characters", "size_bytes", "content_id", "cluster", "licence", "bucket",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bos", "eos", "tokens"),
    [
        (False, True, [3, 4, 0, 5, 0]),
        (True, True, [1, 3, 4, 0, 1, 5, 0]),
        (True, False, [1, 3, 4, 1, 5]),
        (False, False, [3, 4, 5]),
    ],
)
def test_token_shard_begin_and_end_tokens_stand_where_asked(make_shard, bos, eos, tokens):
    files = make_shard("web", "a", ["3 4", "5"], bos=bos, eos=eos)
    assert tokens_of(files) == tokens
    record = read_record(files)
    assert (record.bos, record.eos) == (1 if bos else None, 0 if eos else None)


@given(st.lists(st.lists(st.integers(3, 99), max_size=4), max_size=6), st.booleans(), st.booleans())
def test_with_ends_equals_joining_lists(documents, bos, eos):
    ids = np.array([token for document in documents for token in document], np.uint16)
    lengths = np.array([len(document) for document in documents], np.int64)
    tokens, ends = with_ends(ids, lengths, 1 if bos else None, 0 if eos else None)
    around = [[1] * bos + document + [0] * eos for document in documents]
    assert tokens.tolist() == [token for document in around for token in document]
    assert ends.tolist() == np.cumsum([len(document) for document in around]).astype(int).tolist()


def test_token_shard_bytes_do_not_depend_on_row_batches(make_shard):
    texts = [f"{number} {number + 1}" for number in range(3, 40)]
    one = make_shard("web", "a", texts)
    many = make_shard("web", "b", texts, rows_per_batch=5)
    assert one.tokens_path.read_bytes() == many.tokens_path.read_bytes()
    assert pq.read_table(one.documents_path).equals(pq.read_table(many.documents_path))


def test_token_shard_written_twice_is_the_same_bytes(make_shard):
    one, again = (make_shard("web", shard, ["3 4", "5"]) for shard in "ab")
    assert one.documents_path.read_bytes() == again.documents_path.read_bytes()


def test_token_shard_passes_clusters_licences_and_signals_through(tmp_path, number_tokenizer):
    rows = pa.record_batch(
        {
            "row": pa.array([4, 9]),
            "text": pa.array(["ä 3", "中"], pa.large_string()),
            "content_id": pa.array([b"a" * 16, b"b" * 16], pa.binary(16)),
            "cluster": pa.array([None, b"c" * 16], pa.binary(16)),
            "licence": pa.array(["CC0", None], pa.large_string()),
            "bucket": pa.array(["head", None]),
            "year": pa.array([1999, 2000], pa.int32()),
            "size_bytes": pa.array([77, 77]),
        }
    )
    counts = write_token_shard([rows], number_tokenizer, tmp_path / "tokens", tmp_path / "documents")
    assert counts == {"num_documents": 2, "num_tokens": 5, "num_characters": 4, "size_bytes": 7, "num_by_library": 2}
    files = ShardFiles("web", "a", tmp_path / "tokens", tmp_path / "documents")
    documents = pa.Table.from_batches(read_documents(files)).to_pylist()
    # sizes are those of the text that was encoded, not those of the raw row
    assert [document["size_bytes"] for document in documents] == [4, 3]
    assert [document["cluster"] for document in documents] == [None, b"c" * 16]
    assert [document["licence"] for document in documents] == ["CC0", None]
    assert [(document["bucket"], document["year"]) for document in documents] == [("head", 1999), (None, 2000)]


def test_token_shard_without_rows_is_empty_and_readable(make_shard):
    files = make_shard("web", "a", [])
    record = read_record(files, verify=True)
    assert (record.num_tokens, record.num_documents, tokens_of(files)) == (0, 0, [])
    assert list(read_documents(files, ["row", "end", "content_id", "cluster"])) == []


def test_token_shard_null_text_is_refused_with_its_row(make_shard):
    with pytest.raises(TokenShardError, match="row 1: its text is null"):
        make_shard("web", "a", ["3", {"text": None}])


def test_token_shard_cut_file_is_refused_on_open(make_shard):
    files = make_shard("web", "a", ["3 4 5"])
    files.tokens_path.write_bytes(files.tokens_path.read_bytes()[:-1])
    with pytest.raises(TokenShardError, match="7 bytes, but 4 tokens of <u2 need 8"):
        read_record(files)


def test_token_shard_whose_documents_are_missing_or_cut_names_the_file(make_shard):
    files = make_shard("web", "a", ["3 4 5"])
    files.documents_path.write_bytes(files.documents_path.read_bytes()[:-1])
    with pytest.raises(TokenShardError, match=r"web-a\.parquet: cannot be read"):
        read_record(files)
    files.documents_path.unlink()
    with pytest.raises(TokenShardError, match=r"web-a\.parquet: missing"):
        read_record(files)


def test_token_shard_changed_token_is_found_when_verified(make_shard):
    files = make_shard("web", "a", ["3 4 5"])
    changed = bytearray(files.tokens_path.read_bytes())
    changed[0] = 9
    files.tokens_path.write_bytes(changed)
    assert read_record(files).num_tokens == 4
    with pytest.raises(TokenShardError, match="checksum"):
        read_record(files, verify=True)


def test_token_shard_id_above_the_vocabulary_is_refused_when_verified(make_shard):
    files = make_shard("web", "a", ["3 4 5"])
    np.array([3, 5000, 5, 0], "<u2").tofile(files.tokens_path)
    with pytest.raises(TokenShardError, match="token id 5000 at 1, but the vocabulary has 5000"):
        read_record(files, verify=True)


def test_check_ids_last_of_the_vocabulary_is_allowed():
    check_ids(np.array([0, 9], np.uint16), 10, "here")
    with pytest.raises(TokenShardError, match="token id 10 at 1"):
        check_ids(np.array([0, 10], np.uint16), 10, "here")


def test_token_shard_of_a_large_vocabulary_is_uint32(make_shard, tmp_path, made_large_tokenizer):
    files = make_shard("web", "a", ["3 69999"], tokenizer=made_large_tokenizer)
    assert read_record(files).dtype == "<u4"
    assert np.fromfile(files.tokens_path, "<u4").tolist() == [3, 69999, 0]


@pytest.fixture
def made_large_tokenizer(tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    encoder = Tokenizer(models.WordLevel({"</s>": 0} | {str(n): n for n in range(1, 70_000)}, unk_token="</s>"))
    encoder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder.add_special_tokens(["</s>"])
    encoder.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def test_token_shard_begin_token_that_the_tokenizer_lacks_is_an_error(make_shard, made_large_tokenizer):
    with pytest.raises(TokenizerError, match=r"sequences\.bos: the tokenizer has no bos token"):
        make_shard("web", "a", ["3"], tokenizer=made_large_tokenizer, bos=True)


def test_record_without_our_metadata_is_refused(make_shard):
    files = make_shard("web", "a", ["3"])
    pq.write_table(pq.read_table(files.documents_path), files.documents_path, store_schema=False)
    with pytest.raises(TokenShardError, match="not a token shard"):
        read_record(files)


def test_record_names_tokenizer_and_vocabulary(make_shard, number_tokenizer):
    files = make_shard("web", "a", ["3"])
    stored = json.loads(pq.read_metadata(files.documents_path).metadata[METADATA_KEY])
    assert stored["tokenizer"] == number_tokenizer.identity
    assert stored["vocabulary"] == 5000
