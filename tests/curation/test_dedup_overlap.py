"""The overlap between collections beside a brute-force twin, and the text that two documents share."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import minhash, overlap
from curation.dedup.inputs import MatchInput
from curation.dedup.minhash import Options
from curation.dedup.overlap import CompareOptions, find_overlap
from curation.dedup.shingle import shingle_hashes
from curation.stages.overlap import longest_common

# One hash a band, 24 bands: documents of similarity 0.5 share a band but for one pair in 17 million.
CERTAIN = Options(shingle=2, bands=24, rows=1)


def compared(folder, collections, similarity=0.5, examples=2):
    """Compare lists of texts; returns the result and the texts by (input, row)."""
    given, texts = [], {}
    for number, some in enumerate(collections):
        path = str(folder / f"{number}.parquet")
        batch = minhash.signatures(pa.array(some, pa.large_string()), CERTAIN)
        columns = pa.table({"num_characters": pa.array([len(text) for text in some], pa.int64())})
        pq.write_table(pa.Table.from_batches([batch]), path)
        pq.write_table(columns, f"{path}.columns")
        given.append(MatchInput(f"s{number}", "a", path, (f"{path}.columns",)))
        texts |= {(number, row): text for row, text in enumerate(some)}
    (scratch := folder / "scratch").mkdir()

    def fetch(place, rows):
        return [pa.array([texts[place, row] for row in rows], pa.large_string())]

    options = CompareOptions(CERTAIN, "exact", similarity, examples)
    return find_overlap(given, range(len(given)), options, scratch, 1 << 28, fetch), texts


def twin(texts, similarity):
    """(exact, near) by (collection, collection): documents with a copy there, by comparing all with all."""
    sets = {key: frozenset(shingle_hashes(text, "words", 2).tolist()) for key, text in texts.items()}
    words = {key: tuple(text.split()) for key, text in texts.items()}
    count = max(number for number, _ in texts) + 1
    exact, near = np.zeros((count, count), int), np.zeros((count, count), int)
    for one in texts:
        for column in range(count):
            others = [key for key in texts if key[0] == column and key != one]
            if any(words[one] == words[key] for key in others):
                exact[one[0], column] += 1
            elif sets[one] and any(
                sets[key] and len(sets[one] & sets[key]) / len(sets[one] | sets[key]) >= similarity for key in others
            ):
                near[one[0], column] += 1
    return exact, near


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join), min_size=1), min_size=1, max_size=4
    )
)
def test_overlap_equals_brute_force(tmp_path_factory, collections):
    found, texts = compared(tmp_path_factory.mktemp("overlap"), collections)
    exact, near = twin(texts, 0.5)
    assert found.documents.tolist() == [len(some) for some in collections]
    assert (found.exact.tolist(), found.near.tolist()) == (exact.tolist(), near.tolist())


def test_large_groups_of_mixed_collections_are_all_found(tmp_path):
    """Beyond the size that is compared pair by pair: three hundred documents with one beginning, some alike."""
    draw = random.Random(5)
    collections = [[], [], []]
    for number in range(100):
        for some in collections:
            words = [f"w{draw.randrange(10**6)}" for _ in range(12)]
            some.append(" ".join(["immer", "derselbe", "Anfang", *words]))
        if number % 3 == 0:
            collections[2].append(collections[0][-1] + " anders")
    found, texts = compared(tmp_path, collections, 0.8)
    exact, near = twin(texts, 0.8)
    assert near[0, 2] == 34
    assert (found.exact.tolist(), found.near.tolist()) == (exact.tolist(), near.tolist())


def test_examples_are_copies_and_the_same_for_any_piece(tmp_path, monkeypatch):
    base = [f"das ist Text Nummer {number} mit ein paar Worten mehr" for number in range(10)]
    collections = [base, [text.replace("paar", "vielen") for text in base[:5]] + base[5:9]]
    found, texts = compared(tmp_path, collections, 0.6, examples=3)
    exact, near = [], []
    for pair in found.pairs[0, 1]:
        (exact if pair.similarity == 1 else near).append((texts[pair.one], texts[pair.other]))
    assert len(exact) == len(near) == 3
    assert all(one == other for one, other in exact)
    assert all(one.replace("paar", "vielen") == other for one, other in near)
    monkeypatch.setattr(overlap, "_PIECE", 4)
    (again := tmp_path / "again").mkdir()
    in_pieces, _ = compared(again, collections, 0.6, examples=3)
    assert in_pieces.near.tolist() == found.near.tolist()
    assert found.shared_characters[0, 1] == sum(map(len, base))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (
            "Eins zwei, drei vier fünf sechs. Ende",
            "a b EINS zwei drei vier - fünf sechs c",
            "Eins zwei, drei vier fünf sechs",
        ),
        ("中华人民共和国刑法总则", "旧中华人民共和国刑法", "中华人民共和国刑法"),
        ("a b c d e", "f g h i j", ""),
        ("a b", "a b", "a b"),
        ("", "a b", ""),
    ],
)
def test_longest_common_piece_is_found(one, other, shared):
    assert longest_common(one, other) == shared
