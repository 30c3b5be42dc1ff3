"""Row-aligned layers: read side by side whatever their row groups, refused when they disagree, kept rows by masks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.layers import (
    LayersDisagree,
    RowsAhead,
    drop_reasons,
    kept_rows,
    layer_columns,
    mask_columns,
    only_where,
    read_layer,
    read_layers,
    with_reasons,
    write_layer,
    zip_batches,
)


def batches_of(values, sizes):
    """Values cut into record batches of the given sizes, again and again."""
    found, at, turn = [], 0, 0
    while at < len(values):
        size = sizes[turn % len(sizes)]
        found.append(pa.record_batch({"v": pa.array(values[at : at + size], pa.int64())}))
        at, turn = at + size, turn + 1
    return found


def layer(path, columns, cut=3):
    table = pa.table(columns)
    write_layer(path, table.to_batches(max_chunksize=cut), table.schema)
    return path


def text_layer(path, texts):
    """A layer with a row group for each text."""
    schema = pa.schema([("row", pa.int64()), ("text", pa.large_string())])
    rows = (pa.record_batch([[row], [text]], schema=schema) for row, text in enumerate(texts))
    write_layer(path, rows, schema)
    return path


def test_layer_is_read_by_bytes_where_texts_are_long(tmp_path):
    texts = [f"{row} " * 700_000 for row in range(10, 30)] + ["x" * 20_000_000, "y"]
    batches = list(read_layer(text_layer(tmp_path / "t.parquet", texts)))
    assert [batch.num_rows for batch in batches] == [7, 7, 6, 1, 1]
    assert [value for batch in batches for value in batch.column("text").to_pylist()] == texts


def test_layer_of_short_rows_is_read_in_arrows_own_batches(tmp_path):
    path = layer(tmp_path / "a.parquet", {"v": range(40_000), "w": [str(v) for v in range(40_000)]}, cut=3001)
    with pq.ParquetFile(path) as file:
        expected = [batch.num_rows for batch in file.iter_batches(16_384)]
    batches = list(read_layer(path))
    assert [batch.num_rows for batch in batches] == expected == [16_384, 16_384, 7232]
    assert pa.Table.from_batches(batches).equals(pq.read_table(path))


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any)


@given(st.integers(0, 40), sizes, sizes)
def test_zip_batches_puts_equal_rows_side_by_side(length, first, second):
    values = list(range(length))
    pairs = list(zip_batches([iter(batches_of(values, first)), iter(batches_of(values, second))]))
    for left, right in pairs:
        assert left.equals(right)
        assert left.num_rows
    assert [v for left, _ in pairs for v in left.column("v").to_pylist()] == values


@given(st.integers(0, 20), st.integers(0, 20), sizes)
def test_zip_batches_refuses_streams_of_other_lengths(one, other, cut):
    streams = [iter(batches_of(list(range(n)), cut)) for n in (one, other)]
    if one == other:
        assert sum(batches[0].num_rows for batches in zip_batches(streams)) == one
    else:
        with pytest.raises(LayersDisagree):
            list(zip_batches(streams))


def test_layers_are_read_side_by_side_and_the_last_of_a_name_stands(tmp_path):
    a = layer(tmp_path / "a.parquet", {"row": range(7), "x": [f"a{n}" for n in range(7)]}, cut=2)
    b = layer(tmp_path / "b.parquet", {"row": range(7), "x": [f"b{n}" for n in range(7)], "y": range(7)}, cut=5)
    rows = pa.Table.from_batches(read_layers([a, b])).to_pydict()
    assert rows == {"row": list(range(7)), "x": [f"b{n}" for n in range(7)], "y": list(range(7))}
    assert pa.Table.from_batches(read_layers([a, b], ["y"])).column_names == ["y"]
    assert layer_columns(b) == ["row", "x", "y"]


def test_equal_rows_are_equal_bytes(tmp_path):
    paths = [layer(tmp_path / f"{n}.parquet", {"row": range(9), "x": [0.5] * 9}) for n in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_empty_layer_has_its_columns_and_no_rows(tmp_path):
    path = tmp_path / "empty.parquet"
    assert write_layer(path, [], pa.schema([("row", pa.int64())])) == 0
    assert pq.read_table(path).num_rows == 0
    assert list(read_layer(path)) == [] or sum(batch.num_rows for batch in read_layer(path)) == 0
    assert layer_columns(path) == ["row"]


def test_reasons_travel_in_the_file(tmp_path):
    path = tmp_path / "decisions.parquet"
    schema = with_reasons(pa.schema([("row", pa.int64()), ("drop@s", pa.uint64())]), {"s": ["few", "zürich"]})
    write_layer(path, [], schema)
    assert drop_reasons(path) == {"s": ["few", "zürich"]}
    assert mask_columns([path]) == ["drop@s"]


rows = st.lists(
    st.tuples(
        st.sampled_from([None, "bad_json"]), st.sampled_from([0, 1, 2**63]), st.sampled_from([None, 0, 4])
    ),
    max_size=20,
)  # fmt: skip


@given(rows)
def test_kept_are_rows_that_were_read_and_that_no_bit_drops(given_rows):
    batch = pa.record_batch(
        {
            "read_reason": pa.array([r for r, _, _ in given_rows], pa.string()),
            "drop@a": pa.array([a for _, a, _ in given_rows], pa.uint64()),
            "drop@b": pa.array([b for _, _, b in given_rows], pa.uint64()),
            "undecided@a": pa.array([7] * len(given_rows), pa.uint64()),
        }
    )
    wanted = [reason is None and not a and not b for reason, a, b in given_rows]
    kept = kept_rows(batch)
    assert kept.tolist() == wanted
    text = only_where(pa.array([f"t{n}" for n in range(len(wanted))], pa.large_string()), kept)
    assert text.to_pylist() == [f"t{n}" if keep else None for n, keep in enumerate(wanted)]


def test_only_where_of_all_kept_is_the_array_itself():
    text = pa.array(["a", None], pa.large_string())
    assert only_where(text, np.ones(2, bool)) is text


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 7))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_ahead_are_those_beside_the_texts_however_both_are_cut(tmp_path, wanted, group):
    values = list(range(sum(wanted)))
    table = pa.table({"value": values})
    pq.write_table(table, tmp_path / "layer.parquet", row_group_size=group)
    ahead = RowsAhead(tmp_path / "layer.parquet", ["value"])
    assert [row for number in wanted for row in ahead.take(number).column("value").to_pylist()] == values
    with pytest.raises(LayersDisagree, match="1 rows fewer"):
        ahead.take(1)
