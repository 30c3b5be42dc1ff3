"""JSON lines against a plain twin: Python's json, line by line."""

import codecs
import gzip
import json
import random
import re

import pytest
import xxhash
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.source import ReadCounts, Reader, read_shard

MARK = "\U0010fffe"  # stands for an invalid UTF-8 sequence while the twin counts
codecs.register_error("mark", lambda error: (MARK, error.end))


def read(path, reader=None, **options):
    return [row for batch in read_shard(str(path), reader or Reader("jsonl"), **options) for row in batch.to_pylist()]


def write(folder, content, name="shard.jsonl"):
    path = folder / name
    path.write_bytes(content)
    return path


class Digits(str):
    """A number as it is written."""


def twin(content):
    """(row, text, read reason, repaired, origin id) of every record, slowly."""
    rows = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if line.strip(b" \t\r"):
            rows.append((len(rows), *twin_record(line)))
    return rows


def twin_record(line):
    try:
        record = json.loads(line.decode("utf-8", "mark"), parse_int=Digits, parse_float=Digits)
    except ValueError:
        return None, "bad_json", 0, None
    if not isinstance(record, dict):
        return None, "not_a_record", 0, None
    origin = twin_id(record.get("id"))
    text = record.get("text")
    if text is None or text != text or text in (float("inf"), float("-inf")):
        return None, "missing_text", 0, origin
    if not isinstance(text, str) or isinstance(text, Digits):
        return None, "non_string_text", 0, origin
    repaired = text.count(MARK) + len(re.findall("[\ud800-\udfff]", text))
    return plain(text), None, repaired, origin


def twin_id(value):
    if value is None or isinstance(value, float):
        return None  # the floats left are NaN and the infinities
    return plain(value) if isinstance(value, str) else ...


def plain(text):
    return re.sub("[\ud800-\udfff]", "\ufffd", text).replace(MARK, "\ufffd")


def found(rows):
    return [(r["row"], r["text"], r["read_reason"], r["repaired"], r["origin_id"]) for r in rows]


def assert_same(content, path, batch_bytes):
    expected, actual = twin(content), found(read(path, batch_bytes=batch_bytes))
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours[:4] == theirs[:4]
        if theirs[4] is not ...:  # the twin does not know how an array or object was written
            assert ours[4] == theirs[4]


CASES = {
    b'{"text":"a"}': ("a", None, 0),
    b' {"text" : "a" , "n" : [1, {"b": null}] } \r': ("a", None, 0),
    b'{"text":""}': ("", None, 0),
    b'{"text":"first","text":"last"}': ("last", None, 0),
    b'{"te\\u0078t":"escaped name"}': ("escaped name", None, 0),
    b'{"text":"\\u0000\\n\\t\\"\\\\\\/\\b\\f\\r\\u00e4\\ud83d\\ude00"}': ('\0\n\t"\\/\b\f\rä😀', None, 0),
    b'{"text":"\\ud800"}': ("\ufffd", None, 1),
    b'{"text":"\\ude00\\ud83d"}': ("\ufffd\ufffd", None, 2),
    b'{"text":"\\ud83dx\\ude00"}': ("\ufffdx\ufffd", None, 2),
    b'{"text":"\\ud83d\\ud83d\\ude00"}': ("\ufffd😀", None, 1),
    b'{"text":"\xff\xe4\xb8 \xef\xbf\xbd"}': ("\ufffd\ufffd \ufffd", None, 2),
    b'{"text":"x","score":NaN,"low":-Infinity}': ("x", None, 0),
    b'{"text":"x","big":123456789012345678901234567890,"e":-1.5E+10}': ("x", None, 0),
    b'{"text":null}': (None, "missing_text", 0),
    b'{"Text":"a"}': (None, "missing_text", 0),
    b"{}": (None, "missing_text", 0),
    b'{"text":3}': (None, "non_string_text", 0),
    b'{"text":["a"]}': (None, "non_string_text", 0),
    b'{"text":true}': (None, "non_string_text", 0),
    b'["text"]': (None, "not_a_record", 0),
    b'"text"': (None, "not_a_record", 0),
    b"12": (None, "not_a_record", 0),
    b'{"text":"a"': (None, "bad_json", 0),
    b'{"text":"a"}}': (None, "bad_json", 0),
    b'{"text":"a"} {"text":"b"}': (None, "bad_json", 0),
    b'{"text":"a",}': (None, "bad_json", 0),
    b"{'text':'a'}": (None, "bad_json", 0),
    b'{"text":"a\tb"}': (None, "bad_json", 0),
    b'{"text":"\\x"}': (None, "bad_json", 0),
    b'{"text":"\\u12g4"}': (None, "bad_json", 0),
    b'{"text":"a","n":01}': (None, "bad_json", 0),
    b'{"text":"a","n":1.}': (None, "bad_json", 0),
    b'{"text":"a","n":[1,]}': (None, "bad_json", 0),
    b'{"text":"a","n":{"b"}}': (None, "bad_json", 0),
    b'{"text":"a","n":[}': (None, "bad_json", 0),
    b'{"text":"a","n":nul}': (None, "bad_json", 0),
    b"\xff": (None, "bad_json", 0),
    b"{": (None, "bad_json", 0),
}


@pytest.mark.parametrize("batch_bytes", [7, 1 << 20])
def test_jsonl_every_kind_of_line_is_a_row(tmp_path, batch_bytes):
    path = write(tmp_path, b"\n".join(CASES) + b"\n")
    rows = read(path, batch_bytes=batch_bytes)
    for line, row in zip(CASES, rows, strict=True):
        assert (row["text"], row["read_reason"], row["repaired"]) == CASES[line], line
    assert [row["row"] for row in rows] == list(range(len(CASES)))


def test_jsonl_hand_made_lines_equal_the_twin(tmp_path):
    content = b"\n".join(CASES)
    assert_same(content, write(tmp_path, content), 100)


scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**25), 10**25), st.floats(), st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
texts = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(categories=("Cs", "Lo", "Cc", "So")), max_size=30),
    st.sampled_from(["", "a" * 300]),
)


@st.composite
def lines(draw):
    names = draw(st.lists(st.sampled_from(["text", "id", "url", "other", "te\u00e4xt"]), max_size=4))
    members = [(name, draw(texts if name == "text" else values)) for name in names]
    ascii_only = draw(st.booleans())
    written = ",".join(
        json.dumps(name, ensure_ascii=ascii_only) + ":" + json.dumps(value, ensure_ascii=ascii_only)
        for name, value in members
    )
    line = bytearray(("{" + written + "}").encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3)) if draw(st.booleans()) else 0):  # planted errors
        at = draw(st.integers(0, len(line)))
        change = draw(st.sampled_from([b"", b"\xff", b'"', b"\\", b"}", b"0", b"\x00", b"\xc3", b"[", b","]))
        line[at : at + draw(st.integers(0, 2))] = change
    return bytes(line)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines(), max_size=6), st.integers(1, 400), st.sampled_from([b"", b"\n", b"\r\n \n"]))
def test_jsonl_random_records_with_planted_errors_equal_the_twin(tmp_path, records, batch_bytes, ending):
    content = b"\n".join(records) + ending
    assert_same(content, write(tmp_path, content), batch_bytes)


def test_jsonl_rows_do_not_depend_on_batch_bytes_or_compression(tmp_path):
    chance = random.Random(3)
    content = b"\n".join(chance.choice(list(CASES)) for _ in range(500)) + b"\n\n"
    expected = read(write(tmp_path, content))
    assert read(write(tmp_path, content), batch_bytes=64) == expected
    assert read(write(tmp_path, gzip.compress(content), "shard.jsonl.gz"), batch_bytes=999) == expected
    assert read(write(tmp_path, zstandard.compress(content), "shard.jsonl.zst"), batch_bytes=5000) == expected


def test_jsonl_content_id_is_the_hash_of_the_text_or_of_the_raw_record(tmp_path):
    rows = read(write(tmp_path, '{"text":"\\u00e4"}\n{bad\n{"text":"ä","id":2}'.encode()))
    assert rows[0]["content_id"] == xxhash.xxh3_128_digest("ä".encode()) == rows[2]["content_id"]
    assert rows[1]["content_id"] == xxhash.xxh3_128_digest(b"{bad")
    assert [(row["size_bytes"], row["num_characters"]) for row in rows] == [(2, 1), (4, None), (2, 1)]


def test_jsonl_blank_lines_are_counted_and_are_no_records(tmp_path):
    counts = ReadCounts()
    rows = read(write(tmp_path, b'\n{"text":"a"}\n \t\r\n\n{"text":"b"}\n'), counts=counts)
    assert [(row["row"], row["text"]) for row in rows] == [(0, "a"), (1, "b")]
    assert (counts.records, counts.rows, counts.blank) == (2, 2, 3)


def test_jsonl_value_nested_200_deep_is_read_and_201_deep_is_bad(tmp_path):
    lines = ['{"text":"a","n":' + "[" * n + "]" * n + "}" for n in (200, 201)]
    assert [row["read_reason"] for row in read(write(tmp_path, "\n".join(lines).encode()))] == [None, "bad_json"]


@pytest.mark.parametrize("batch_bytes", [16, 1 << 20])
def test_jsonl_record_over_max_document_is_too_large_and_the_rest_is_read(tmp_path, batch_bytes):
    large = b'{"text":"' + b"x" * 100 + b'"}'
    path = write(tmp_path, b'{"text":"a"}\n' + large + b'\n{"text":"b"}\n' + large)
    rows = read(path, Reader("jsonl", max_document=100), batch_bytes=batch_bytes)
    assert [row["read_reason"] for row in rows] == [None, "too_large", None, "too_large"]
    assert rows[1]["size_bytes"] == len(large) == 111
    assert rows[1]["content_id"] == rows[3]["content_id"] == xxhash.xxh3_128_digest(large)
    assert read(path, Reader("jsonl", max_document=111), batch_bytes=batch_bytes)[1]["text"] == "x" * 100


def test_jsonl_byte_order_mark_is_skipped(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbf{"text":"a"}\n')
    assert [row["text"] for row in read(path, batch_bytes=1)] == ["a"]


def test_jsonl_empty_file_has_no_rows(tmp_path):
    assert read(write(tmp_path, b"")) == []


def test_jsonl_other_fields_come_from_their_columns_as_text(tmp_path):
    path = write(
        tmp_path, b'{"content":"a","nr":1e3,"link":"u\\n","date":{"y": 1},"licence":true}\n{"content":"b","nr":null}'
    )
    rows = read(path, Reader("jsonl", fields=(("id", "nr"), ("text", "content"), ("url", "link"))))
    assert [rows[0][name] for name in ("text", "origin_id", "url", "date", "licence")] == [
        "a",
        "1e3",
        "u\n",
        '{"y": 1}',
        "true",
    ]
    assert [rows[1][name] for name in ("text", "origin_id", "url", "date", "licence")] == ["b", None, None, None, None]
