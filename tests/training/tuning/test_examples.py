import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.tuning.examples import ExamplesError, Turn, find_files, read_examples

ASKED = Turn("user", "What?"), Turn("assistant", "This.")


def read(path, **fields):
    return list(read_examples(path, path.name, fields))


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": " This.\n"}]}, {}),
        ({"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]}, {}),
        ({"instruction": "What?", "input": "", "output": "This."}, {}),
        ({"id": 3, "prompt": "What?", "response": "This."}, {}),
        ({"question": "What?", "answer": "This."}, {}),
        ({"frage": "What?", "antwort": "This."}, {"instruction": "frage", "output": "antwort"}),
        ({"frage": "What?", "output": "This.", "messages": []}, {"instruction": "frage"}),
        ({"prompt": "What?", "completion": " This.", "id": True}, {}),
        (
            {
                "prompt": [{"role": "user", "content": "What?"}],
                "completion": [{"role": "assistant", "content": "This."}],
            },
            {},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "at?\n"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "This.", "image_url": None}]},
                ]
            },
            {},
        ),
    ],
)
def test_rows_of_every_known_shape_are_the_same_conversation(write_lines, row, fields):
    (found,) = read(write_lines([row]), **fields)
    assert (found.turns, found.reason) == (ASKED, None)


def test_instruction_and_input_become_one_question_and_stay_apart_for_templates(write_lines):
    (found,) = read(write_lines([{"instruction": "Translate.", "input": "Mühle", "output": "mill"}]))
    assert found.turns[0] == Turn("user", "Translate.\n\nMühle", ("Translate.", "Mühle"))


def test_input_and_system_are_looked_up_in_each_row(write_lines):
    rows = [
        {"instruction": "Add", "output": "3", "system": None},
        {"instruction": "Add", "input": "1 2", "output": 3},
        {"instruction": "Add", "output": "3"},
        {"instruction": "Add", "input": " 1 2", "output": "3", "system": "Rechne."},
        {"instruction": "Add", "input": float("nan"), "output": "3", "system": None},
    ]
    path = write_lines(rows)
    asked = ["Add", "Add\n\n1 2", "Add", "Add\n\n1 2", "Add"]
    assert [one.turns[-2].content for one in read(path)] == asked
    assert [one.turns[-1].content for one in read(path)] == ["3"] * 5
    assert [one.turns[0].content for one in read_examples(path, "a", {}, "Sei nett.")] == [
        *["Sei nett."] * 3, "Rechne.", "Sei nett.",
    ]  # fmt: skip


def test_first_row_without_system_leaves_the_system_of_later_messages(write_lines):
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This."}]
    rows = [{"messages": talk, "system": None}, {"messages": talk, "system": "S"}, {"messages": talk, "sp": "T"}]
    assert [len(one.turns) for one in read(write_lines(rows))] == [2, 3, 2]
    assert [len(one.turns) for one in read(write_lines(rows), system="sp")] == [2, 2, 3]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return x\n", "    return x"),
        ("\n \n\t- a\n\t- b \n\n", "\t- a\n\t- b"),
        (" a completion", "a completion"),
        ("plain", "plain"),
    ],
)
def test_answer_keeps_its_indentation_and_loses_blank_lines(write_lines, text, kept):
    assert read(write_lines([{"prompt": "What?", "completion": text}]))[0].turns[1].content == kept


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], ["This."], True, [{"type": "image_url", "image_url": "x"}]])
def test_content_that_is_no_text_is_a_reason_and_never_learnt(write_lines, value):
    rows = [
        {"instruction": "What?", "output": value},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": value}]},
        {"instruction": "What?", "output": "This.", "system": value},
    ]
    found = [one for row in rows for one in read(write_lines([row]))]
    assert [one.reason for one in found] == ["not_text"] * 3
    assert [one.detail for one in found] == [f"{column}: {value}"[:60] for column in ("output", "content", "system")]


def test_fields_that_name_a_part_of_a_row_go_with_what_is_told_by_the_rest(write_lines):
    (found,) = read(
        write_lines([{"frage": "Add", "zahlen": "1 2", "output": "3"}]), instruction="frage", input="zahlen"
    )
    assert [turn.content for turn in found.turns] == ["Add\n\n1 2", "3"]
    (found,) = read(write_lines([{"text": "Add"}]), system="sp")
    assert (found.reason, found.detail) == ("no_columns", "text")


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ([("user", "a"), ("assistant", "b"), ("user", "left alone")], None),
        ([("system", "s"), ("user", "a"), ("assistant", "b")], None),
        ([("assistant", "b"), ("user", "a"), ("assistant", "b")], "roles_in_disorder"),
        ([("user", "a"), ("user", "a"), ("assistant", "b")], "roles_in_disorder"),
        ([("user", "a"), ("narrator", "b")], "unknown_role"),
        ([("user", "a"), ("assistant", "  ")], "empty_answer"),
        ([("user", ""), ("assistant", "b")], "empty_prompt"),
        ([("user", "a")], "no_answer"),
        ([], "no_answer"),
    ],
)
def test_conversation_in_disorder_has_a_reason(write_lines, roles, reason):
    (found,) = read(write_lines([{"messages": [{"role": r, "content": c} for r, c in roles]}]))
    assert found.reason == reason
    assert bool(found.turns) == (reason is None)
    assert reason is not None or found.turns[-1].role == "assistant"


def test_unreadable_rows_are_rows_with_reasons_and_blank_lines_are_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n\n{broken\n{"text": "a"}\n[1]\n')
    assert [(one.row, one.reason) for one in read(path)] == [
        (0, None), (1, "not_json"), (2, "no_columns"), (3, "not_json"),
    ]  # fmt: skip


def test_file_formats_hold_the_same_examples(tmp_path):
    rows = [{"prompt": f"ask {n}", "response": f"say {n}"} for n in range(2000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [[(one.row, one.turns) for one in read(path)] for path in sorted(tmp_path.iterdir())]
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert len(find_files([str(tmp_path)], "a")) == len(find_files([f"{tmp_path}/a.*"], "a")) == 4


def test_missing_and_foreign_files_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(ExamplesError, match=r"examples\.chat: no JSONL, JSON or Parquet file at .*none\.jsonl"):
        find_files([str(tmp_path / "none.jsonl")], "chat")
    with pytest.raises(ExamplesError, match=r"a\.csv: not one of \.jsonl"):
        find_files([str(tmp_path / "a.csv")], "chat")
