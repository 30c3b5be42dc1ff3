"""Which document of a cluster stays: places by a column, ranks, and what decided."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.dedup.dates import read_date, read_dates
from curation.dedup.inputs import Inputs, MatchInput
from curation.dedup.keep import Criterion, column_places, deciding, ranks
from curation.dedup.layer import Result
from curation.dedup.minhash import Options, SignatureError


@pytest.mark.parametrize(
    ("order", "values", "places"),
    [
        ("ascending", [2.0, None, 1.0, 2.0], [1, 2, 0, 1]),
        ("descending", [2.0, None, 1.0, 2.0], [0, 2, 1, 0]),
        ("descending", [float("nan"), 3.0, float("-inf")], [2, 0, 1]),
        ("ascending", [7, None], [0, 1]),
        ("ascending", ["b", None, "ä", "a"], [1, 3, 2, 0]),
        ("ascending", [None, None], [0, 0]),
        ("ascending", [], []),
        (("new", "old"), ["old", None, "new", "other"], [1, 2, 0, 2]),
    ],
)
def test_column_places_put_what_is_missing_last_in_either_order(order, values, places):
    column = pa.chunked_array([pa.array(values)])
    assert column_places(Criterion("signal", "signal", order=order), column).tolist() == places


def test_deciding_names_the_first_criterion_that_differs_from_the_best_loser():
    places = [np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0])]
    rank = ranks(places, 4)
    assert rank.tolist() == [0, 2, 3, 1]
    assert deciding(places, np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [1, 0, 2]
    # 0 stays of 0, 1 and 2: against 1, the better of the two, the second criterion decided
    survivor = np.array([0, 0, 0, 3])
    made = Result.make(np.arange(4), survivor, np.ones(4), rank, places, ["first", "second"], (0, 0, 0))
    assert made.decided.tolist() == [1, 1, 1, 2]
    assert (made.size.tolist(), made.first.tolist()) == ([3, 3, 3, 1], [0, 0, 0, 3])
    assert made.dropped.tolist() == [False, True, True, False]


def of_sources(folder, *columns):
    """Inputs of sources ja, jb … with a column `score@source` each."""
    given = []
    for name, values in zip(("ja", "jb", "jc"), columns):
        ids = pa.array([bytes([row]) * 16 for row in range(len(values))], pa.binary(16))
        pq.write_table(pa.table({"content_id": ids, "score@source": values}), folder / f"{name}.parquet")
        given.append(MatchInput(name, "p", str(folder / f"{name}.parquet")))
    return Inputs(given, Options(shingle=1, bands=0, rows=1), "content_id")


@pytest.mark.parametrize(
    ("columns", "best"),
    [
        ([pa.array([1, 2]), pa.array([1.5, 2.5])], 3),
        ([pa.array([1, 9], pa.int32()), pa.array([7.5, 2.5], pa.float32()), pa.array([None, None])], 1),
        ([pa.array([2**40, 1]), pa.array([0.5], pa.float32())], 0),
        ([pa.array(["9", "8"]), pa.array(["10"], pa.large_string())], 0),
    ],
)
def test_column_of_two_types_is_compared_in_one(tmp_path, columns, best):
    inputs = of_sources(tmp_path, *columns)
    values = inputs.values("score@source", np.arange(inputs.num_documents))
    assert values.type == inputs.common_type("score@source")
    assert column_places(Criterion("score", "score@source", order="descending"), values).argmin() == best


def test_text_beside_numbers_is_refused_with_both_sources(tmp_path):
    inputs = of_sources(tmp_path, pa.array(["9"]), pa.array([10]))
    with pytest.raises(SignatureError, match="score is int64 in source jb and string in source ja"):
        inputs.common_type("score@source")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05"),
        ("2024-01-02 03:04:05+02:00", "2024-01-02T01:04:05"),
        ("2024-01", "2024-01-01"),
        ("2024", "2024-01-01"),
        ("20240102030405", "2024-01-02T03:04:05"),
        ("02.01.2024", "2024-01-02"),
        ("Tue, 02 Jan 2024 03:04:05 GMT", "2024-01-02T03:04:05"),
        ("1704164645", "2024-01-02T03:04:05"),
        ("1704164645000", "2024-01-02T03:04:05"),
        ("999999999", "2001-09-09T01:46:39"),
        ("01/02/2024", None),
        ("31.13.2024", None),
        ("gestern", None),
        ("12", None),
        ("", None),
    ],
)
def test_date_is_read_in_the_forms_that_name_one_day(text, wanted):
    found = read_date(text)
    assert found == (None if wanted is None else np.datetime64(wanted, "s").astype(int))


def test_newest_is_the_latest_date_and_what_is_none_comes_last():
    texts = ["31.12.2018", "gestern", None, "2024-01-02", "", "999999999"]
    values, unread = read_dates(pa.chunked_array([pa.array(texts[:2]), pa.array(texts[2:])]))
    assert column_places(Criterion("newest", "date", order="newest"), values).tolist() == [1, 3, 3, 0, 3, 2]
    assert unread == 1
