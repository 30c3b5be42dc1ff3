"""CSV, JSON files, plain text and zip archives."""

import csv
import io
import json
import zipfile

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.source import ReadCounts, Reader, SourceError, UnreadableShard, column_names, read_shard


def read(path, form, **options):
    reader = Reader(form, **{name: options.pop(name) for name in list(options) if name in Reader.__dataclass_fields__})
    return [row for batch in read_shard(str(path), reader, **options) for row in batch.to_pylist()]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(rows):
    return [row["text"] if row["read_reason"] is None else (row["read_reason"],) for row in rows]


# ---- csv ----


@pytest.mark.parametrize("batch_bytes", [3, 1 << 20])
def test_csv_quotes_newlines_and_wrong_field_counts(tmp_path, batch_bytes):
    content = (
        'id,text\r\n1,plain\r\n2,"two\nlines, ""quoted"""\r\n\r\n3\r\n4,a,b\r\n5,"x"y\r\n6,\r\n7,5" tall\r\n8,"open'
    )
    rows = read(write(tmp_path, "a.csv", content), "csv", batch_bytes=batch_bytes)
    assert texts(rows) == [
        "plain",
        'two\nlines, "quoted"',
        ("bad_csv",),
        ("bad_csv",),
        "xy",
        "",
        '5" tall',
        ("bad_csv",),
    ]
    assert [row["origin_id"] for row in rows] == ["1", "2", None, None, "5", "6", "7", None]
    assert [row["row"] for row in rows] == list(range(8))
    assert rows[3]["content_id"] == xxhash.xxh3_128_digest(b"4,a,b")


fields = st.text(st.sampled_from('ab",\n\r \u00e4'), max_size=6)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(fields, fields), max_size=6),
    st.integers(1, 60),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_csv_what_pythons_writer_writes_is_read_back(tmp_path, records, batch_bytes, quoting):
    out = io.StringIO()
    csv.writer(out, quoting=quoting).writerows([("id", "text"), *records])
    rows = read(write(tmp_path, "a.csv", out.getvalue()), "csv", batch_bytes=batch_bytes)
    assert [(row["origin_id"] or "", row["text"]) for row in rows] == records


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from('ab",\n'), max_size=30), st.integers(1, 40))
def test_csv_any_text_is_read_as_pythons_reader_reads_it(tmp_path, body, batch_bytes):
    expected = [record for record in csv.reader(io.StringIO("id,text\n" + body, newline="")) if record][1:]
    rows = read(write(tmp_path, "a.csv", "id,text\n" + body), "csv", batch_bytes=batch_bytes)
    # Python closes an open quote at the end of the file; here that record is bad
    for row, record in zip(rows, expected, strict=True):
        if row["read_reason"] is None:
            assert [row["origin_id"] or "", row["text"]] == record
        else:
            assert len(record) != 2 or row is rows[-1]


def test_csv_invalid_utf8_is_repaired_and_counted(tmp_path):
    rows = read(write(tmp_path, "a.csv", b"text,id\nM\xfcller \xff,\xfe\n"), "csv")
    assert (rows[0]["text"], rows[0]["repaired"], rows[0]["origin_id"]) == ("M\ufffdller \ufffd", 2, "\ufffd")


def test_csv_without_the_text_column_says_which_is_near(tmp_path):
    with pytest.raises(SourceError, match="did you mean 'texts'"):
        read(write(tmp_path, "a.csv", "id,texts\n1,a\n"), "csv")


def test_csv_with_the_text_column_twice_is_refused(tmp_path):
    with pytest.raises(SourceError, match="2 times"):
        read(write(tmp_path, "a.csv", "text,text\n1,a\n"), "csv")


@pytest.mark.parametrize("batch_bytes", [10, 1 << 20])
def test_csv_record_over_max_document_is_too_large(tmp_path, batch_bytes):
    path = write(tmp_path, "a.csv", 'text\n"' + "x\n" * 50 + '"\nb\n')
    rows = read(path, "csv", max_document=60, batch_bytes=batch_bytes)
    assert texts(rows) == [("too_large",), "b"]
    assert rows[0]["size_bytes"] == 102


def test_tsv_parts_fields_by_tabs(tmp_path):
    assert texts(read(write(tmp_path, "a.tsv", 'id\ttext\n1\ta,"b\n'), "tsv")) == ['a,"b']


# ---- json ----


@pytest.mark.parametrize("batch_bytes", [5, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_of_objects(tmp_path, batch_bytes, indent):
    records = [{"text": 'a,"]}{[\\'}, {"text": None}, 3, {"text": "b", "n": [{"x": "]"}]}, "c", {"text": "ä"}]
    rows = read(write(tmp_path, "a.json", json.dumps(records, indent=indent)), "json", batch_bytes=batch_bytes)
    assert texts(rows) == ['a,"]}{[\\', ("missing_text",), ("not_a_record",), "b", ("not_a_record",), "ä"]


@pytest.mark.parametrize("batch_bytes", [5, 1 << 20])
def test_json_object_of_id_to_text_or_record(tmp_path, batch_bytes):
    content = json.dumps(
        {"one": "a", "tw\u00f6": {"text": "b"}, "three": {"text": "c", "id": 3}, "four": 4, "five": None}, indent=1
    )
    rows = read(write(tmp_path, "a.json", content), "json", batch_bytes=batch_bytes)
    assert texts(rows) == ["a", "b", "c", ("not_a_record",), ("not_a_record",)]
    assert [row["origin_id"] for row in rows] == ["one", "twö", "3", None, None]


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"text":"Hallo","id":"7","url":"http://x"}', [("Hallo", "7", "http://x")]),
        (' {"id":7, "text":"a \\"}", "meta":{"n":[1]}} \n', [('a "}', "7", None)]),
        ('{"a":"one","text":{"text":"two"}}', [("one", "a", None), ("two", "text", None)]),
        ('{"7":"Hallo","url":"http://x"}', [("Hallo", "7", None), ("http://x", "url", None)]),
    ],
    ids=["record", "blanks_around", "id_called_text", "id_to_text"],
)
def test_json_object_with_a_text_is_one_record(tmp_path, content, rows, batch_bytes):
    path = write(tmp_path, "a.json", content)
    found = [(row["text"], row["origin_id"], row["url"]) for row in read(path, "json", batch_bytes=batch_bytes)]
    assert found == rows


def test_json_object_longer_than_a_record_is_read_as_id_to_text(tmp_path):
    path = write(tmp_path, "a.json", json.dumps({str(number): "x" * 50 for number in range(99)} | {"text": "y"}))
    assert len(read(path, "json", batch_bytes=64, max_document=1000)) == 100


@pytest.mark.parametrize("content", ["[]", " [ ] ", "{}", "[\n]\n"])
def test_json_empty_array_or_object_has_no_rows(tmp_path, content):
    assert read(write(tmp_path, "a.json", content), "json") == []


def test_json_broken_element_is_a_row_and_the_next_is_read(tmp_path):
    rows = read(write(tmp_path, "a.json", '[{"text":"a"},{"text":oops},{"text":"b"}]'), "json")
    assert texts(rows) == ["a", ("bad_json",), "b"]
    rows = read(write(tmp_path, "a.json", '{"x":"a","y" 3,"z":"b"}'), "json")
    assert texts(rows) == ["a", ("bad_json",), "b"]


def test_json_that_ends_early_is_truncated(tmp_path):
    rows = read(write(tmp_path, "a.json", '[{"text":"a"},{"te'), "json")
    assert texts(rows) == ["a", ("truncated",)]
    assert rows[1]["size_bytes"] == 4


@pytest.mark.parametrize("content", ['{"text":"a"}\n{"text":"b"}\n', "true", ""])
def test_json_that_is_no_array_or_object_is_unreadable(tmp_path, content):
    with pytest.raises(UnreadableShard):
        read(write(tmp_path, "a.json", content), "json")


# ---- plain text ----


def test_text_a_file_is_a_document(tmp_path):
    assert texts(read(write(tmp_path, "a.txt", b"\xef\xbb\xbfone\n\ntwo\xff\n"), "text", batch_bytes=2)) == [
        "one\n\ntwo\ufffd\n"
    ]
    assert texts(read(write(tmp_path, "a.txt", ""), "text")) == [""]
    assert texts(read(write(tmp_path, "a.txt", "x" * 11), "text", max_document=10)) == [("too_large",)]


def test_text_in_utf16_is_unreadable_and_says_so(tmp_path):
    with pytest.raises(UnreadableShard, match="UTF-16"):
        read(write(tmp_path, "a.txt", "text".encode("utf-16")), "text")


@pytest.mark.parametrize("batch_bytes", [2, 1 << 20])
def test_lines_a_line_is_a_document_and_blank_lines_are_none(tmp_path, batch_bytes):
    counts = ReadCounts()
    path = write(tmp_path, "a.txt", "eins\r\n\n  zwei \n\t\nxxxxxxxxxxxxx\ndrei")
    rows = read(path, "lines", max_document=12, batch_bytes=batch_bytes, counts=counts)
    assert texts(rows) == ["eins", "  zwei ", ("too_large",), "drei"]
    assert counts.blank == 2


# ---- zip ----


def zipped(folder, name, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(folder / name, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return folder / name


def test_zip_members_are_read_in_the_order_of_their_names(tmp_path):
    path = zipped(
        tmp_path, "a.csv.zip", {"b.csv": "text\nb\n", "a.csv": "id,text\n1,a\n2,c\n", "__MACOSX/a.csv": "\x00"}
    )
    rows = read(path, "csv", batch_bytes=4)
    assert [(row["row"], row["text"]) for row in rows] == [(0, "a"), (1, "c"), (2, "b")]


def test_zip_with_a_damaged_member_keeps_the_others(tmp_path):
    path = zipped(tmp_path, "a.zip", {"a.txt": "first " * 9, "b.txt": "second"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"first first", b"First first", 1))  # its checksum is wrong now
    assert texts(read(path, "text", batch_bytes=20)) == [("unreadable",), "second"]


def test_zip_that_is_none_is_unreadable(tmp_path):
    with pytest.raises(UnreadableShard):
        read(write(tmp_path, "a.zip", "no zip"), "text")


def test_format_unknown_says_which_is_near(tmp_path):
    with pytest.raises(SourceError, match="did you mean 'jsonl'"):
        read(write(tmp_path, "a", ""), "josnl")


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("a.jsonl", '{"id": 1, "meta": {"x": 1}}\n{"cut": {"inner": 1}, \n{"body": "a { b"}\n', ("id", "meta", "body")),
        ("a.json", '[{"id": 1},\n {"body": {"x": 1}}, {"cut": {"y": 1}', ("id", "body")),
        ("a.csv", 'id,"a, b"\n1,2\n', ("id", "a, b")),
        ("a.txt", "text", ()),
    ],
)
def test_column_names_are_those_of_the_top_level(tmp_path, name, content, names):
    form = {"txt": "lines"}.get(name[2:], name[2:])
    assert column_names(str(write(tmp_path, name, content)), Reader(form)) == names
