"""What `where`, `sample` and `brought` do, whatever the format; and which shards a source names."""

import pickle
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from curation.source import (
    ROWS,
    ReadCounts,
    Reader,
    SourceError,
    UnreadableShard,
    column_types,
    content_checksum,
    list_shards,
    one_format,
    read_shard,
)  # fmt: skip
from curation.source.shards import format_of


def read(path, reader, **options):
    return [row for batch in read_shard(str(path), reader, **options) for row in batch.to_pylist()]


@pytest.fixture
def scored(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text":"a","score":0.9,"good":true,"tag":"x"}\n{bad\n{"text":"b","score":0.1,"good":false,"tag":3}\n'
        '{"text":5,"score":0.8}\n{"text":"c","score":null,"tag":["y"]}\n{"text":"d","score":"high","good":1}\n'
    )
    return path


def test_rows_have_the_schema_and_the_brought_columns(scored):
    batch = next(iter(read_shard(str(scored), Reader("jsonl", brought=("good", "tag")))))
    assert batch.schema.names == [*ROWS.names, "good@source", "tag@source"]
    assert batch.schema.names[: len(ROWS)] == ROWS.names
    assert all(batch.schema.field(name).type == ROWS.field(name).type for name in ROWS.names)


def test_brought_kinds_come_from_the_values(scored):
    reader = Reader("jsonl", brought=("good", "score", "tag"))
    assert column_types(str(scored), reader) == (("good", "text"), ("score", "text"), ("tag", "text"))
    scored.write_text(
        '{"text":"a","score":0.9,"good":true,"tag":"x"}\n{"score":3,"good":null,"tag":"1"}\n{"score": "cut off'
    )
    assert column_types(str(scored), reader) == (("good", "bool"), ("score", "number"), ("tag", "text"))


def test_brought_kinds_can_be_declared_and_misfits_are_null(scored):
    reader = Reader(
        "jsonl", brought=("good", "score", "tag"), types=(("good", "bool"), ("score", "number"), ("tag", "text"))
    )
    rows = read(scored, reader)
    assert [row["score@source"] for row in rows] == [0.9, None, 0.1, 0.8, None, None]
    assert [row["good@source"] for row in rows] == [True, None, False, None, None, None]
    assert [row["tag@source"] for row in rows] == ["x", None, "3", None, '["y"]', None]


def test_brought_from_csv_is_a_number_when_all_values_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,n,m,yes\na,1,1,true\nb,,x,False\nc,2.5e1,2,\n")
    rows = read(path, Reader("csv", brought=("n", "m", "yes")))
    assert [(row["n@source"], row["m@source"], row["yes@source"]) for row in rows] == [
        (1.0, "1", True), (None, "x", False), (25.0, "2", None),
    ]  # fmt: skip


LATE = "".join(f'{{"text":"{"x" * 1000}","id":{i}}}\n' for i in range(1100))


@pytest.mark.parametrize(
    "shards",
    [
        ["", '{"text":"a","score":0.9}\n{"text":"b","score":0.1}\n'],
        ['{"text":"a"}\n{"text":"a","score":null}\n', '{"text":"a","score":0.9}\n{"text":"b","score":0.1}\n'],
        ['{"text":"' + "x" * 1_100_000 + '","score":0.9}\n{"text":"b","score":0.1}\n'],
        [LATE + '{"text":"y","score":0.9}\n{"text":"b","score":0.1}\n'],
        ["{}\n", LATE + '{"text":"y","score":0.9}\n{"text":"b","score":0.1}\n', "not JSON"],
    ],
    ids=["first_shard_empty", "first_values_null", "first_record_long", "key_comes_late", "late_in_second_shard"],
)
def test_kinds_are_looked_for_until_a_value_tells_them(tmp_path, shards):
    paths = [tmp_path / f"{place}.jsonl" for place in range(len(shards))]
    for path, content in zip(paths, shards, strict=True):
        path.write_text(content)
    reader = Reader("jsonl", brought=("score",), where="score > 0.5")
    types = column_types([str(path) for path in paths], reader)
    assert types == (("score", "number"),)
    rows = [row for path in paths for row in read(path, replace(reader, types=types)) if not row["read_reason"]]
    assert [row["score@source"] for row in rows] == [0.9]


@pytest.mark.parametrize(("where", "kind"), [("score > 0.5", "number"), ("score", "bool"), ("score = 'x'", "text")])
def test_column_without_any_value_has_a_kind_of_which_where_can_be_asked(tmp_path, where, kind):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text":"a","score":null}\n')
    reader, counts = Reader("jsonl", where=where), ReadCounts()
    assert column_types(str(path), reader) == (("score", kind),)
    assert (read(path, reader, counts=counts), counts.unread_where) == ([], 1)


def test_misspelt_column_of_where_is_refused_with_the_nearest_of_all_shards(tmp_path):
    for name, content in (("a", '{"text":"a"}\n'), ("b", '{"text":"a","score":1}\n')):
        (tmp_path / f"{name}.jsonl").write_text(content)
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    with pytest.raises(SourceError, match=r"and 1 more: no column 'scroe' in any record; did you mean 'score'"):
        column_types(paths, Reader("jsonl", where="scroe > 1"))


def test_parquet_column_of_nulls_alone_is_of_the_type_that_other_shards_tell(tmp_path):
    columns = {"a": pa.nulls(2), "b": pa.array([0.9, 0.1]), "c": pa.nulls(2)}
    for name, score in columns.items():
        pq.write_table(pa.table({"text": ["x", "y"], "score": score}), tmp_path / f"{name}.parquet")
    paths = [str(tmp_path / f"{name}.parquet") for name in columns]
    reader = Reader("parquet", brought=("score",), where="score > 0.5")
    assert column_types(paths, reader) == (("score", "number"),)
    reader = replace(reader, types=column_types(paths, reader))
    assert [[row["score@source"] for row in read(path, reader)] for path in paths] == [[], [0.9], []]
    assert column_types(paths[0], Reader("parquet", where="score > 0.5")) == (("score", "number"),)


@pytest.mark.parametrize("batch_bytes", [10, 1 << 20])
def test_where_leaves_rows_unread_but_counted_and_bad_records_stay_rows(scored, batch_bytes):
    counts = ReadCounts()
    reader = Reader("jsonl", where="score > 0.5 AND text IS NOT NULL", types=(("score", "number"), ("text", "text")))
    rows = read(scored, reader, batch_bytes=batch_bytes, counts=counts)
    assert [(row["row"], row["text"], row["read_reason"]) for row in rows] == [
        (0, "a", None), (1, None, "bad_json"), (3, None, "non_string_text"),
    ]  # fmt: skip
    assert (counts.records, counts.rows, counts.unread_where, counts.unread_sample) == (6, 3, 3, 0)
    assert counts.reasons == {"bad_json": 1, "non_string_text": 1}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("scroe > 1", "did you mean 'score'"),
        ("score >", "not a condition"),
        ("(SELECT text FROM read_csv('/etc/passwd')) = 'x'", "not a condition"),
        ("length(tag)", "not true or false"),
        ("score > AVG(score)", "beyond one row"),
        ("COUNT(*) > 2", "beyond one row"),
        ("score > QUANTILE_CONT(score, 0.5)", "beyond one row"),
        ("RANK() OVER (ORDER BY score) > 1", "beyond one row"),
        ("score > 0.5", "text with a number"),
        ("tag = 'x' OR (1.0 < score AND good = 'a')", "text with a number"),
    ],
)
def test_where_that_cannot_be_asked_is_a_clear_error(scored, where, message):
    with pytest.raises(SourceError, match=message):
        read(scored, Reader("jsonl", where=where))


def test_sample_is_a_share_of_rows_nested_and_keeps_copies_together(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text":"document {i % 1500}"}}\n' for i in range(3000)))
    samples = {}
    for share in (0.0, 0.1, 0.5, 1.0):
        counts = ReadCounts()
        rows = read(path, Reader("jsonl", sample=share), counts=counts)
        samples[share] = {row["row"] for row in rows}
        assert counts.rows + counts.unread_sample == counts.records == 3000
        assert abs(len(rows) / 3000 - share) < 0.05  # five standard deviations of 1,500 different texts
        assert all((row + 1500) % 3000 in samples[share] for row in samples[share])
    assert samples[0.0] == set()
    assert samples[0.1] < samples[0.5] < samples[1.0]


def test_reader_and_errors_can_be_pickled():
    reader = Reader("jsonl", (("text", "content"),), ("score",), "score > 1")
    assert pickle.loads(pickle.dumps(reader)) == reader
    error = pickle.loads(pickle.dumps(UnreadableShard("a.gz", "truncated")))
    assert (error.path, error.cause) == ("a.gz", "truncated")


def test_shard_of_a_remote_filesystem_is_read():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/raw/a.jsonl", b'{"text":"a"}\n')
    shards = list_shards("memory://raw/*.jsonl", "/nowhere")
    assert [(shard.path, shard.size_bytes) for shard in shards] == [("memory:///raw/a.jsonl", 13)]
    assert [row["text"] for row in read(shards[0].absolute, Reader("jsonl"))] == ["a"]
    filesystem.rm("/raw", recursive=True)


@pytest.fixture
def raw(tmp_path):
    for name in (
        "b/2.jsonl.zst",
        "b/1.jsonl",
        "a.csv",
        "b/README",
        "b/.hidden.jsonl",
        "b/c/3.parquet",
        "b/x.jsonl.tmp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_shards_of_a_folder_a_pattern_and_a_file_are_sorted(raw):
    unopened = []
    assert [shard.path for shard in list_shards("b", raw, unopened)] == ["b/1.jsonl", "b/2.jsonl.zst", "b/c/3.parquet"]
    assert unopened == ["b/README"]
    shards = list_shards(["b/**/*.parquet", "a.csv", str(raw / "b/1.jsonl")], raw)
    assert [(shard.path, shard.size_bytes) for shard in shards] == [
        ("a.csv", 5),
        ("b/1.jsonl", 9),
        ("b/c/3.parquet", 13),
    ]
    assert shards[0].absolute == str(raw / "a.csv")


def test_shards_a_pattern_without_a_file_is_refused(raw):
    with pytest.raises(SourceError, match=r"no file matches 'c/\*'"):
        list_shards(["b", "c/*"], raw)


def test_shards_a_file_named_twice_is_refused(raw):
    with pytest.raises(SourceError, match=r"b/1.jsonl is named twice, by 'b' and 'b/1"):
        list_shards(["b", "b/1*"], raw)


def test_shards_below_a_root_with_pattern_signs_are_found(tmp_path):
    root = tmp_path / "raw[1]"
    root.mkdir()
    (root / "a.jsonl").touch()
    assert [shard.path for shard in list_shards("*.jsonl", root)] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"),
        ("x/a.JSONL.GZ", "jsonl"),
        ("a.csv.zip", "csv"),
        ("a.txt.zst", "text"),
        ("a.gz", None),
        ("a.b/c", None),
    ],
)
def test_format_is_told_by_the_suffix(name, form):
    assert format_of(name) == form


def test_content_checksum_is_the_hash_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert content_checksum(str(tmp_path / "a")) == xxhash.xxh3_128_hexdigest(b"x" * 3_000_000)


def test_one_format_of_shards_is_told_and_several_are_refused_with_the_commoner_ones_pattern():
    assert one_format(["a.jsonl", "b/c.ndjson.gz", "d.zip"]) == "jsonl"
    with pytest.raises(SourceError, match=r"the suffix of a\.zip tells no format"):
        one_format(["a.zip"])
    several = r"parquet \(2, such as data/0.parquet\), text \(1, such as README.md\).* path: FOLDER/\*\*/\*.parquet,"
    with pytest.raises(SourceError, match=several):
        one_format(["README.md", "data/0.parquet", "data/1.parquet"])
    with pytest.raises(SourceError, match=r"path: FOLDER/\*\*/\*.json.gz,"):
        one_format(["x.json.gz", "x.txt"])
