"""Dedup normalisation and shingles against a plain Python twin."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import fold, minhash
from curation.dedup.shingle import BLOCK, shingle_hashes

MASK = (1 << 64) - 1
TEXT = st.text(
    st.one_of(st.sampled_from("aBc ÄßéüЖ中文あกำ１²ﬁ\n\t.,-'0Ⅷ한İ̈👍"), st.characters(exclude_categories=["Cs"])),
    max_size=60,
)


def mix(x):
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 33)


def words(text, normalize):
    """Words as lists of folded code points, by the definition in words."""
    found, alone = [[]], False
    for character in text:
        folded = fold.fold_character(character, normalize)
        if not folded:
            found.append([])
            alone = False
        for part in folded:
            single, mark = bool(part & fold.SINGLE), bool(part & fold.MARK)
            if found[-1] and not mark and (single or alone):
                found.append([])
            if not (mark and found[-1]):
                alone = single
            found[-1].append(part & fold.CODE_POINT)
    return [word for word in found if word]


def hash_word(word):
    value = 0xCBF29CE484222325
    for code_point in word:
        value = (value ^ code_point) * 0x100000001B3 & MASK
    return mix(value)


def shingles(units, size):
    hashes = []
    for start in range(len(units) - size + 1):
        value = 0
        for unit in units[start : start + size]:
            value = (value * 0x9E3779B97F4A7C15 + unit) & MASK
        hashes.append(mix(value))
    return hashes


def characters(text, normalize):
    return [unit for word in spaced(text, normalize) for unit in word]


def spaced(text, normalize):
    runs, current = [], []
    for character in text:
        folded = [part & fold.CODE_POINT for part in fold.fold_character(character, normalize)]
        if folded:
            current += folded
        elif current:
            runs.append(current)
            current = []
    runs += [current] if current else []
    return [run if number == 0 else [32, *run] for number, run in enumerate(runs)]


needs_same_unicode = pytest.mark.skipif(
    unicodedata.unidata_version != fold.unicode_version(), reason="the twin needs the tables' Unicode version"
)


@needs_same_unicode
@settings(max_examples=300, deadline=None)
@given(text=TEXT, normalize=st.sampled_from(fold.NORMALIZATIONS), size=st.integers(1, 4))
def test_shingles_of_any_text_equal_the_plain_twin(text, normalize, size):
    units = [hash_word(word) for word in words(text, normalize)]
    assert shingle_hashes(text, normalize, size).tolist() == shingles(units, size)


@needs_same_unicode
@settings(max_examples=200, deadline=None)
@given(text=TEXT, normalize=st.sampled_from(fold.NORMALIZATIONS), size=st.integers(1, 6))
def test_character_shingles_of_any_text_equal_the_plain_twin(text, normalize, size):
    expected = shingles(characters(text, normalize), size)
    assert shingle_hashes(text, normalize, size, characters=True).tolist() == expected


@needs_same_unicode
def test_fold_tables_equal_their_definition():
    for normalize in fold.NORMALIZATIONS:
        table, starts, expansions = fold.load_fold(normalize)
        for code_point in (*range(0, 0x3400, 7), *range(0xA000, 0x11000, 97), *range(0x1D000, 0x1F000, 13)):
            if 0xD800 <= code_point < 0xE000:
                continue
            entry = int(table[code_point])
            index = entry & fold.CODE_POINT
            found = expansions[starts[index] : starts[index + 1]].tolist() if entry & fold.EXPANDS else [entry]
            assert found == (fold.fold_character(chr(code_point), normalize) or [0]), hex(code_point)


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_shingles_across_blocks_equal_the_plain_twin(size):
    text = " ".join(f"w{number % 997}" for number in range(size))
    units = [hash_word(word) for word in words(text, "words")]
    assert shingle_hashes(text, "words", 5).tolist() == shingles(units, 5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße über ÄPFEL", "STRASSE über äpfel"),
        ("über", unicodedata.normalize("NFD", "über")),
        ("ＡＢＣ　１２３", "abc 123"),
        ("Das ist – wirklich! – so.", "das ist wirklich so"),
        ("ﬁnden", "finden"),
    ],
)
def test_exact_hash_of_texts_that_fold_alike_is_equal(one, other):
    batch = minhash.signatures(pa.array([one, other], pa.large_string()), minhash.Options())
    assert batch.column("exact")[0] == batch.column("exact")[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("ab c", "a bc"), ("a b", "b a"), ("2019", "2020"), ("", "!"), ("!", "?"), ("schon", "schön"), ("a a", "a a a")],
)
def test_exact_hash_of_different_texts_differs(one, other):
    batch = minhash.signatures(pa.array([one, other], pa.large_string()), minhash.Options())
    assert batch.column("exact")[0] != batch.column("exact")[1]


@pytest.mark.parametrize(("normalize", "equal"), [("words", False), ("numbers", True), ("base", True), ("raw", False)])
def test_numbers_are_folded_only_where_the_normalisation_says(normalize, equal):
    one = shingle_hashes("Band 12 von 2019", normalize, 2).tolist()
    assert (one == shingle_hashes("Band 98 von 2020", normalize, 2).tolist()) == equal


def test_chinese_thai_and_japanese_have_a_word_for_each_letter():
    assert len(shingle_hashes("今天天气很好", "words", 1)) == 6
    assert len(shingle_hashes("กขค", "words", 1)) == 3
    assert len(shingle_hashes("ひらがな", "words", 1)) == 4


def test_null_text_has_no_signature_and_short_text_an_exact_hash_only():
    batch = minhash.signatures(
        pa.array([None, "", "one two", "one two three four five"], pa.large_string()), minhash.Options()
    )
    assert batch.column("exact").is_null().to_pylist() == [True, False, False, False]
    assert batch.column("num_shingles").to_pylist() == [None, 0, 0, 1]
    assert batch.column("band_00").is_null().to_pylist() == [True, True, True, False]


def test_signatures_of_a_slice_equal_those_of_the_whole():
    text = pa.array([f"eins zwei drei vier fünf sechs {number}" for number in range(50)], pa.large_string())
    whole = minhash.signatures(text, minhash.Options())
    parts = [minhash.signatures(text.slice(at, 7), minhash.Options()) for at in range(0, 50, 7)]
    assert pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([whole]).combine_chunks())


def test_one_text_alone_has_the_signature_it_has_in_a_batch():
    texts = ["a b c d e f g", "", "ein zwei drei vier fünf", "中文字符在这里很多"]
    batch = minhash.signatures(pa.array(texts, pa.large_string()), minhash.Options())
    for row, text in enumerate(texts):
        alone = minhash.signatures(pa.array([text], pa.large_string()), minhash.Options())
        assert [column[0] for column in alone.columns] == [column[row] for column in batch.columns]
    assert np.asarray(batch.column("num_shingles")).tolist() == [3, 0, 1, 5]
