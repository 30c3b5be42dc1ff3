"""Very large pages of Parquet shards, read without Arrow: against Arrow's own reading of the same files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from curation.source import ReadCounts, Reader, parquet_pages, read_shard
from curation.source.chunks import BrokenStream
from curation.source.parquet_pages import UnknownPage, list_pages
from curation.source.parquet_text import Limits, large_texts
from curation.source.snappy import snappy_chunks

LIMIT = 300
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def every_page_is_large(monkeypatch):
    monkeypatch.setattr(parquet_pages, "LARGE_PAGE", -1)


def written_texts(seed):
    rng = np.random.default_rng(seed)
    pieces = ["", "a", "ä€😀", "a line\n", "".join(chr(97 + k) for k in rng.integers(0, 26, 40))]
    texts = [
        None if rng.random() < 0.2 else str(rng.choice(pieces)) * int(rng.choice([1, 1, 3, 90]))
        for _ in range(rng.integers(0, 150))
    ]
    return texts if rng.random() < 0.8 else [None] * len(texts)


@st.composite
def written(draw):
    """Options of pyarrow's writer."""
    chosen = draw(st.sampled_from(["dictionary", "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]))
    encoding = {"use_dictionary": True} if chosen == "dictionary" else {
        "use_dictionary": False, "column_encoding": {"text": chosen}}  # fmt: skip
    return encoding | {
        "compression": draw(st.sampled_from(["none", "snappy", "gzip", "zstd", "brotli", "lz4"])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "data_page_size": draw(st.sampled_from([100, 5_000, 1 << 20])),
        "dictionary_pagesize_limit": draw(st.sampled_from([500, 1 << 20])),
        "write_batch_size": draw(st.sampled_from([1, 7, 1024])),
        "row_group_size": draw(st.sampled_from([50, 1000])),
    }


def in_arrow(path):
    """What Arrow reads: the text, its size, and its hash where it is over the limit."""
    for row in pq.read_table(path).to_pylist():
        text = row["text"].encode() if isinstance(row["text"], str) else row["text"]
        large = text is not None and len(text) > LIMIT
        yield {
            "text": None if text is None or large else text.decode(),
            "size_bytes": len(text or b""),
            "read_reason": "missing_text" if text is None else "too_large" if large else None,
            "hash": xxhash.xxh3_128_digest(text) if text is not None else None,
            "origin_id": str(row["id"]),
            "place@source": None if row["place"] is None else row["place"]["city"],
        }


@MANY
@given(
    seed=st.integers(0, 2**32),
    options=written(),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]),
    batch_bytes=st.sampled_from([1, 400, 1 << 20]),
    nullable=st.booleans(),
)
def test_large_pages_of_any_writing_are_read_as_arrow_reads_them(tmp_path, seed, options, kind, batch_bytes, nullable):
    # Arrow itself cannot read its dictionary type from such pages
    assume(not pa.types.is_dictionary(kind) or options["use_dictionary"])
    texts = written_texts(seed)
    if not nullable:
        texts = [text or "" for text in texts]
    columns = [
        pa.array(range(len(texts)), pa.int64()),
        pa.array(texts, pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(texts, kind),
        pa.array([None if k % 3 == 0 else {"city": f"c{k}", "tags": ["x"] * (k % 4)} for k in range(len(texts))],
                 pa.struct([("city", pa.string()), ("tags", pa.list_(pa.string()))])),
    ]  # fmt: skip
    schema = pa.schema(
        [
            pa.field(name, column.type, nullable or name != "text")
            for name, column in zip(("id", "text", "place"), columns)
        ]
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns, schema=schema), path, **options)
    counts = ReadCounts()
    reader = Reader("parquet", brought=("place",), max_document=LIMIT)
    rows = [
        row
        for batch in read_shard(str(path), reader, batch_bytes=batch_bytes, counts=counts)
        for row in batch.to_pylist()
    ]
    expected = list(in_arrow(path))
    assert [row["row"] for row in rows] == list(range(len(texts)))
    for row, there in zip(rows, expected, strict=True):
        assert {name: row[name] for name in ("text", "size_bytes", "read_reason", "origin_id")} == {
            name: there[name] for name in ("text", "size_bytes", "read_reason", "origin_id")
        }
        assert there["hash"] in (None, row["content_id"])
        assert (row["place@source"] or "").startswith(
            f'{{"city": "{there["place@source"]}"' if there["place@source"] else ""
        )
    known = options["compression"] in ("none", "snappy", "gzip", "zstd")
    plain = options.get("column_encoding", {}).get("text") != "DELTA_BYTE_ARRAY"
    if texts:
        assert (counts.whole_pages == 0) == (known and plain)


@MANY
@given(st.integers(0, 2**32), written(), st.integers(0, 10**6), st.integers(1, 255))
def test_large_pages_that_are_damaged_stop_with_a_reason(tmp_path, seed, options, place, flip):
    path = tmp_path / "a.parquet"
    texts = [*written_texts(seed), "a"]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, **options)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[4 + place % column.total_compressed_size] ^= flip
    path.write_bytes(content)
    rows = 0
    with path.open("rb") as file:
        try:
            for block in large_texts(file, list_pages(file, column), nullable=True, limits=Limits(LIMIT, 1000)):
                rows += len(block)
        except (UnknownPage, BrokenStream):
            return
    assert rows == column.num_values


def test_large_pages_before_a_damaged_one_are_kept_and_rows_stay_in_place(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"{i} " * 400 for i in range(40)]
    pq.write_table(
        pa.table({"text": texts}), path, compression="zstd", use_dictionary=False, data_page_size=1, write_batch_size=10
    )
    with path.open("rb") as file:
        pages = list_pages(file, pq.ParquetFile(path).metadata.row_group(0).column(0))
    content = bytearray(path.read_bytes())
    content[pages[2].at : pages[2].at + pages[2].compressed] = bytes(pages[2].compressed)
    path.write_bytes(content)
    counts = ReadCounts()
    batches = read_shard(str(path), Reader("parquet"), batch_bytes=1 << 20, counts=counts)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(pages) == 4
    assert [row["text"] for row in rows] == texts[:20] + [None] * 20
    assert [row["read_reason"] for row in rows] == [None] * 20 + ["unreadable"] * 20
    assert counts.whole_pages == 1


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 1 << 20])
def test_snappy_a_chunk_at_a_time_is_arrows(chunk_bytes):
    rng = np.random.default_rng(3)
    content = b"".join(bytes(rng.integers(97, 99, 7, np.uint8)) * int(rng.integers(1, 40)) for _ in range(900))
    content += bytes(rng.integers(0, 256, 200_000 if chunk_bytes > 1 else 100, np.uint8)) + content[:5000]
    content = content[-3000 if chunk_bytes == 1 else 0 :]
    packed = bytes(pa.compress(content, "snappy", asbytes=True))
    assert b"".join(snappy_chunks(pa.BufferReader(packed), len(content), chunk_bytes)) == content
    with pytest.raises(BrokenStream, match="ends early"):
        list(snappy_chunks(pa.BufferReader(packed[:-1]), len(content), chunk_bytes))
    with pytest.raises(BrokenStream, match="expected"):
        list(snappy_chunks(pa.BufferReader(packed), len(content) + 1, chunk_bytes))


def test_snappy_that_copies_from_before_its_beginning_is_refused():
    with pytest.raises(BrokenStream, match="damaged"):
        list(snappy_chunks(pa.BufferReader(bytes([8, 0, 97, 0b10, 5, 0])), 8, 100))
