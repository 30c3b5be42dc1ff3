from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixing.document_ids import DocumentIds, find_documents, ids_path, write_document_ids
from mixing.domains import DomainTokens, build_domain_index
from mixing.selections import Selection
from mixing.shards import ShardFiles

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


IDS = [b"\xab" * 16, b"\xff" * 16, b"\xab" * 15 + b"\0"]


def written(folder, name, documents):
    """A shard of (row, content id)."""
    files = ShardFiles("web", name, folder / f"{name}.tokens", folder / f"{name}.documents.parquet")
    rows, ids = zip(*documents) if documents else ((), ())
    pq.write_table(
        pa.table({"row": pa.array(rows, pa.int64()), "content_id": pa.array(ids, pa.binary(16))}), files.documents_path
    )
    write_document_ids(files.documents_path, ids_path(files))
    return files


@SETTINGS
@given(
    rows=st.lists(st.integers(0, 1 << 40), unique=True, max_size=40).map(sorted),
    ids=st.lists(st.sampled_from(IDS) | st.binary(min_size=16, max_size=16), min_size=40, max_size=40),
    digits=st.integers(1, 32),
)  # fmt: skip
def test_ids_and_rows_are_found_both_ways_as_by_reading_all(tmp_path, rows, ids, digits):
    documents = list(zip(rows, ids))
    index = DocumentIds.open(ids_path(written(tmp_path, "a", documents)))
    for row, content_id in documents:
        assert index.id_of(row) == content_id.hex()
        prefix = content_id.hex()[:digits]
        assert index.rows_of(prefix) == [r for r, i in documents if i.hex().startswith(prefix)]
    assert index.id_of(1 << 41) is None
    assert index.rows_of("zz") == []


def test_documents_are_found_over_shards_and_shards_without_index_are_missed(tmp_path):
    first, second = (written(tmp_path, name, [(3, b"0123456789abcdef"), (5, b"x" * 16)]) for name in "ab")
    missing = ShardFiles("web", "c", tmp_path / "c.tokens", tmp_path / "c.documents.parquet")
    assert list(find_documents([first, missing, second], b"0123".hex())) == [(first, 3), (second, 3)]


@pytest.mark.parametrize("context", [1, 3, 4])
def test_sequences_of_a_document_are_those_that_list_it(make_shard, tmp_path, context):
    """Over shards with documents of any length: also short ones in one sequence, and one over several."""
    texts = [["3", "4 5 6 7 8 9 3 4", "5"], ["6 7", "8"], ["9 9 9", "3", "4", "5 6"]]
    shards = [make_shard("web", name, each) for name, each in zip("abc", texts)]
    build_domain_index(shards, Selection("web"), tmp_path / "d")
    domain = DomainTokens.open(tmp_path / "d")
    listed: dict[tuple[str, int], list[int]] = {}
    for sequence in range(domain.num_sequences(context)):
        for piece in domain.documents_in(sequence, context):
            listed.setdefault((piece.shard, piece.row), []).append(sequence)
    for files, each in zip(shards, texts):
        for row in range(len(each)):
            assert domain.sequences_of("web", files.shard, row, context) == listed.get((files.shard, row), [])
    assert domain.sequences_of("web", "a", 99, context) == domain.sequences_of("web", "z", 0, context) == []
