"""Rows and steps inside datatrove pipelines."""

import pickle

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers import JsonlWriter

from curation.dedup import minhash
from curation.documents import (
    BatchedStep,
    LanguageStep,
    Outcome,
    RulesStep,
    ShardReader,
    SignatureStep,
    documents_of,
    row_batches,
)  # fmt: skip
from curation.rules import Rule, RuleError, decide
from curation.signals import measure
from curation.source import ROWS, Reader, read_shard

TEXTS = ["eins zwei drei", "", "Größe", "vier fünf sechs sieben acht"]


def documents(texts=TEXTS):
    return [Document(text, str(i), metadata={"nr": i}) for i, text in enumerate(texts)]


class LongOnly(BatchedStep):
    """Drops texts below a length, as a user would write it."""

    name = "long only"

    def opened(self):
        def judge(text, metadata):
            lengths = pa.compute.utf8_length(text)
            assert len(metadata) == len(text)
            return Outcome({"length": lengths}, ["short" if n < 6 else None for n in lengths.to_pylist()])

        return judge


class Writer:
    """Keeps what a writer would write."""

    def __init__(self):
        self.written = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def write(self, document, rank):
        self.written.append((document.id, document.metadata["filter_reason"], rank))


@pytest.mark.parametrize("batch_bytes", [1, 20, 1 << 20])
def test_batched_step_gives_on_signals_and_drops_with_a_reason(batch_bytes):
    writer = Writer()
    step = LongOnly(exclusion_writer=writer, batch_bytes=batch_bytes)
    kept = list(step.run(iter(documents()), rank=3))
    assert [(document.id, document.metadata) for document in kept] == [
        ("0", {"nr": 0, "length": 14}),
        ("3", {"nr": 3, "length": 27}),
    ]
    assert writer.written == [("1", "short", 3), ("2", "short", 3)]
    assert {label: step.stats[label].total for label in ("total", "forwarded", "dropped", "dropped_short")} == {
        "total": 4, "forwarded": 2, "dropped": 2, "dropped_short": 2,
    }  # fmt: skip


def test_batched_step_equals_a_datatrove_filter_one_by_one():
    class Reference(BaseFilter):
        name = "reference"

        def filter(self, doc):
            return (True, None) if len(doc.text) >= 6 else (False, "short")

    expected = [document.id for document in Reference().run(iter(documents()))]
    assert [document.id for document in LongOnly().run(iter(documents()))] == expected


def test_batched_step_edits_texts():
    class Upper(BatchedStep):
        def opened(self):
            return lambda text, metadata: Outcome(text=pa.compute.utf8_upper(text))

    assert [document.text for document in Upper().run(iter(documents()))] == [
        "EINS ZWEI DREI",
        "",
        "GRÖẞE",
        "VIER FÜNF SECHS SIEBEN ACHT",
    ]


def test_batched_step_reads_no_further_than_its_batch():
    def endless():
        while True:
            yield Document("ten bytes.", "x")

    step = LongOnly(batch_bytes=100)
    assert next(step.run(endless())).metadata["length"] == 10


def test_steps_are_pickled_without_what_they_open():
    for step in (LongOnly(), RulesStep({"short": "character_count < 6"}), ShardReader(["a.jsonl"], Reader("jsonl"))):
        assert vars(pickle.loads(pickle.dumps(step))).keys() == vars(step).keys()


def test_lone_surrogates_become_replacement_characters_in_the_document_too():
    kept = list(LongOnly().run(iter([Document("abcdef \ud800 \ud83d\ude00", "x")])))
    assert kept[0].text == "abcdef \ufffd 😀"


def test_row_batches_and_documents_go_both_ways():
    batches = list(row_batches(documents(), batch_bytes=10))
    assert all(batch.schema == ROWS for batch in batches)
    assert len(batches) > 1
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["row"], row["text"], row["origin_id"]) for row in rows] == [
        (i, text, str(i)) for i, text in enumerate(TEXTS)
    ]
    again = [document for batch in batches for document in documents_of(batch)]
    assert [(document.text, document.id) for document in again] == [(d.text, d.id) for d in documents()]
    assert again[2].metadata["content_id"] == rows[2]["content_id"].hex()


def test_row_batches_equal_what_the_shard_reader_makes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id":"{i}","text":"{text}"}}\n' for i, text in enumerate(TEXTS)))
    assert pa.Table.from_batches(row_batches(documents())) == pa.Table.from_batches(
        read_shard(str(path), Reader("jsonl"))
    )


def test_shard_reader_loses_no_record_silently(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text":"a","id":1,"score":3}\n{bad\n{"text":""}\n{"text":null}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"text":"b"}\n')
    step = ShardReader([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], Reader("jsonl", brought=("score",)))
    found = list(step.run())
    assert [document.text for document in found] == ["a", "", "b"]
    assert (found[0].id, found[0].metadata["row"], found[0].metadata["score@source"]) == ("1", 0, 3.0)
    assert found[1].id == found[1].metadata["content_id"]
    assert (step.stats["dropped_bad_json"].total, step.stats["dropped_missing_text"].total) == (1, 1)
    assert [document.text for document in step.run(rank=1, world_size=2)] == ["b"]


def test_rules_step_equals_measuring_and_deciding():
    texts = [f"{'Wort ' * n}und der die das." for n in (1, 20, 60, 200)]
    rules = {"few": "character_count < 60", "many": "character_count > 500"}
    kept = list(RulesStep(rules, "de").run(iter(documents(texts))))
    signals = measure(pa.array(texts, pa.large_string()), ["character_count"], "de")
    drop = decide(
        pl.DataFrame({"character_count": pl.Series(signals["character_count"])}),
        [Rule(*rule) for rule in rules.items()],
    )[0]
    assert [document.id for document in kept] == [str(i) for i in np.flatnonzero(drop == 0)]
    assert [document.metadata["character_count"] for document in kept] == [
        signals["character_count"][int(d.id)].as_py() for d in kept
    ]


def test_language_step_takes_labels_of_any_system_and_refuses_unknown_ones():
    step = LanguageStep(["deu_Latn", "English"], {"German": 0.6, "*": 0.5})
    assert (step.languages, step.min_score) == (("de", "en"), {"de": 0.6, "*": 0.5})
    with pytest.raises(ValueError, match="did you mean"):
        LanguageStep(["Germna"])


def test_language_step_has_a_least_score_for_each_code_and_one_for_the_others(monkeypatch):
    found = {"a": ("de", 0.55), "b": ("en", 0.55), "c": ("en", 0.45), "d": ("fr", 0.9)}

    class Model:
        def __init__(self, path):
            pass

        def identify(self, text, excerpt):
            return tuple(map(pa.array, zip(*(found[one] for one in text.to_pylist()))))

    monkeypatch.setattr("curation.language.LanguageModel", Model)
    monkeypatch.setattr("curation.language.resolve_model", str)
    step = LanguageStep(["de", "en"], {"de": 0.6, "*": 0.5})
    assert [document.id for document in step.run(iter(Document(text, text) for text in found))] == ["b"]
    assert (step.stats["dropped_low_score"].total, step.stats["dropped_other_language"].total) == (2, 1)


def test_rules_step_asks_metadata_for_what_is_no_signal():
    step = RulesStep({"odd": "nr % 2 = 1"}, "de")
    assert [document.id for document in step.run(iter(documents()))] == ["0", "2"]
    assert step.stats["dropped_odd"].total == 2


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_rules_step_metadata_of_mixed_numbers_or_missing_decides_alike_in_any_batch(batch_bytes):
    values = [{"score": 1}, {"score": 2.5}, {}, {"score": None}, {"score": 3}]
    given = [Document("text", str(n), metadata=metadata) for n, metadata in enumerate(values)]
    step = RulesStep({"high": "score > 2"}, "de", batch_bytes=batch_bytes)
    assert [document.id for document in step.run(iter(given))] == ["0", "2", "3"]
    with pytest.raises(RuleError, match="scroe"):
        list(RulesStep({"high": "scroe > 2"}, "de", batch_bytes=batch_bytes).run(iter(given)))


def test_signature_step_equals_the_signatures():
    options = minhash.Options()
    texts = ["ein Satz mit genau so vielen Wörtern wie nötig sind", "kurz"]
    found = list(SignatureStep(options).run(iter(documents(texts))))
    expected = minhash.signatures(pa.array(texts, pa.large_string()), options).to_pylist()
    assert [{name: document.metadata[name] for name in expected[0]} for document in found] == expected


def test_steps_run_in_a_datatrove_executor(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id":"{i}","text":"{text}"}}\n' for i, text in enumerate(TEXTS)))
    LocalPipelineExecutor(
        [
            ShardReader([str(path)], Reader("jsonl")),
            RulesStep({"few": "character_count < 6"}, "de"),
            JsonlWriter(str(tmp_path / "out"), compression=None),
        ],
        logging_dir=str(tmp_path / "logs"),
    ).run()
    written = [
        row for batch in read_shard(str(tmp_path / "out" / "00000.jsonl"), Reader("jsonl")) for row in batch.to_pylist()
    ]
    assert [row["text"] for row in written] == [TEXTS[0], TEXTS[3]]
