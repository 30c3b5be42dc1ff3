"""One's own files of every format, plain and compressed, up to token shards, counted beside plain Python."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curation.ledger import Ledger
from mixing.shards import ShardFiles, map_tokens, read_documents, read_record
from mixing.tokenizer import decode, load_tokenizer

RECIPE = """
sources:
  csv: {path: "own/*.csv*", language: de, fields: {text: body, id: key}}
  json: {path: own/array.json, language: de}
  jsonl: {path: [own/jsonl, "more/**/*.jsonl"], language: de}
  parquet: {path: "own/*.parquet", language: de, fields: {text: content, id: number}, where: "stars >= 3"}
  text: {path: "own/*.txt*", language: de}
steps:
  - rules: {name: short, drop: {short: "word_count < 3"}}
tokenizer: {algorithm: byte_bpe, vocabulary: 400}
execution: {raw: raw, workdir: work, workers: 1}
"""


def text_of(name, number):
    return f"Der {number}. Text von {name}, mit „Anführung“\nund einer zweiten Zeile, {number * number}."


def compressed(content):
    return {"": content, ".gz": gzip.compress(content), ".zst": zstandard.compress(content)}


def jsonl_of(name, bad=()):
    lines = [json.dumps({"text": text_of(name, n), "id": f"{name}-{n}"}, ensure_ascii=False) for n in range(5)]
    return "".join(f"{line}\n" for line in [*lines[:2], *bad, *lines[2:]]).encode()


def csv_of(name):
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["key", "body"])
    writer.writerows([f"{name}-{n}", text_of(name, n)] for n in range(4))
    return stream.getvalue().encode()


@pytest.fixture(scope="module")
def own(gristmill, tmp_path_factory):
    """A run over own files up to token shards: the folder of the recipe."""
    folder = tmp_path_factory.mktemp("own")
    raw = folder / "raw"
    for below in ("own/jsonl/deep", "more/a/b"):
        (raw / below).mkdir(parents=True)
    for suffix, content in compressed(jsonl_of("lines", bad=['{"text": 1}', "", "{"])).items():
        (raw / "own" / "jsonl" / f"lines.jsonl{suffix}").write_bytes(content)
    (raw / "own" / "jsonl" / "deep" / "below.jsonl").write_bytes(jsonl_of("below"))
    (raw / "more" / "a" / "b" / "more.jsonl").write_bytes(jsonl_of("more"))
    for suffix, content in compressed(csv_of("table")).items():
        (raw / "own" / f"table.csv{suffix}").write_bytes(content)
    for suffix, content in compressed(text_of("whole", 1).encode()).items():
        (raw / "own" / f"whole.txt{suffix}").write_bytes(content)
    array = [{"text": text_of("array", n)} for n in range(3)] + [{"text": ["no", "text"]}, 7]
    (raw / "own" / "array.json").write_text(json.dumps(array))
    columns = {
        "number": [1, 2, 3, 4],
        "content": [text_of("rows", n) for n in range(3)] + [None],
        "stars": [5, 1, 3, 4],
    }
    pq.write_table(pa.table(columns), raw / "own" / "rows.parquet")
    (folder / "own.yaml").write_text(RECIPE)
    gristmill("run", folder / "own.yaml", "--until", "tokenize")
    return folder


@pytest.fixture(scope="module")
def ledger(own):
    return Ledger.from_json((own / "work" / "runs" / "own" / "ledger.json").read_text())


def expected_rows(raw):
    """Records of each source as plain Python counts them: (rows, of them readable)."""
    lines = jsonl_of("lines").decode().splitlines()
    jsonl = [path for folder in ("own/jsonl", "more") for path in (raw / folder).rglob("*.jsonl*")]
    assert len(jsonl) == 5
    return {
        "csv": (3 * 4, 3 * 4),
        "json": (5, 3),
        "jsonl": (3 * (len(lines) + 2) + 2 * len(lines), 5 * len(lines)),
        "parquet": (3, 2),  # `where` leaves one of the four unread
        "text": (3, 3),
    }


def test_rows_of_every_format_are_those_that_plain_python_counts(own, ledger):
    found = {}
    for source in ledger.sources:
        rows = ledger.scan([source.name]).collect()
        found[source.name] = (rows.height, int(rows["read_reason"].is_null().sum()))
        assert rows["kept"].to_list() == rows["read_reason"].is_null().to_list()
    assert found == expected_rows(own / "raw")


def test_fields_name_the_columns(ledger):
    assert ledger.scan(["csv"]).collect()["origin_id"].to_list()[:2] == ["table-0", "table-1"]
    assert ledger.scan(["parquet"]).collect()["origin_id"].to_list() == ["1", "3", "4"]


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("csv", [text_of("table", n) for n in range(4)] * 3),
        ("json", [text_of("array", n) for n in range(3)]),
        ("jsonl", [text_of(name, n) for name in ("more", "below", "lines", "lines", "lines") for n in range(5)]),
        ("parquet", [text_of("rows", 0), text_of("rows", 2)]),
        ("text", [text_of("whole", 1)] * 3),
    ],
)
def test_token_shards_hold_the_texts(own, source, texts):
    work = own / "work"
    tokenizer = load_tokenizer(next(work.glob("tokenizer-*")) / "all.tokenizer")
    found = []
    for path in sorted(next(work.glob(f"{source}.tokens-*")).glob("*.tokens")):
        documents = path.with_name(f"{path.name.removesuffix('.tokens')}.documents.parquet")
        files = ShardFiles(source, path.stem, path, documents)
        tokens = np.asarray(map_tokens(files, read_record(files)))
        start = 0
        for batch in read_documents(files):
            for end in batch.column("end").to_pylist():
                assert tokens[end - 1] == tokenizer.eos
                found.append(decode(tokenizer, tokens[start : end - 1]))
                start = end
    assert sorted(found) == sorted(texts)


def test_ledger_rows_are_the_lines_of_the_files(finished):
    """The made texts hold planted records that cannot be read; each is a row all the same."""
    stored = Ledger.from_json((finished.workdir / "runs" / "small" / "ledger.json").read_text())
    for source in stored.sources:
        rows = stored.scan([source.name]).select("shard", "row", "read_reason").collect()
        for shard in source.shards:
            lines = [line for line in Path(shard.path).read_bytes().split(b"\n") if line.strip()]
            mine = rows.filter(rows["shard"] == shard.shard)
            assert mine["row"].to_list() == list(range(len(lines)))
            readable = [is_readable(line) for line in lines]
            assert mine["read_reason"].is_null().to_list() == readable
        assert not rows["read_reason"].is_null().all()


def is_readable(line):
    try:
        record = json.loads(line.decode(errors="replace"))
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("text"), str)
