from __future__ import annotations

import json
import pickle
import resource
from dataclasses import asdict, replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixing.domain_index import DomainIndexError
from mixing.domains import build_domain_index
from mixing.reader import TokenReader
from mixing.selections import Selection
from mixing.shards import METADATA_KEY, map_tokens, read_record


@pytest.fixture
def two_domains(make_shard, tmp_path, numbers_text):
    """Domains `law` (tokens 3..32 in documents of 5) and `web` (100..., over two shards), and their streams."""
    law = [numbers_text(3 + 5 * n, 8 + 5 * n) for n in range(6)]
    web = [numbers_text(100 + 7 * n, 107 + 7 * n) for n in range(9)]
    shards = [make_shard("law", "a", law), make_shard("web", "a", web[:4]), make_shard("web", "b", web[4:])]
    for source in ("law", "web"):
        build_domain_index(shards, Selection(source), tmp_path / source)
    streams = [[t for document in d for t in [*map(int, document.split()), 0]] for d in (law, web)]
    return [tmp_path / "law", tmp_path / "web"], streams


def test_reader_mixed_batch_equals_slices_of_the_streams(two_domains):
    paths, streams = two_domains
    reader = TokenReader(paths, 4)
    assert reader.num_sequences.tolist() == [8, 17]
    asked = [(1, 16), (0, 0), (1, 7), (0, 7), (1, 7)]
    batch = reader.read(*np.array(asked).T)
    assert batch.dtype == np.int32
    assert batch.tolist() == [streams[domain][4 * i : 4 * i + 5] for domain, i in asked]


def test_reader_any_context_reads_the_same_stream(two_domains):
    paths, streams = two_domains
    for context in (1, 3, 10, 71):
        reader = TokenReader(paths, context)
        number = int(reader.num_sequences[1])
        windows = reader.read(np.ones(number, np.int64), np.arange(number))
        assert windows.tolist() == [streams[1][context * i : context * (i + 1) + 1] for i in range(number)]


def test_readers_of_more_domains_than_files_are_allowed_raise_the_limit(two_domains):
    paths, streams = two_domains
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(300, limits[1]), limits[1]))
        readers = [TokenReader(paths * 100, context) for context in (3, 4)]  # 400 tables of indexes each
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 800
        assert readers[1].read(np.array([199]), np.array([1])).tolist() == [streams[1][4:9]]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_reader_writes_into_a_given_array(two_domains):
    paths, streams = two_domains
    out = np.zeros((1, 5), np.uint16)
    assert TokenReader(paths, 4).read(np.array([0]), np.array([1]), out=out) is out
    assert out.tolist() == [streams[0][4:9]]


@pytest.mark.parametrize("shape", [(1, 6), (1, 4), (2, 5), (0, 5)])
def test_reader_refuses_an_array_that_does_not_fit_before_it_writes(two_domains, shape):
    with pytest.raises(ValueError, match="need \\(1, 5\\)"):
        TokenReader(two_domains[0], 4).read(np.array([0]), np.array([1]), out=np.zeros(shape, np.int32))


def test_reader_numbers_documents_from_the_start_of_the_sequence(two_domains):
    paths, streams = two_domains
    reader = TokenReader(paths, 8)
    for sequence in range(int(reader.num_sequences[0])):
        tokens = streams[0][8 * sequence : 8 * sequence + 9]
        ended_before = [tokens[:place].count(0) for place in range(9)]
        assert reader.document_numbers(np.array([0]), np.array([sequence]))[0].tolist() == ended_before


def test_reader_empty_batch_is_empty(two_domains):
    empty = np.zeros(0, np.int64)
    assert TokenReader(two_domains[0], 4).read(empty, empty).shape == (0, 5)


@pytest.mark.parametrize(("domain", "sequence"), [(0, 8), (0, -1), (2, 0), (-1, 0)])
def test_reader_sequence_or_domain_that_does_not_exist_is_an_index_error(two_domains, domain, sequence):
    with pytest.raises(IndexError):
        TokenReader(two_domains[0], 4).read(np.array([0, domain]), np.array([0, sequence]))


def test_reader_empty_domain_has_no_sequences(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", [])], Selection("web"), tmp_path / "web")
    reader = TokenReader([tmp_path / "web"], 4)
    assert reader.num_sequences.tolist() == [0]
    with pytest.raises(IndexError, match="sequence 0, but it has 0"):
        reader.read(np.array([0]), np.array([0]))


def test_reader_pickled_reads_the_same(two_domains):
    paths, streams = two_domains
    reader = pickle.loads(pickle.dumps(TokenReader(paths, 4)))
    assert reader.read(np.array([1]), np.array([2])).tolist() == [streams[1][8:13]]


def test_reader_shard_that_changed_since_is_refused(two_domains, make_shard):
    make_shard("law", "a", ["3 4"])  # written over
    with pytest.raises(DomainIndexError, match="had 36 tokens, now 3"):
        TokenReader(two_domains[0], 4)


def test_reader_checksums_tell_which_domain_was_changed(two_domains):
    before = TokenReader(two_domains[0], 4).sampled_checksums()
    assert before == TokenReader(two_domains[0], 4).sampled_checksums()
    tokens = TokenReader(two_domains[0], 4).domains[1].files(0).tokens_path
    tokens.write_bytes(bytes([tokens.read_bytes()[0] ^ 1]) + tokens.read_bytes()[1:])
    after = TokenReader(two_domains[0], 4).sampled_checksums()
    assert [one == other for one, other in zip(before, after)] == [True, False]


def test_reader_wide_tokens_are_read_as_they_are(two_domains, make_shard, tmp_path, number_tokenizer):
    files = make_shard("big", "a", ["3 4 5 6"])
    record = read_record(files)
    build_domain_index([files], Selection("big"), tmp_path / "big")
    stored = (tmp_path / "big").read_bytes()
    wide = map_tokens(files, record).astype("<u4") + 70_000
    wide.tofile(files.tokens_path)
    # the same shard as uint32: its record and the index say so
    table = pq.read_table(files.documents_path)
    with pq.ParquetWriter(files.documents_path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(asdict(replace(record, dtype="<u4")))})
    build_domain_index([files], Selection("big"), tmp_path / "big")
    assert (tmp_path / "big").read_bytes() != stored
    reader = TokenReader([two_domains[0][0], tmp_path / "big"], 4)
    assert reader.read(np.array([1, 0]), np.array([0, 0])).tolist() == [
        [70_003, 70_004, 70_005, 70_006, 70_000],
        [3, 4, 5, 6, 7],
    ]
