"""The perplexity step of a recipe: which model scores which source, what it measures, where it cuts."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from curation.compiled import GlobalStage, ProgramError
from curation.config import AnyStep, Source
from curation.decisions import BucketStep, DecisionOptions
from curation.lines import token_counter
from curation.passes import PerplexityMeasure, ShardInputs, SignalOptions, _open_measures
from curation.perplexity.buckets import histogram, write_cutoffs
from curation.perplexity.model import ModelError
from curation.perplexity.pieces import load_pieces
from curation.perplexity.score import load_scorer
from curation.perplexity.training import Training, train_model
from curation.program import compile_program
from curation.source import Reader
from curation.stages.inputs import GlobalInputs
from curation.stages.perplexity import ModelOptions, make_model

SOURCES = {"de": Source(path="d.jsonl", language="de"), "en": Source(path="e.jsonl", language="en")}
TRAINED = {"train_on": ["*"], "order": 2}
TEXTS = ["Das Haus ist alt.\nDas Haus ist rot.\nxq qx vw", "Der Baum ist alt.\n\nDer Hund sucht das Haus.", "", None]


def compiled(step, tokenizer=None, sources=SOURCES):
    read = TypeAdapter(AnyStep).validate_python({"perplexity": step})
    return compile_program(sources, [read], lambda step, source: step, (), tokenizer).stages


def measure_of(stages, source):
    options = [stage.options for stage in stages if getattr(stage, "source", "") == source]
    return next(found.perplexities[0] for found in options if isinstance(found, SignalOptions) and found.perplexities)


def cuts_of(stages):
    return {
        stage.source: step.cutoffs
        for stage in stages
        if isinstance(stage.options, DecisionOptions)
        for step in stage.options.steps
        if isinstance(step, BucketStep)
    }


def tokenizer_file(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS if text], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_pieces_tokenizer_are_the_recipes_and_count_by_content(tmp_path):
    step = {"preset": "sound", "model": TRAINED, "pieces": "tokenizer"}
    path = tokenizer_file(tmp_path)
    for named in (tmp_path, path):
        models = [stage for stage in compiled(step, str(named)) if isinstance(stage, GlobalStage)]
        assert {stage.options.tokenizer for stage in models if stage.layer == "model"} == {str(path)}
    assert ModelOptions.__dataclass_fields__["tokenizer"].metadata["content"]
    with pytest.raises(ProgramError, match=r"write `tokenizer: PATH`"):
        compiled(step)
    with pytest.raises(ProgramError, match=r"no tokenizer\.json"):
        compiled(step, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("setting", ["truncation", "padding"])
def test_tokenizers_that_cut_or_pad_encode_whole_texts(tmp_path, setting):
    path = tokenizer_file(tmp_path)
    wanted = load_pieces(path).encode(pa.array(TEXTS[:2], pa.large_string()))
    counted = token_counter(path)(TEXTS[:2])
    stored = json.loads(path.read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    if setting == "padding":
        stored["truncation"] = None
        stored["padding"] = {
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
        }  # fmt: skip
    path.write_text(json.dumps(stored))
    found = load_pieces(path).encode(pa.array(TEXTS[:2], pa.large_string()))
    assert found.ids.tolist() == wanted.ids.tolist()
    assert (
        token_counter(path)(TEXTS[:2]) == counted == [len(part) for part in np.split(wanted.ids, wanted.offsets[1:-1])]
    )


def test_make_model_counts_the_tokenizers_pieces_within_the_memory_of_the_run(tmp_path, monkeypatch):
    class Folder:
        def path(self, suffix):
            return tmp_path / f"all{suffix}"

    given = []
    monkeypatch.setattr(
        "curation.perplexity.training.train_model",
        lambda texts, options, folder: given.append(options) or {"training_text": {"documents": 0, "bytes": 0}},
    )
    make_model(GlobalInputs((), (), (), 123 << 20), ModelOptions(Training(), str(tokenizer_file(tmp_path))), Folder())
    assert given[0].memory == 123 << 20
    assert given[0].pieces.endswith("tokenizer.json")


def test_model_folder_of_ccnet_gives_each_language_its_own(tmp_path):
    for code in ("de", "en"):
        for suffix in (".arpa.bin", ".sp.model"):
            (tmp_path / f"{code}{suffix}").touch()
    stages = compiled({"preset": "ccnet", "model": str(tmp_path)})
    for code in ("de", "en"):
        measure = measure_of(stages, code)
        assert (measure.model, measure.pieces) == (
            str(tmp_path / f"{code}.arpa.bin"),
            str(tmp_path / f"{code}.sp.model"),
        )
    assert cuts_of(stages) == {"de": (370, 590), "en": (340, 520)}
    (tmp_path / "en.arpa.bin").unlink()
    with pytest.raises(ProgramError, match=r"neither a model.json .* nor en.arpa.bin"):
        compiled({"preset": "ccnet", "model": str(tmp_path)})


def test_given_model_scores_its_language_sentences_and_pieces_alone(tmp_path):
    train_model([pa.array(TEXTS * 20)], Training(order=2, pieces=60, language="de"), tmp_path / "m")
    de = {"preset": "sound", "model": str(tmp_path / "m"), "sources": ["de"]}
    assert measure_of(compiled(de), "de").model == str(tmp_path / "m")
    for change, message in [
        ({"sources": ["*"]}, "a model of 'de', and the step scores sources in 'en'"),
        ({"scoring": "ccnet"}, "trained with scoring: lines, and the step says ccnet"),
        ({"pieces": "words"}, r"trained with pieces \(unigram\), and the step says words"),
        ({"buckets": "ccnet"}, "CCNet's own models"),
    ]:
        with pytest.raises(ProgramError, match=message):
            compiled({**de, **change})
    with pytest.raises(ProgramError, match=r"pieces [0-9a-f]{16}, and the recipe's tokenizer is [0-9a-f]{16}"):
        compiled({**de, "pieces": "tokenizer"}, str(tokenizer_file(tmp_path)))
    with pytest.raises(ModelError, match="give the pieces it was trained with"):
        load_scorer(tmp_path / "m", tmp_path / "tokenizer.json")
    (tmp_path / "de.arpa.bin").touch()
    (tmp_path / "de.sp.model").touch()
    with pytest.raises(ProgramError, match="is one model, and the step scores sources in de, en"):
        compiled({"model": str(tmp_path / "de.arpa.bin")})


def test_source_in_two_languages_and_languages_without_cutoffs_are_refused(tmp_path):
    mixed = {**SOURCES, "mix": Source(path="m.jsonl", language=["de", "en"])}
    for step in ({"sources": ["mix"], "model": TRAINED}, {"sources": ["de"], "model": TRAINED}):
        with pytest.raises(ProgramError, match="'mix' is in de, en, and a model is of one language; split the source"):
            compiled({"preset": "sound", **step}, sources=mixed)
    for suffix in (".arpa.bin", ".sp.model"):
        (tmp_path / f"yo{suffix}").touch()
    with pytest.raises(ProgramError, match="no cutoffs for yo"):
        compiled({"model": str(tmp_path)}, sources={"yo": Source(path="y.jsonl", language="yo")})


def test_sources_beside_those_that_are_counted_are_refused():
    twice = {"de": SOURCES["de"], "de2": Source(path="d2.jsonl", language="de")}
    counted = {"preset": "sound", "model": TRAINED, "buckets": {"shares": [0.3, 0.6], "of": "de"}}
    compiled(counted, sources=twice)  # cut by its language
    with pytest.raises(ProgramError, match=r"only de is counted \(by language\), so en would have no buckets"):
        compiled(counted)
    counted["buckets"]["by"] = "source"
    with pytest.raises(ProgramError, match=r"only de is counted \(by source\), so de2 would have no buckets"):
        compiled(counted, sources=twice)


def test_shares_of_a_reference_are_cut_by_what_another_run_counted(tmp_path):
    path = tmp_path / "all.cutoffs.json"
    counted = histogram(pa.array([float(value) for value in range(1, 101)]))
    write_cutoffs(path, {"de": (2.0,)}, {"de": counted, "en": counted})
    step = {"preset": "sound", "model": TRAINED, "buckets": {"shares": [0.3, 0.6], "of": str(path)}}
    assert {name: tuple(map(int, cuts)) for name, cuts in cuts_of(compiled(step)).items()} == {
        "de": (30, 60),
        "en": (30, 60),
    }
    write_cutoffs(path, {"de": (2.0,)}, {"de": counted})
    with pytest.raises(ProgramError, match="counted de, not 'en'"):
        compiled(step)
    path.write_text(json.dumps({"de": [1.0]}))
    with pytest.raises(ProgramError, match="not a cutoffs file"):
        compiled(step)


def test_line_signals_are_those_of_the_lines(tmp_path):
    train_model([pa.array(TEXTS * 20)], Training(order=2, pieces=60), tmp_path / "m")
    step = {"name": "wiki", "preset": "sound", "model": str(tmp_path / "m"), "per_line": True, "line_cutoff": 30.0}
    measure = measure_of(compiled({**step, "buckets": {"values": [10.0]}}), "de")
    assert measure == PerplexityMeasure(
        "wiki_perplexity", "lines", model=str(tmp_path / "m"),
        of_lines="wiki_line_perplexity", share_above="wiki_share_above", line_cutoff=30.0,
    )  # fmt: skip
    shard = ShardInputs("de", "d.jsonl", "d.jsonl", "de", Reader("jsonl"))
    (measured,) = _open_measures(shard, SignalOptions(perplexities=(measure,)))
    columns = {name: column.to_pylist() for name, column in measured(pa.array(TEXTS)).items()}
    lists, shares = columns["wiki_line_perplexity"], columns["wiki_share_above"]
    assert [None if values is None else len(values) for values in lists] == [3, 2, None, None]
    assert shares == [sum(v > 30 for v in values) / len(values) if values else None for values in lists]
    low, high = min(lists[0]), max(lists[0])
    assert low < columns["wiki_perplexity"][0] < high


def test_line_signals_of_ccnets_single_line_are_refused():
    for key, value in (("per_line", True), ("line_cutoff", 100.0)):
        with pytest.raises(ValidationError, match="one line"):
            compiled({"preset": "ccnet", "model": TRAINED, key: value})
