import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.perplexity.buckets import (
    Histogram,
    assign,
    ccnet_cutoffs,
    ccnet_percentile,
    cutoffs,
    histogram,
    histograms,
    merge,
    read_cutoffs,
    read_histograms,
    write_cutoffs,
)
from curation.perplexity.levels import level_names

DATA = os.environ.get("GRISTMILL_TEST_DATA")
PERPLEXITIES = st.lists(st.floats(1.0, 1e8), min_size=1, max_size=60)


def column(*values):
    return pa.array(values, pa.float64())


def test_ccnet_cutoffs_published_values_are_reproduced():
    published = {
        "de": (370, 590),
        "en": (340, 520),
        "fr": (180, 330),
        "it": (220, 360),
        "es": (180, 290),
        "zh": (1460, 1950),
    }
    assert {language: ccnet_cutoffs(language) for language in published} == published
    assert [ccnet_percentile("de", p) for p in range(10, 100, 10)] == [250, 310, 370, 430, 500, 590, 710, 920, 1420]
    assert ccnet_cutoffs("xx") is None


@pytest.mark.skipif(not DATA, reason="GRISTMILL_TEST_DATA is not set")
@pytest.mark.shared_data
def test_ccnet_cutoffs_equal_the_released_table():
    import csv

    with (Path(DATA) / "ccnet_cutoff.csv").open(encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert len(header) == 49  # 48 languages
    for at, language in enumerate(header[1:], 1):
        assert [ccnet_percentile(language, int(row[0])) for row in rows] == [float(row[at]) for row in rows]


def test_assign_ccnet_example_and_edges():
    assert assign(column(283.0, 369.9, 370.0, 589.9, 590.0, None), ccnet_cutoffs("de")).to_pylist() == [
        "head", "head", "middle", "middle", "tail", None,
    ]  # fmt: skip
    assert assign(column(5.0, None), None).to_pylist() == [None, None]


def test_assign_other_numbers_of_cutoffs_have_names():
    assert assign(column(1.0, 10.0), (5.0,)).to_pylist() == ["head", "tail"]
    assert level_names(3) == ["head", "middle_1", "middle_2", "tail"]
    with pytest.raises(ValueError, match="must not fall"):
        assign(column(1.0), (5.0, 4.0))


@given(st.lists(PERPLEXITIES, min_size=1, max_size=5))
def test_merge_of_parts_equals_the_whole_in_any_order(parts):
    whole = histogram(column(*[value for part in parts for value in part]))
    merged = merge(histogram(column(*part)) for part in reversed(parts))
    assert (merged.counts == whole.counts).all()
    assert (Histogram.from_sparse(merged.sparse()).counts == whole.counts).all()


@given(PERPLEXITIES, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True).map(sorted))
def test_cutoffs_hold_their_shares_exactly(values, shares):
    limits = cutoffs(histogram(column(*values)), shares)
    ordered = np.sort(values)
    for share, limit in zip(shares, limits, strict=True):
        below = (ordered < limit).sum()
        assert below >= share * len(values)
        # no lower edge would do: the wanted percentile lies within the bin below the cutoff
        wanted = ordered[int(np.ceil(share * len(values))) - 1]
        assert wanted < limit <= wanted * (1 + 2**-11)
        level = assign(column(*values), (limit,)).to_pylist()
        assert level.count("head") == below


def test_cutoffs_thirds_of_a_hundred_documents():
    limits = cutoffs(histogram(column(*map(float, range(1, 101)))), (0.3, 0.6))
    levels = assign(column(*map(float, range(1, 101))), limits).to_pylist()
    assert [levels.count(name) for name in ("head", "middle", "tail")] == [30, 30, 40]


def test_histogram_weights_count_bytes_and_nulls_do_not_count():
    counted = histogram(column(10.0, None, 100.0), np.array([1, 50, 9]))
    assert counted.total == 10
    assert cutoffs(counted, (0.5,))[0] > 100


def test_histograms_of_groups_are_by_name():
    made = histograms(column(1.0, 2.0, 3.0, 4.0), pa.array(["zh", "de", None, "de"]))
    assert {name: counted.total for name, counted in made.items()} == {"de": 2, "zh": 1}


def test_cutoffs_without_documents_or_with_falling_shares_are_refused():
    with pytest.raises(ValueError, match="no perplexities"):
        cutoffs(merge([]), (0.5,))
    with pytest.raises(ValueError, match="must rise"):
        cutoffs(histogram(column(1.0)), (0.6, 0.3))


def test_cutoffs_file_round_trips(tmp_path):
    counted = histogram(column(1.0, 2.0, 3.0))
    write_cutoffs(tmp_path / "c.json", {"zh": (1.5, 2.25), "de": (370.0, 590.0)}, {"de": counted})
    assert read_cutoffs(tmp_path / "c.json", "zh") == (1.5, 2.25)
    assert read_cutoffs(tmp_path / "c.json", "en") is None
    read = read_histograms(tmp_path / "c.json")
    assert list(read) == ["de"]
    assert (read["de"].counts == counted.counts).all()
