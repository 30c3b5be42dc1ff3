from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixing import packing
from mixing.domain_index import DomainIndexError
from mixing.domains import DomainTokens, build_domain_index
from mixing.packing import pack_domain
from mixing.reader import TokenReader
from mixing.selections import Selection

PAD = 2
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def packed(shards, tmp_path, context: int):
    """Counts and sequences (as lists) of the packed domain `web`."""
    build_domain_index(shards, Selection("web"), tmp_path / "contiguous")
    counts = pack_domain(tmp_path / "contiguous", context, tmp_path / "packed")
    reader = TokenReader([tmp_path / "packed"], context, padding=PAD)
    number = int(reader.num_sequences[0])
    everything = (np.zeros(number, np.int64), np.arange(number))
    return counts, reader.read(*everything).tolist(), reader.document_numbers(*everything).tolist()


def test_packing_fits_documents_without_cutting_them(make_shard, tmp_path):
    # with end tokens: lengths 3, 2, 5, 3, 2 in sequences of 5
    shards = [make_shard("web", "a", ["3 4", "5", "6 7 8 9", "10 11", "12"])]
    counts, sequences, numbers = packed(shards, tmp_path, 4)
    assert sequences == [[6, 7, 8, 9, 0], [3, 4, 0, 12, 0], [5, 0, 10, 11, 0]]
    assert numbers == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    assert counts["padding"] == counts["num_cut_documents"] == counts["repeated_tokens"] == 0


def test_packing_long_document_is_cut_with_one_token_of_overlap(make_shard, tmp_path):
    counts, sequences, numbers = packed([make_shard("web", "a", ["3 4 5 6 7 8 9"])], tmp_path, 3)
    assert sequences == [[3, 4, 5, 6], [6, 7, 8, 9], [9, 0, PAD, PAD]]
    assert numbers == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, -1, -1]]
    assert (counts["num_cut_documents"], counts["repeated_tokens"], counts["padding"]) == (1, 2, 2)
    domain = DomainTokens.open(tmp_path / "packed")
    assert [(s.row, s.start, s.stop, s.offset) for s in domain.documents_in(2, 3)] == [(0, 0, 2, 6)]
    assert domain.sequences_of("web", "a", 0, 3) == [0, 1, 2]


def test_reader_marks_the_token_that_a_later_piece_only_reads(make_shard, tmp_path):
    # 3 4 5 6 | 6 7 end, then a whole document in the same sequence
    build_domain_index([make_shard("web", "a", ["3 4 5 6 7", "8"])], Selection("web"), tmp_path / "contiguous")
    pack_domain(tmp_path / "contiguous", 4, tmp_path / "packed")
    read = TokenReader([tmp_path / "packed"], 4, padding=-1).read(np.zeros(2, int), np.arange(2))
    assert read.tolist() == [[3, 4, 5, 6, 7], [-2 - 7, 0, 8, 0, -1]]
    assert TokenReader([tmp_path / "packed"], 4).read(np.zeros(2, int), np.arange(2))[1].tolist() == [7, 0, 8, 0, 0]
    # behind another document: marked in the middle of its sequence
    build_domain_index([make_shard("web", "b", ["9 9", "3 4 5 6 7 8"])], Selection("web"), tmp_path / "contiguous")
    pack_domain(tmp_path / "contiguous", 5, tmp_path / "packed")
    read = TokenReader([tmp_path / "packed"], 5, padding=-1).read(np.zeros(2, int), np.arange(2))
    assert read.tolist() == [[3, 4, 5, 6, 7, 8], [9, 9, 0, -2 - 8, 0, -1]]


def test_packing_document_of_exactly_a_sequence_stays_whole(make_shard, tmp_path):
    counts, sequences, _ = packed([make_shard("web", "a", ["3 4 5"])], tmp_path, 3)
    assert sequences == [[3, 4, 5, 0]]
    assert counts["num_cut_documents"] == 0


DOCUMENTS = st.lists(st.lists(st.integers(3, 99), max_size=20), max_size=25)


@SETTINGS
@given(shards=st.lists(DOCUMENTS, min_size=1, max_size=2), context=st.integers(1, 9), group=st.integers(1, 30))
def test_packing_predicts_every_token_of_a_document_once(make_shard, tmp_path, shards, context, group, monkeypatch):
    monkeypatch.setattr(packing, "GROUP_DOCUMENTS", group)
    documents = [document for shard in shards for document in shard]
    made = [
        make_shard("web", f"s{number}", [" ".join(map(str, document)) for document in shard])
        for number, shard in enumerate(shards)
    ]
    counts, sequences, numbers = packed(made, tmp_path, context)
    pairs, padding = [], 0
    for sequence, inside in zip(sequences, numbers):
        padding += inside.count(-1)
        assert all(token == PAD for token, number in zip(sequence, inside) if number == -1)
        assert inside == sorted(inside, key=lambda number: (number == -1, number))
        pairs += [(a, b) for a, b, m, n in zip(sequence, sequence[1:], inside, inside[1:]) if m == n != -1]
    wanted = [pair for document in documents for pair in zip([*document, 0], [*document, 0][1:])]
    assert sorted(pairs) == sorted(wanted)
    assert counts["padding"] == padding
    assert counts["num_tokens"] == sum(len(document) + 1 for document in documents)
    assert counts["num_tokens"] + counts["repeated_tokens"] + padding == len(sequences) * (context + 1)
    # a document that fits lies in one sequence
    domain = DomainTokens.open(tmp_path / "packed")
    for number, shard in enumerate(shards):
        for row, document in enumerate(shard):
            inside = domain.sequences_of("web", f"s{number}", row, context)
            assert len(inside) == max(1, -(-len(document) // context))


def packed_whole(documents, context: int, group: int):
    """Sequences where all pieces of a group are placed together, the full ones too."""
    sequences = []
    documents = [[*document, 0] for document in documents]
    for first in range(0, len(documents), group):
        pieces = [
            document[place : place + context + 1]
            for document in documents[first : first + group]
            for place in range(0, max(1, len(document) - 1), context)
        ]
        order, bins, number = packing.best_fit_bins(np.array([len(piece) for piece in pieces], np.int64), context + 1)
        made = [[] for _ in range(number)]
        for piece, place in zip(order.tolist(), bins.tolist()):
            made[place] += pieces[piece]
        sequences += [sequence + [PAD] * (context + 1 - len(sequence)) for sequence in made]
    return sequences


@SETTINGS
@given(documents=DOCUMENTS, context=st.integers(1, 9), group=st.integers(1, 30), chunk=st.integers(1, 5))
def test_packing_full_pieces_some_at_a_time_lie_where_packing_all_at_once_puts_them(
    make_shard, tmp_path, documents, context, group, chunk, monkeypatch
):
    monkeypatch.setattr(packing, "GROUP_DOCUMENTS", group)
    monkeypatch.setattr(packing, "CHUNK_PIECES", chunk)
    shards = [make_shard("web", "a", [" ".join(map(str, document)) for document in documents])]
    _, sequences, _ = packed(shards, tmp_path, context)
    assert sequences == packed_whole(documents, context, group)


def test_packing_a_document_of_many_sequences_holds_few_of_its_pieces(make_shard, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK_PIECES", 1000)
    build_domain_index([make_shard("web", "a", ["7 " * 400_000])], Selection("web"), tmp_path / "contiguous")
    pack_domain(tmp_path / "contiguous", 2, tmp_path / "packed")  # kernels are compiled
    tracemalloc.start()
    counts = pack_domain(tmp_path / "contiguous", 2, tmp_path / "packed")
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts["num_sequences"] == 200_000
    assert most_bytes < 4_000_000  # all pieces at once: 1.6 MB for each of a dozen columns


def slow_best_fit(lengths: list[int], capacity: int) -> int:
    """Number of sequences that best fit, longest first, needs."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        enough = [room for room in rooms if room >= length]
        room = min(enough, default=capacity)
        if enough:
            rooms.remove(room)
        rooms.append(room - length)
    return len(rooms)


@SETTINGS
@given(lengths=st.lists(st.integers(1, 200), max_size=60), capacity=st.integers(200, 210))
def test_packing_needs_as_many_sequences_as_a_slow_best_fit(lengths, capacity):
    order, bins, number = packing.best_fit_bins(np.array(lengths, np.int64), capacity)
    assert number == slow_best_fit(lengths, capacity)
    filled = np.bincount(bins, np.array(lengths, np.int64)[order], number) if number else np.zeros(0)
    assert (filled <= capacity).all()
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_packing_wastes_little_where_documents_are_many_and_short(make_shard, tmp_path):
    lengths = np.random.default_rng(0).integers(1, 60, 3000)
    shards = [make_shard("web", "a", [" ".join(["7"] * int(length)) for length in lengths])]
    counts, _, _ = packed(shards, tmp_path, 64)
    assert counts["padding"] / counts["num_tokens"] < 0.03
    assert counts["num_cut_documents"] == 0


def test_packing_documents_without_tokens_makes_no_sequence(make_shard, tmp_path):
    counts, sequences, _ = packed([make_shard("web", "a", ["", ""], eos=False)], tmp_path, 3)
    assert (counts["num_documents"], counts["num_sequences"], sequences) == (2, 0, [])


def test_packing_twice_is_refused_and_another_context_too(make_shard, tmp_path):
    packed([make_shard("web", "a", ["3 4 5"])], tmp_path, 3)
    with pytest.raises(DomainIndexError, match="packed already"):
        pack_domain(tmp_path / "packed", 3, tmp_path / "again")
    with pytest.raises(DomainIndexError, match="packed for context 3, asked for 4"):
        TokenReader([tmp_path / "packed"], 4)


def test_packing_into_another_folder_finds_its_shards(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", ["3 4 5"])], Selection("web"), tmp_path / "contiguous")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    pack_domain(tmp_path / "contiguous", 3, tmp_path / "deep" / "er" / "packed")
    reader = TokenReader([tmp_path / "deep" / "er" / "packed"], 3)
    assert reader.read(np.array([0]), np.array([0])).tolist() == [[3, 4, 5, 0]]
