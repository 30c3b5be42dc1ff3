from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from mixing.tokenizer_study import tokens_per_unit, turning_points, unit_of
from mixing.tokenizer_text import below, kept_aside, measured_from, take_text, text_limits

TEXTS = [f"document number {number} " * (1 + number % 7) for number in range(400)]
IDS = pa.array([xxhash.xxh3_128_digest(text) for text in TEXTS], pa.binary(16))
SIZES = np.array([len(text) for text in TEXTS])


@pytest.mark.parametrize("size_bytes", [1, 2_000, 10**9])
def test_text_kept_aside_is_in_no_sample_however_large(size_bytes):
    first, before = measured_from([(IDS, SIZES)], size_bytes, 0.25)
    aside = kept_aside(IDS, first).to_numpy(zero_copy_only=False)
    assert 0 < SIZES[aside].sum() <= max(min(size_bytes, SIZES.sum() // 4), SIZES.max())
    assert before == SIZES[~aside].sum()
    rest = list(below([(IDS, SIZES)], first))
    limits, counts = text_limits({"web": rest}, 10**9, {"web": 1.0})
    assert counts["web"]["taken_bytes"] == before
    taken = [
        t
        for array in take_text([("web", IDS, pa.array(TEXTS, pa.large_string()))], {"web": min(limits["web"], first)})
        for t in array.to_pylist()
    ]
    assert sorted(taken) == sorted(text for text, kept in zip(TEXTS, aside) if not kept)


def test_text_kept_aside_of_one_document_is_that_document():
    first, before = measured_from([(IDS[:1], SIZES[:1])], 10, 0.1)
    assert kept_aside(IDS[:1], first).to_pylist() == [True]
    assert before == 0


def test_fertility_of_a_spaceless_language_is_by_character():
    measured = {"language": "zh-Hant", "tokens_per_word": 60.0, "tokens_per_character": 0.7}
    assert (tokens_per_unit(measured), unit_of("zh-Hant")) == (0.7, "character")
    assert (tokens_per_unit({**measured, "language": "de"}), unit_of("de")) == (60.0, "word")


def test_turning_point_of_a_curve_that_rises_again():
    best, excess = turning_points([(1, 2.0), (4, 1.6), (16, 1.68)])
    assert best == 4
    assert excess == pytest.approx(0.05)
    assert turning_points([(1, 2.0), (4, 1.6)]) == (4, 0.0)
