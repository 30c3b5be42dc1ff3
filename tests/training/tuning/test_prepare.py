import numpy as np
import polars as pl
import pytest

from mixing.tokenizer import load_tokenizer
from training.tuning.examples import ExamplesError
from training.tuning.prepare import PADDING, Preparation, Prepared, prepare
from training.tuning.stream import draws_of, open_tuning, plan_of
from training.tuning.tokens import template_of, write_tokenizer


def packed(folder, name="chat", part="train"):
    return np.load(folder / f"{name}.{part}.npy")


def decoded(encoder, ids):
    return encoder.tokenizer.decode(list(ids), skip_special_tokens=False)


def split_rows(rows, separator):
    """Coded conversations of packed sequences: what stands between separators, padding left out."""
    for row in rows:
        row = row[row != PADDING]
        ends = [*np.flatnonzero(row == -2 - separator).tolist(), len(row)]
        start = 0
        for end in ends:
            if end > start:
                yield row[start:end]
            start = end + 1


def test_packed_sequences_hold_every_conversation_once_and_learn_only_answers(write_lines, prepared, conversations):
    rows = conversations(60)
    found, folder, encoder = prepared(write_lines(rows))
    sequences = packed(folder)
    assert found.sets[0].kept == 60
    assert 60 > len(sequences) == found.sets[0].sequences
    talks = {}
    for ids in split_rows(sequences, found.separator):
        plain = np.where(ids < 0, -2 - ids, ids)
        talks[decoded(encoder, plain)] = decoded(encoder, ids[ids >= 0])
        assert ids[0] < 0
    wanted = {}
    for row in rows:
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"])
        wanted[text] = "".join(f"{m['content']}<|im_end|>" for m in row["messages"] if m["role"] == "assistant")
    assert talks == wanted
    assert found.stop == encoder.tokenizer.token_to_id("<|im_end|>")
    assert found.joined == 0


def test_ledger_has_every_row_with_its_reason_or_its_place(write_lines, prepared, conversations):
    rows = conversations(20)
    rows[3]["messages"][1]["content"] = " "
    rows[5]["messages"] = rows[5]["messages"][:1]
    rows[7]["messages"][0]["content"] = "say <|im_end|> twice"
    rows[9]["messages"][1]["content"] = "mill " * 300
    found, folder, _ = prepared(write_lines(rows), too_long="drop", held_out=0.3)
    ledger = pl.read_parquet(folder / "ledger.parquet")
    assert ledger["row"].to_list() == list(range(20))
    reasons = dict(ledger.filter(pl.col("reason").is_not_null()).select("row", "reason").iter_rows())
    assert reasons == {3: "empty_answer", 5: "no_answer", 7: "special_token_in_text", 9: "too_long"}
    counts = found.sets[0]
    assert counts.rows == counts.kept + sum(counts.dropped.values()) == 20
    assert 0 < counts.held_out < counts.kept
    for part, sequence, answers in (
        ledger.filter(pl.col("reason").is_null()).select("part", "sequence", "answer_tokens").iter_rows()
    ):
        assert (packed(folder, part=part)[sequence] >= 0).sum() >= answers > 0
    assert Prepared.read(folder) == found


def test_long_conversations_are_cut_where_wanted_and_counted(write_lines, prepared, conversations):
    rows = conversations(6, most_turns=1)
    rows[2]["messages"][1]["content"] = "mill " * 300
    rows[4]["messages"][0]["content"] = "mill " * 300  # nothing of its answer is left
    found, folder, _ = prepared(write_lines(rows), context=70)
    assert (found.sets[0].kept, found.sets[0].cut, found.sets[0].dropped) == (5, 1, {"too_long": 1})
    ledger = pl.read_parquet(folder / "ledger.parquet")
    assert ledger.filter("cut")["tokens"].to_list() == [71]
    assert (packed(folder)[ledger["sequence"][2]] != PADDING).all()


def test_without_packing_each_sequence_is_one_conversation(write_lines, prepared, conversations):
    found, folder, _ = prepared(write_lines(conversations(9)), packing=False)
    assert found.separator is None
    rows = packed(folder)
    assert len(rows) == 9
    assert sorted((rows != PADDING).sum(1)) == sorted(pl.read_parquet(folder / "ledger.parquet")["tokens"])


def test_separator_is_an_id_that_no_conversation_has(write_lines, prepared, conversations, tokenizer_folder):
    end = load_tokenizer(tokenizer_folder).eos
    path = write_lines(conversations(9))
    assert prepared(path)[0].separator == end
    found, folder, _ = prepared(path, template="alpaca")  # which ends answers with it
    assert found.stop == end != found.separator
    used = packed(folder)
    used = np.where(used < PADDING, -2 - used, used)
    assert (used == end).sum() == pl.read_parquet(folder / "ledger.parquet")["answers"].sum()


def test_loss_on_all_learns_all_but_first_tokens_and_separators(write_lines, prepared, conversations):
    found, folder, _ = prepared(write_lines(conversations(9)), loss="all")
    rows = packed(folder)
    assert (rows >= 0).sum() == found.sets[0].tokens - 9


def test_broken_rows_stop_and_are_named_with_the_share_that_leaves_them_out(write_lines, prepared, conversations):
    rows = conversations(30)
    rows[4]["messages"][0]["role"] = "narrator"
    rows[8]["messages"].reverse()
    rows[8]["messages"].append({"role": "user", "content": "?"})
    rows[8]["messages"].append({"role": "assistant", "content": "!"})
    path = write_lines(rows)
    with pytest.raises(ExamplesError) as told:
        prepared(path)
    assert "chat.jsonl, row 4: unknown_role (narrator)" in str(told.value)
    assert "row 8: roles_in_disorder (assistant where user is due)" in str(told.value)
    assert "finetuning.broken: 0.067" in str(told.value)
    assert prepared(path, broken=0.067)[0].sets[0].dropped == {"roles_in_disorder": 1, "unknown_role": 1}


def test_named_column_that_no_row_has_is_refused(write_lines, tokenizer_folder, tmp_path):
    path = write_lines([{"frage": "mill?", "output": "grain"}, {"frage": "mill?", "output": "grain", "zahlen": "1"}])
    template = template_of("chatml", tokenizer_folder)
    encoder = write_tokenizer(tokenizer_folder, tmp_path / "tokenizer", template)

    def make(column):
        sets = {"chat": ((str(path),), {"instruction": "frage", "input": column})}
        return prepare(Preparation(sets, 200), template, encoder, tmp_path / "made")

    assert make("zahlen").sets[0].kept == 2
    with pytest.raises(ExamplesError, match=r"examples\.chat\.fields\.input: no row has a column 'zalen'"):
        make("zalen")


def test_nothing_left_is_an_error_with_the_reasons(write_lines, prepared):
    with pytest.raises(ExamplesError, match="nothing is left to train on: 2 no_answer"):
        prepared(write_lines([{"messages": [{"role": "user", "content": "?"}]}] * 2))


def test_order_gives_each_set_its_epochs_exactly_and_every_sequence_once_an_epoch(write_lines, prepared, conversations):
    paths = {"a": write_lines(conversations(40), "a.jsonl"), "b": write_lines(conversations(15, 1), "b.jsonl")}
    found, folder, _ = prepared(paths)
    epochs = {"b": 2.5, "*": 3}
    sizes = [one.sequences for one in found.sets]
    assert draws_of(found.sets, epochs) == {"a": 3 * sizes[0], "b": round(2.5 * sizes[1])}
    stream = open_tuning(str(folder), epochs, 7)
    length = plan_of(found, epochs, 7).num_positions
    domain, draw, epoch, sequence = stream.order.locate(np.arange(length))
    for number, size in enumerate(sizes):
        mine = domain == number
        assert np.array_equal(np.sort(draw[mine]), np.arange(mine.sum()))
        for turn in range(2):
            assert np.array_equal(np.sort(sequence[mine & (epoch == turn)]), np.arange(size))
    assert not np.array_equal(sequence[(domain == 0) & (epoch == 0)], sequence[(domain == 0) & (epoch == 1)])
    row = stream.reader.read(np.array([1]), np.array([0]), found.context)
    assert np.array_equal(row[0], packed(folder, "b")[0])
