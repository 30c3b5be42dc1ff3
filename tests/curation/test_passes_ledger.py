"""Rows, signals and decisions of a shard, and the ledger over them, beside plain Python."""

import json

import polars as pl
import pyarrow.parquet as pq
import pytest

from curation.decisions import BucketStep, DecisionOptions, RuleStep, make_decisions
from curation.ledger import Ledger, Source, reasons_in_order, texts_of
from curation.passes import ShardInputs, SignalOptions, kept_text, make_rows, make_signals
from curation.perplexity.buckets import read_cutoffs, write_cutoffs
from curation.source import Reader

LINES = [
    '{"text": "eins zwei drei", "id": "a"}',
    '{"text": "eins", "id": "b"}',
    "{kaputt",
    '{"text": "", "id": "d"}',
    '{"text": "eins zwei drei vier fünf sechs", "id": "e"}',
    '{"text": null, "id": "f"}',
    '{"text": "SIEBEN ACHT", "id": "g"}',
]
STEPS = (
    RuleStep("length", (("short", "word_count < 2"), ("long", "word_count > 5")), (("word_count", "word_count"),)),
    RuleStep("case", (("loud", "uppercase_share > 0.5"),), (("uppercase_share", "uppercase_share"),)),
)


class Folder:
    """An output that writes where it says, for functions that are given one."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, suffix):
        return self.folder.with_name(self.folder.name + suffix)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return ShardInputs("s", "raw.jsonl", str(path), "de", Reader("jsonl", ()))


def with_layer(shard, tmp_path, name, work, options):
    output = Folder(tmp_path / name)
    counts = work(shard, options, output)
    layers = (*shard.layers, str(output.path(".parquet")))
    return counts, ShardInputs(**{**vars(shard), "layers": layers})


@pytest.fixture
def made(shard, tmp_path):
    """Counts of the three passes and the shard with their layers."""
    rows, shard = with_layer(shard, tmp_path, "rows", make_rows, None)
    signals = SignalOptions(("uppercase_share", "word_count"), versions=(1, 1))
    measured, shard = with_layer(shard, tmp_path, "signals", make_signals, signals)
    decided, shard = with_layer(shard, tmp_path, "decisions", make_decisions, DecisionOptions(STEPS))
    return [rows, measured, decided], shard


def test_rows_are_counted_with_their_reasons(made):
    counts = made[0][0]
    assert counts["rows"] == len(LINES)
    assert {name: n for name, n in counts.items() if name.startswith("drop.")} == {
        "drop.read.bad_json": 1,
        "drop.read.missing_text": 1,
    }
    unread = len(LINES[2]) + len(LINES[5])  # what cannot be read counts with its record
    assert counts["bytes"] == unread + sum(len(json.loads(LINES[n])["text"].encode()) for n in (0, 1, 3, 4, 6))


def test_signals_are_measured_on_every_text_and_null_without(made):
    layer = pl.read_parquet(made[1].layers[1])
    assert layer["row"].to_list() == list(range(len(LINES)))
    assert layer["word_count"].to_list() == [3, 1, None, 0, 6, None, 2]


def test_decisions_hold_a_bit_for_each_reason_by_name(made):
    layer = pl.read_parquet(made[1].layers[2])
    # Reasons by name: long is bit 0, short is bit 1. Rows without text are undecided in both.
    assert layer["drop@length"].to_list() == [0, 2, 0, 2, 1, 0, 0]
    assert layer["undecided@length"].to_list() == [0, 0, 3, 0, 0, 3, 0]
    assert layer["drop@case"].to_list()[6] == 1


def test_counts_follow_a_row_to_its_first_reason_alone(made):
    counts = made[0][2]
    assert {name: n for name, n in counts.items() if name.startswith(("drop.", "reached."))} == {
        "reached.length": 5, "drop.length.short": 2, "drop.length.long": 1, "reached.case": 2, "drop.case.loud": 1,
    }  # fmt: skip
    assert (counts["rows"], counts["kept"], counts["kept_characters"]) == (7, 1, len("eins zwei drei"))


def test_a_row_with_several_reasons_of_one_step_counts_under_the_first(shard, tmp_path):
    _, shard = with_layer(shard, tmp_path, "rows", make_rows, None)
    signals = SignalOptions(("uppercase_share", "word_count"), versions=(1, 1))
    _, shard = with_layer(shard, tmp_path, "signals", make_signals, signals)
    reasons = (("few", "word_count < 3"), ("loud", "uppercase_share > 0.5"))  # SIEBEN ACHT is both
    step = RuleStep("both", reasons, (("uppercase_share", "uppercase_share"), ("word_count", "word_count")))
    counts, _ = with_layer(shard, tmp_path, "decisions", make_decisions, DecisionOptions((step,)))
    assert {name: n for name, n in counts.items() if name.startswith("drop.")} == {"drop.both.few": 3}


def test_ledger_gives_each_row_its_earliest_reason(made):
    ledger = Ledger((Source("s", "de", (made[1],)),))
    rows = ledger.scan().collect()
    assert rows["reason"].to_list() == [
        None, "length.short", "read.bad_json", "length.short", "length.long", "read.missing_text", "case.loud",
    ]  # fmt: skip
    assert rows["kept"].to_list() == [reason is None for reason in rows["reason"].to_list()]
    assert rows["origin_id"].to_list() == ["a", "b", None, "d", "e", "f", "g"]
    assert reasons_in_order(ledger) == {"length": ["long", "short"], "case": ["loud"]}


def test_ledger_is_read_back_as_it_was_written(made):
    reader = Reader("jsonl", (("text", "t"),), ("stars",), "stars > 1", types=(("stars", "int64"),))
    shard = ShardInputs(**{**vars(made[1]), "reader": reader, "artifacts": (("model.x", "/m"),), "text": "/t.parquet"})
    ledger = Ledger((Source("s", "de", (shard,), (("gone.gz", "unreadable"),)),))
    assert Ledger.from_json(ledger.to_json()) == ledger


def test_kept_text_is_null_where_a_row_was_dropped(made):
    batches = list(kept_text(made[1], ["origin_id"]))
    texts = [text for batch in batches for text in batch.column("text").to_pylist()]
    assert texts == ["eins zwei drei", *[None] * 6]
    assert texts_of(made[1], [4, 0]) == {0: "eins zwei drei", 4: "eins zwei drei vier fünf sechs"}


def test_row_batches_do_not_change_what_is_decided(made, tmp_path, monkeypatch):
    monkeypatch.setattr("curation.layers._READ_ROWS", 2)
    again = ShardInputs(**{**vars(made[1]), "layers": made[1].layers[:2]})
    counts, again = with_layer(again, tmp_path, "again", make_decisions, DecisionOptions(STEPS))
    assert counts == made[0][2]
    assert pq.read_table(again.layers[2]).equals(pq.read_table(made[1].layers[2]))


def test_buckets_are_cut_at_the_values_of_the_sources_group(made, tmp_path):
    cutoffs = tmp_path / "cutoffs.json"
    write_cutoffs(cutoffs, {"de": [1.5, 4.0]})
    reader = Reader("jsonl", (("text", "t"),), ("stars",), "stars > 1", types=(("stars", "int64"),))
    shard = ShardInputs(**{**vars(made[1]), "reader": reader, "artifacts": (("cutoffs.p", str(cutoffs)),)})
    for group, wanted in (
        ("de", ["middle", "head", None, "head", "tail", None, "middle"]),
        ("zh", [None] * 7),
    ):
        step = BucketStep("p", "word_count", "bucket", artifact="cutoffs.p", group=group)
        _, bucketed = with_layer(shard, tmp_path, f"buckets-{group}", make_decisions, DecisionOptions((step,)))
        assert pl.read_parquet(bucketed.layers[-1])["bucket"].to_list() == wanted
    assert read_cutoffs(cutoffs, "zh") is None
