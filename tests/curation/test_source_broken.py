"""Broken streams: nothing before the break is lost, and the break is a row."""

import bz2
import gzip
import io
import lzma
import random
import zipfile

import pytest
import zstandard

from curation.source import Reader, UnreadableShard, read_shard
from curation.source.chunks import BrokenStream, read_chunks

LINES = [b'{"text":"%d %d"}\n' % (i, random.Random(i).getrandbits(200)) for i in range(4000)]
PLAIN = b"".join(LINES)
COMPRESS = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bz2": lambda content: bz2.compress(content, 1),
    "xz": lzma.compress,
}


def read(path, **options):
    return [row for batch in read_shard(str(path), Reader("jsonl"), **options) for row in batch.to_pylist()]


def unpacked(content, compression, chunk_bytes=4096):
    """The bytes that could be read, and how the stream ended."""
    held = []
    try:
        for chunk in read_chunks(io.BytesIO(content), compression, chunk_bytes):
            assert len(chunk) <= chunk_bytes + (1 << 17)
            held.append(chunk)
    except BrokenStream as error:
        return b"".join(held), error.reason
    return b"".join(held), "whole"


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("chunk_bytes", [100, 1 << 20])
def test_chunks_of_several_members_are_the_whole_content(compression, chunk_bytes):
    compress = COMPRESS[compression]
    content = compress(PLAIN[:5000]) + compress(b"") + compress(PLAIN[5000:] + b"\0" * 500_000)
    assert unpacked(content, compression, chunk_bytes) == (PLAIN + b"\0" * 500_000, "whole")


@pytest.mark.parametrize("compression", COMPRESS)
def test_chunks_before_a_cut_are_all_given_out(compression):
    content = COMPRESS[compression](PLAIN)
    for cut in (5, len(content) // 3, len(content) - 1):
        held, end = unpacked(content[:cut], compression)
        assert end == "truncated"
        assert PLAIN.startswith(held)
        assert len(held) >= cut - (1 << 18)  # blocks of bz2 (100 kB) and zstd (128 KiB) come whole or not at all
    assert unpacked(content[:-1], compression)[0] == PLAIN


def test_chunks_of_gzip_reach_the_last_byte_before_the_cut():
    content = gzip.compress(PLAIN, 0)  # stored, so a byte in is a byte out
    held, end = unpacked(content[: len(content) // 2], "gz")
    assert end == "truncated"
    assert len(held) > len(content) // 2 - 100


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_chunks_of_a_high_ratio_stay_small(compression):
    zeros = bytes(20_000_000)
    content = COMPRESS[compression](zeros)
    assert len(content) < 25_000
    assert unpacked(content, compression, 1 << 16) == (zeros, "whole")  # `unpacked` checks the size of each chunk


def test_chunks_of_zstd_pass_over_skippable_frames():
    content = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstandard.compress(b"text") + b"\x5f\x2a\x4d\x18\x00\x00\x00\x00"
    assert unpacked(content, "zst") == (b"text", "whole")


@pytest.mark.parametrize("compression", COMPRESS)
def test_shard_cut_short_keeps_what_was_before_and_says_truncated(tmp_path, compression):
    content = COMPRESS[compression](PLAIN)
    path = tmp_path / f"a.jsonl.{compression}"
    path.write_bytes(content[:-20])
    rows = read(path)
    assert [row["read_reason"] for row in rows] == [None] * (len(rows) - 1) + ["truncated"]
    assert [row["text"] for row in rows[:-1]] == [line[9:-3].decode() for line in LINES[: len(rows) - 1]]
    held = unpacked(content[:-20], compression)[0]
    assert len(rows) - 1 == held.count(b"\n")
    assert rows[-1]["size_bytes"] == len(held) - held.rfind(b"\n") - 1
    assert read(path, batch_bytes=777) == rows


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_shard_damaged_inside_ends_with_an_unreadable_row(tmp_path, compression):
    content = bytearray(COMPRESS[compression](PLAIN[:100_000]) + COMPRESS[compression](PLAIN[100_000:]))
    at = len(COMPRESS[compression](PLAIN[:100_000]))
    content[at : at + 4] = b"oops"  # where the second member begins
    path = tmp_path / f"a.jsonl.{compression}"
    path.write_bytes(content)
    rows = read(path)
    assert [row["read_reason"] for row in rows[-2:]] == [None, "unreadable"]
    assert len(rows) == PLAIN[:100_000].count(b"\n") + 1


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("content", [b"", b"this was never compressed", b"\x1f\x8b"])
def test_shard_of_which_nothing_can_be_read_is_unreadable(tmp_path, compression, content):
    path = tmp_path / f"a.jsonl.{compression}"
    path.write_bytes(content)
    with pytest.raises(UnreadableShard) as error:
        read(path)
    assert error.value.path == str(path)


def test_shard_that_is_not_there_or_a_folder_is_unreadable(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UnreadableShard):
            read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_member_of_a_zip_archive_is_a_row_and_the_others_are_read(tmp_path, method):
    path = tmp_path / "a.jsonl.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.jsonl", PLAIN)
        archive.writestr("b.jsonl", b'{"text":"whole"}\n')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    rows = read(path)
    assert [(row["text"], row["read_reason"]) for row in rows[-2:]] == [(None, "unreadable"), ("whole", None)]
    assert all(row["text"] is not None for row in rows[:-2])
