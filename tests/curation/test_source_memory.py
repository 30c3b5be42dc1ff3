"""Peak memory of reading, measured from outside in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

ROOT = Path(__file__).parents[2]
READ = """
import json, re, sys
from pathlib import Path
from curation.source import Reader, read_shard
reasons, size = [], 0
for batch in read_shard(sys.argv[1], Reader(sys.argv[2])):
    reasons += batch["read_reason"].to_pylist()
    size = max(size, *batch["size_bytes"].to_pylist())
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())  # getrusage would count the parent's
print(json.dumps([reasons, size, int(peak[1]) * 1024]))
"""


def reasons_size_and_peak(path, form):
    command = [sys.executable, "-c", READ, str(path), form]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def large_line(folder, name, before, after):
    """A file with a gigabyte of zero bytes between two lines; plain files are sparse."""
    path = folder / name
    if name.endswith(".zst"):
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as out:
            for piece in (before, *[bytes(1 << 24)] * 64, after):
                out.write(piece)
    else:
        with path.open("wb") as file:
            file.write(before)
            file.seek(len(before) + (1 << 30))
            file.write(after)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "name", "before", "after", "reasons"),
    [
        ("jsonl", "a.jsonl", b'{"text":"a"}\n', b'\n{"text":"b"}\n', [None, "too_large", None]),
        ("jsonl", "a.jsonl.zst", b'{"text":"a"}\n', b'\n{"text":"b"}\n', [None, "too_large", None]),
        ("csv", "a.csv", b'text\na\n"', b'"\nb\n', [None, "too_large", None]),
        ("json", "a.json", b'[{"text":"a"},"', b'",{"text":"b"}]', [None, "too_large", None]),
        ("text", "a.txt", b"a", b"b", ["too_large"]),
    ],
)
def test_reading_a_record_of_a_gigabyte_stays_below_200_mb_more(tmp_path, form, name, before, after, reasons):
    small = tmp_path / f"small.{form}"
    small.write_bytes(before + after)
    _, _, resting = reasons_size_and_peak(small, form)
    found, size, peak = reasons_size_and_peak(large_line(tmp_path, name, before, after), form)
    assert found == reasons
    assert size >= 1 << 30
    assert peak - resting < 200e6


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"compression": "snappy"}, {"compression": "zstd", "use_dictionary": False}])
def test_reading_a_parquet_page_of_300_mb_stays_below_200_mb_more(tmp_path, options):
    texts = ["a", "b"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "small.parquet", **options)
    _, _, resting = reasons_size_and_peak(tmp_path / "small.parquet", "parquet")
    large = pa.array([texts[0], "abcdefgh" * (300 << 17), texts[1]])
    pq.write_table(pa.table({"text": large}), tmp_path / "a.parquet", **options)
    del large
    found, size, peak = reasons_size_and_peak(tmp_path / "a.parquet", "parquet")
    assert found == [None, "too_large", None]
    assert size == 300 << 20
    assert peak - resting < 200e6


@pytest.mark.slow
def test_reading_a_document_just_below_the_limit_stays_below_500_mb_more(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"a"}\n')
    _, _, resting = reasons_size_and_peak(path, "jsonl")
    path.write_bytes(b'{"text":"' + b"x" * (63 << 20) + b'"}\n')
    found, size, peak = reasons_size_and_peak(path, "jsonl")
    assert (found, size) == ([None], 63 << 20)
    assert peak - resting < 500e6
