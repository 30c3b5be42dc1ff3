"""The table of runs: from run files, CSV out and in, foreign tables, bad input."""

import math

import numpy as np
import pytest

from mixing.ablation.read_runs import read_csv, read_two
from mixing.ablation.runs import RunsError, table_of, write_csv
from mixing.scaling.table import ScalingError, read_table


def row(name, weights, losses, **more):
    measured = [{"step": 1, "tokens": 10, "losses": losses, "bits_per_byte": {"a": 0.5}}]
    return {"name": name, "weights": weights, "seed": 3, "held_out": measured, "diverged_at": None, **more}


def same(left, right):
    assert (left.names, left.kinds, left.seeds) == (right.names, right.kinds, right.seeds)
    assert (left.domains, left.targets) == (right.domains, right.targets)
    for name in ("weights", "losses", "bits", "diverged"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_table_of_rows_takes_the_last_measurement_and_the_given_kinds():
    rows = [row("x", {"b": 0.25, "a": 0.75}, {"a": 9.0})]
    rows[0]["held_out"].append({"step": 2, "tokens": 20, "losses": {"a": 3.5, "v": None}, "bits_per_byte": {}})
    table = table_of(rows, {"x": "dirichlet"})
    assert (table.domains, table.targets, table.kinds, table.seeds) == (("a", "b"), ("a", "v"), ("dirichlet",), (3,))
    assert table.weights.tolist() == [[0.75, 0.25]]
    assert table.losses[0, 0] == 3.5
    assert math.isnan(table.losses[0, 1])
    assert table.curves[0] == {"tokens": [10, 20], "losses": {"a": [9.0, 3.5], "v": [None, None]}}


def test_table_of_a_diverged_run_marks_it_and_keeps_others():
    rows = [row("x", {"a": 1.0}, {"a": 3.0}), row("y", {"a": 1.0}, {"a": float("nan")}, diverged_at=5)]
    table = table_of(rows)
    assert table.diverged.tolist() == [False, True]
    assert math.isnan(table.losses[1, 0])


def test_table_of_two_runs_of_one_name_is_refused():
    with pytest.raises(RunsError, match="runs of one name: x"):
        table_of([row("x", {"a": 1.0}, {"a": 1.0})] * 2)


def test_csv_round_trip_keeps_every_bit(tmp_path):
    rows = [row("x", {"a": 1 / 3, "b/c": 2 / 3}, {"a": math.pi, "v": None}), row("y", {"a": 1.0}, {"a": 2.0, "v": 1.0})]
    table = table_of(rows, {"x": "dirichlet", "y": "one_domain"})
    write_csv(table, tmp_path / "runs.csv")
    same(read_csv(tmp_path / "runs.csv"), table)


def test_read_csv_of_a_foreign_table_normalises_rows_and_notes_it(tmp_path):
    path = tmp_path / "foreign.csv"
    path.write_text("w:a,w:b,loss:a\n0.5,0.496,3.1\n0.25,0.75,\n")
    table = read_csv(path)
    np.testing.assert_allclose(table.weights, [[0.5 / 0.996, 0.496 / 0.996], [0.25, 0.75]])
    assert table.names == ("run.000", "run.001")
    assert table.notes == ("The weights of 1 of 2 runs summed to 0.9960; they were scaled to sum to 1.",)
    assert math.isnan(table.losses[1, 0])


def test_rows_of_one_mixture_without_seeds_are_its_seeds_and_copies_stay_copies(tmp_path):
    path = tmp_path / "foreign.csv"
    path.write_text("w:a,w:b,loss:a\n1,0,3.0\n.5,.5,2.5\n1,0,3.1\n1,0,3.0\n.5,.5,2.6\n")
    assert read_csv(path).seeds == (0, 0, 1, 0, 1)
    path.write_text("seed,w:a,w:b,loss:a\n7,1,0,3.0\n7,1,0,3.1\n")
    assert read_csv(path).seeds == (7, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w:a,loss:a\n0.5,3\n", r"weights must sum to 1.*run.000 \(0.5\)"),
        ("w:a,w:b,loss:a\n1.5,-0.5,3\n", "not a number of 0 or more"),
        ("w:a,w:b,loss:a\n1,nan,3\n", r"bad.csv:2: w:b is 'nan'; write a share of tokens, or nothing for 0"),
        ("w:a,w:b,loss:a\n1,,3\ninf,,3\n", r"bad.csv:3: w:a is 'inf'"),
        ("w:a,loss:a,loss:b\n1,3,-0.7\n", r"bad.csv:2: loss:b is -0.7; a loss is above 0.*of an accuracy its error"),
        ("w:a,loss:a\n1,0\n", r"bad.csv:2: loss:a is 0; a loss is above 0"),
        ("w:a,loss:a\n1,high\n", r"bad.csv:2: loss:a is 'high', not a number"),
        ("a,b\n1,2\n", "a column w:DOMAIN per trained domain"),
        ("name,w:a,loss:a\nx,1,2\nx,1,3\n", "two runs are called 'x'"),
        ("seed,w:a,loss:a\n\n0,1,2\n\nlast,1,3\n", r"bad.csv:5: seed is 'last', not a whole number"),
        ("seed,w:a,loss:a\n1.5,1,2\n", r"bad.csv:2: seed is '1.5', not a whole number"),
        ("diverged,w:a,loss:a\nperhaps,1,2\n", r"bad.csv:2: diverged is 'perhaps'; write 1 for"),
    ],
)
def test_read_csv_of_a_bad_table_says_what_and_where(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(RunsError, match=message):
        read_csv(path)


def test_read_csv_as_data_frames_write_it_reads_truth_and_whole_numbers(tmp_path):
    path = tmp_path / "frame.csv"
    path.write_text("seed,diverged,w:a,loss:a\n1.0,False,1,2\n2,True,1,3\n,0.0,1,4\n,,1,5\n")
    table = read_csv(path)
    assert table.seeds == (1, 2, 0, 0)
    assert table.diverged.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [("name,w:ä,loss:a\nx,1,2\n".encode("latin-1"), r"bad.csv: not UTF-8 \(byte 7\)"), (None, "bad.csv: no such file")],
)
def test_tables_that_cannot_be_read_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(RunsError, match=message):
        read_csv(tmp_path / "bad.csv")
    with pytest.raises(ScalingError, match=message):
        read_table(tmp_path / "bad.csv")


def two_files(folder, weights, losses):
    (folder / "x.csv").write_text(weights)
    (folder / "y.csv").write_text(losses)
    return folder / "x.csv", folder / "y.csv"


def test_two_files_of_regmix_are_joined_on_index_and_their_domains_called_alike(tmp_path):
    weights = "index,train_the_pile_a,train_the_pile_b\n1,0.5,0.5\n2,1.0,0.0\n3,0,1\n"
    table = read_two(*two_files(tmp_path, weights, "index,metric/the_pile_a_val_loss\n2,2.5\n1,3.5\n"))
    assert (table.domains, table.targets) == (("a", "b"), ("a",))
    assert table.names == ("1", "2")
    assert table.losses.tolist() == [[3.5], [2.5]]
    assert table.notes == ("1 run is in only one of the two files and left out.",)


def test_two_files_of_olmix_are_joined_on_run_and_columns_that_name_it_are_no_domains(tmp_path):
    weights = "run,name,index,web,code\nx7,first,0,0.25,0.75\nx9,second,1,0.746,0.25\nx8,third,2,0.25,0.75\n"
    losses = "run,name,index,gsm8k_bpb,web\nx9,second,0,0.8,3\nx7,first,1,,2\nx8,third,2,0.9,2\n"
    table = read_two(*two_files(tmp_path, weights, losses))
    assert (table.names, table.seeds) == (("x7", "x9", "x8"), (0, 0, 1))
    assert (table.domains, table.targets) == (("web", "code"), ("gsm8k_bpb", "web"))
    assert table.weights.sum(1) == pytest.approx(1)
    assert math.isnan(table.losses[0, 0])
    assert table.losses[1:].tolist() == [[0.8, 3], [0.9, 2]]
    assert table.notes == ("The weights of 1 of 3 runs summed to 0.9960; they were scaled to sum to 1.",)


def test_two_files_as_data_frames_write_them(tmp_path):
    weights = ",run_id,seed,diverged,kind,a,b\n0,1.0,3.0,False,natural,0.5,0.5\n1,2.0,4.0,True,other,1,\n"
    table = read_two(*two_files(tmp_path, weights, "Unnamed: 0,run_id,a\n0,2,3.5\n1,1,2.5\n"))
    assert (table.names, table.seeds, table.kinds) == (("1", "2"), (3, 4), ("natural", "other"))
    assert table.diverged.tolist() == [False, True]
    assert table.weights.tolist() == [[0.5, 0.5], [1, 0]]
    assert table.losses.tolist() == [[2.5], [3.5]]


@pytest.mark.parametrize(
    ("weights", "losses", "message"),
    [
        ("index,a\n,1\n", "index,b\n1,2\n", r"x\.csv:2: index is ''"),
        ("index,a\n1,1\n1.0,1\n", "index,b\n1,2\n", r"x\.csv:3: index is '1', as in another row"),
        ("index,a\n1,much\n", "index,b\n1,2\n", r"x\.csv:2: a is 'much', not a number"),
        ("index,a\n1,nan\n", "index,b\n1,2\n", r"x\.csv:2: a is 'nan'; write a share of tokens, or nothing for 0"),
        ("index,a\n1,1\n", "index,b\n7,2\n1,high\n", r"y\.csv:3: b is 'high', not a number"),
        ("run,a\n1,1\n", "run,b\n2,2\n", "no run in common: their columns `run` share no value"),
        ("run,a\n1,1\n", "index,b\n1,2\n", "share no column that names a run; give both one called `run`"),
        ("run,a\n1,1\n", "run\n1\n", r"y\.csv:1: no column beside run"),
        ("run,a\n1,0.5\n", "run,b\n1,2\n", r"x\.csv: weights must sum to 1; they do not in 1 \(0\.5\)"),
        ("run,a\n1,1\n", "run,b\n1,-0.7\n", r"y\.csv:2: b is -0\.7; a loss is above 0"),
    ],
)
def test_two_files_that_cannot_be_read_say_what_and_where(tmp_path, weights, losses, message):
    with pytest.raises(RunsError, match=message):
        read_two(*two_files(tmp_path, weights, losses))
