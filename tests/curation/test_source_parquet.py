"""Parquet shards."""

import datetime
import decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash

from curation.source import Reader, SourceError, UnreadableShard, read_shard


def read(path, reader=None, **options):
    return [row for batch in read_shard(str(path), reader or Reader("parquet"), **options) for row in batch.to_pylist()]


def write(folder, columns, **options):
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())]
)
@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_parquet_text_of_any_string_type_is_read(tmp_path, kind, batch_bytes):
    texts = ["a", None, "", "äö", "a"]
    stored = (
        pa.array(texts, pa.string()).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(texts).dictionary_encode()
    )
    rows = read(write(tmp_path, {"id": [1, 2, 3, 4, 5], "text": stored}, row_group_size=2), batch_bytes=batch_bytes)
    assert [row["text"] for row in rows] == texts
    assert [row["read_reason"] for row in rows] == [None, "missing_text", None, None, None]
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["origin_id"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[3]["content_id"] == xxhash.xxh3_128_digest("äö".encode())
    assert len({row["content_id"] for row in rows}) == 4


def test_parquet_text_of_another_type_is_no_string(tmp_path):
    rows = read(write(tmp_path, {"text": [1, None]}))
    assert [row["read_reason"] for row in rows] == ["non_string_text", "missing_text"]


def test_parquet_invalid_utf8_is_repaired(tmp_path):
    lying = pa.Array.from_buffers(pa.string(), 2, pa.array([b"M\xfcller", b"ok"]).buffers())
    rows = read(write(tmp_path, {"text": lying}))
    assert [(row["text"], row["repaired"]) for row in rows] == [("M\ufffdller", 1), ("ok", 0)]


def test_parquet_without_the_text_column_says_which_is_near(tmp_path):
    path = write(tmp_path, {"texts": ["a"], "nr": [1]})
    with pytest.raises(SourceError, match="did you mean 'texts'"):
        read(path)
    with pytest.raises(SourceError, match="no column 'number'"):
        read(path, Reader("parquet", fields=(("id", "number"), ("text", "texts"))))


def test_parquet_text_over_max_document_is_too_large(tmp_path):
    rows = read(write(tmp_path, {"text": ["abcdef", "abc"]}), Reader("parquet", max_document=5))
    assert [(row["text"], row["read_reason"], row["size_bytes"]) for row in rows] == [
        (None, "too_large", 6),
        ("abc", None, 3),
    ]
    assert rows[0]["content_id"] == xxhash.xxh3_128_digest(b"abcdef")


def test_parquet_brought_columns_keep_numbers_and_become_text_otherwise(tmp_path):
    columns = {
        "text": ["a"],
        "count": pa.array([2**60], pa.int64()),
        "score": pa.array([0.5], pa.float32()),
        "nan": pa.array([float("nan")]),
        "price": pa.array([decimal.Decimal("1.25")]),
        "good": [True],
        "day": [datetime.date(2024, 2, 3)],
        "tags": [["x", "y"]],
        "place": [{"city": "Jena"}],
        "raw": [b"\xff"],
    }
    brought = tuple(name for name in columns if name != "text")
    row = read(write(tmp_path, columns), Reader("parquet", brought=brought))[0]
    assert [row[f"{name}@source"] for name in brought] == [
        2**60, 0.5, None, 1.25, True, "2024-02-03", '["x", "y"]', '{"city": "Jena"}', "\ufffd",
    ]  # fmt: skip


def test_parquet_where_is_asked_of_its_columns(tmp_path):
    path = write(
        tmp_path, {"text": ["a", "b", "c"], "day": [datetime.date(2024, 1, n) for n in (1, 2, 3)], "id": [7, 8, 9]}
    )
    assert [row["row"] for row in read(path, Reader("parquet", where="day >= '2024-01-02' AND id < 9"))] == [1]


def test_parquet_damaged_row_group_gives_unreadable_rows_and_the_next_is_read(tmp_path):
    path = write(
        tmp_path,
        {"text": [f"{i} " * 500 for i in range(30)]},
        row_group_size=10,
        compression="zstd",
        use_dictionary=False,
    )
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    for at in range(group.data_page_offset + 30, group.data_page_offset + group.total_compressed_size):
        content[at] ^= 0x55
    path.write_bytes(content)
    rows = read(path)
    assert [row["read_reason"] for row in rows] == [None] * 10 + ["unreadable"] * 10 + [None] * 10
    assert [row["row"] for row in rows] == list(range(30))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_parquet_that_is_none_is_unreadable(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(UnreadableShard):
        read(path)


def test_parquet_cut_short_is_unreadable(tmp_path):
    path = write(tmp_path, {"text": ["a"] * 100})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UnreadableShard):
        read(path)


def test_parquet_without_rows_has_none(tmp_path):
    assert read(write(tmp_path, {"text": pa.array([], pa.string())})) == []


def held_bytes(path, batch_bytes):
    return [
        pc.sum(batch.column("size_bytes")).as_py()
        for batch in read_shard(path, Reader("parquet"), batch_bytes=batch_bytes)
    ]


@pytest.mark.parametrize(
    "texts",
    [["A" * 10_000] * 400, ["a"] * 6000 + [f"{row}" + "B" * 20_000 for row in range(60)]],
    ids=["equal_texts_stored_once", "long_rows_behind_short_ones"],
)
def test_parquet_batches_hold_about_their_bytes_whatever_the_mean_row(tmp_path, texts):
    path = str(write(tmp_path, {"text": texts}))
    sizes = held_bytes(path, 1 << 17)
    assert sum(sizes) == sum(map(len, texts))
    assert max(sizes) <= 2 << 17
    assert [row["text"] for row in read(path, batch_bytes=1 << 17)] == texts


def test_parquet_batches_of_even_rows_are_those_of_the_mean(tmp_path):
    path = write(tmp_path, {"text": [f"{row:05}" * 20 for row in range(9000)]})
    group = pq.ParquetFile(path).metadata.row_group(0)
    rows = (1 << 17) // (group.total_byte_size // group.num_rows)
    found = [batch.num_rows for batch in read_shard(str(path), Reader("parquet"), batch_bytes=1 << 17)]
    assert found == [rows] * (9000 // rows) + [9000 % rows]
