"""Values that sequences are sorted by: means of their documents' values, beside a slow twin."""

import math
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.layers import read_layers, write_layer
from mixing import sort_values
from mixing.domains import DomainTokens, build_domain_index
from mixing.packing import pack_domain
from mixing.selections import Selection
from mixing.sort_values import SortValueError, sequence_values

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DOCUMENTS = st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(-50, 50))), min_size=1, max_size=15)


def slow_values(domain, context, values):
    """The mean over every token that a sequence starts from (its last is the next one's first; packed: all)."""
    found = []
    for sequence in range(domain.num_sequences(context)):
        pairs = []
        for piece in domain.documents_in(sequence, context):
            stop = piece.stop if domain.footer.context else min(piece.stop, context)
            value = values[piece.shard][piece.row]
            pairs += [] if math.isnan(value) else [value] * (stop - piece.start)
        found.append(sum(pairs) / len(pairs) if pairs else math.nan)
    return found


@SETTINGS
@given(
    shards=st.lists(DOCUMENTS, min_size=1, max_size=3), context=st.integers(1, 9),
    is_packed=st.booleans(), group=st.integers(1, 20),
)  # fmt: skip
def test_sequence_values_are_means_over_tokens(make_shard, tmp_path, monkeypatch, shards, context, is_packed, group):
    monkeypatch.setattr(sort_values, "_PIECES", group)
    made = [make_shard("web", f"s{n}", [" ".join(["7"] * length) for length, _ in one]) for n, one in enumerate(shards)]
    columns = [[math.nan if value is None else float(value) for _, value in one] for one in shards]
    values = {f"s{n}": np.array(column) for n, column in enumerate(columns)}
    build_domain_index(made, Selection("web"), tmp_path / "index")
    if is_packed:
        pack_domain(tmp_path / "index", context, tmp_path / "packed")
    domain = DomainTokens.open(tmp_path / ("packed" if is_packed else "index"))
    found = sequence_values(domain, context, lambda source, shard: values[shard])
    np.testing.assert_allclose(found, slow_values(domain, context, values), rtol=1e-12)


def test_sequence_values_of_a_source_without_the_signal_are_none(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", ["3 4 5 6 7"])], Selection("web"), tmp_path / "index")
    assert np.isnan(sequence_values(DomainTokens.open(tmp_path / "index"), 2, lambda source, shard: None)).all()


def test_values_of_a_sampled_shard_belong_to_the_rows_that_were_read(tmp_path):
    rows = pa.record_batch({"row": pa.array([1, 4, 5], pa.int64()), "num_characters": pa.array([10, 40, 50])})
    signals = pa.record_batch({"score@m": pa.array([0.1, None, 0.5])})
    paths = [str(tmp_path / "rows.parquet"), str(tmp_path / "m.parquet")]
    for path, batch in zip(paths, (rows, signals)):
        write_layer(path, [batch], batch.schema)
    values_of = sort_values._reader({("web", "a"): partial(read_layers, paths)}, {("web", "score"): "score@m"}, "score")
    np.testing.assert_array_equal(values_of("web", "a"), [math.nan, 0.1, math.nan, math.nan, math.nan, 0.5])
    values_of = sort_values._reader(
        {("web", "a"): partial(read_layers, paths)}, {("web", "size"): "num_characters"}, "size"
    )
    np.testing.assert_array_equal(values_of("web", "a"), [math.nan, 10, math.nan, math.nan, 40, 50])


def test_values_of_a_shard_without_the_column_are_none(tmp_path):
    write_layer(tmp_path / "rows.parquet", [pa.record_batch({"row": [0, 2]})], pa.schema([("row", pa.int64())]))
    read = partial(read_layers, [str(tmp_path / "rows.parquet")])
    values_of = sort_values._reader({("web", "a"): read}, {("web", "quality"): "quality"}, "quality")
    np.testing.assert_array_equal(values_of("web", "a"), [math.nan] * 3)


def test_whole_numbers_too_long_for_a_float_are_sorted_by_the_nearest():
    times = [1_700_000_000_000_000_001, None, 2**53 + 1]
    np.testing.assert_array_equal(sort_values._numbers(pa.array(times), "web", "time"), [1.7e18, math.nan, 2.0**53])


def test_sorting_by_words_is_refused():
    with pytest.raises(SortValueError, match=r"'topic' of source 'web' is .*string, not a number"):
        sort_values._numbers(pa.array(["a"]), "web", "topic")
