"""Steps to stages: what fuses, what closes, what each stage needs, and errors that name the nearest signal."""

import pytest
from pydantic import TypeAdapter, ValidationError

from curation.bare_names import brought_columns
from curation.compiled import GlobalStage, LocalStage, ProgramError
from curation.config import AnyStep, Source
from curation.decisions import DecisionOptions
from curation.passes import SignalOptions
from curation.program import compile_program

SOURCES = {
    "web_de": Source(path="d.jsonl", language="de"),
    "web_en": Source(path="e.jsonl", language="en"),
    "code": Source(path="c.jsonl", language="code"),
}


def compiled(*steps, exempt=()):
    read = [TypeAdapter(AnyStep).validate_python(step) for step in steps]
    return compile_program(SOURCES, read, lambda step, source: step, exempt)


def shown(program):
    return [
        f"{stage.source}.{stage.layer}"
        if isinstance(stage, LocalStage)
        else f"{stage.layer}({', '.join(stage.sources)})"
        for stage in program.stages
    ]


def rules(name, sql, **options):
    return {"rules": {"name": name, "drop": {"reason": sql}, **options}}


def test_measures_and_rules_of_several_steps_fuse_into_one_pass_each():
    program = compiled(
        rules("a", "word_count < 3", sources=["web_de"]), rules("b", "line_count < 2", sources=["web_de"])
    )
    assert shown(program) == ["web_de.signals", "web_de.decisions"]
    signals, decisions = (stage.options for stage in program.stages)
    assert signals.names == ("line_count", "word_count")
    assert [step.step for step in decisions.steps] == ["a", "b"]


def test_step_over_all_sources_closes_what_was_gathered():
    program = compiled(rules("a", "word_count < 3"), {"dedup": {"preset": "exact"}}, rules("b", "word_count > 9"))
    first, second = shown(program)[:6], shown(program)[6:]
    assert first == [f"{name}.{layer}" for name in ("code", "web_de", "web_en") for layer in ("signals", "decisions")]
    assert second[-4:] == ["duplicates(code, web_de, web_en)", *(f"{name}.decisions" for name in sorted(SOURCES))]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"verify": 0}, "verify is 0.0"),
        ({"shingle": {"words": 2000}}, "a shingle of 2000 words"),
        ({"bands": 1000, "rows": 100}, "bands x rows is 1000 x 100"),
        ({"preset": "paragraphs_keep_first", "false_positives": 1e-13}, "false_positives is 1e-13"),
    ],
)
def test_dedup_values_that_make_no_signature_are_an_error_of_the_step(values, says):
    with pytest.raises(ProgramError, match=says) as raised:
        compiled({"dedup": values})
    assert raised.value.path == f"steps[0] ({values.get('preset', 'dedup')})"


def test_dedup_threshold_of_zero_is_not_the_default():
    signatures = [
        stage.options.signatures
        for stage in compiled({"dedup": {"threshold": 0}}).stages
        if isinstance(stage, LocalStage)
    ]
    assert {(made.bands, made.rows) for made in signatures} == {(128, 1)}


@pytest.mark.parametrize("shares", [[0.0, 0.5], [0.5, 1.0]])
def test_buckets_that_would_stay_empty_are_refused_before_anything_runs(shares):
    with pytest.raises(ValidationError, match="leaves a bucket empty"):
        compiled({"perplexity": {"preset": "sound", "model": "m/x", "buckets": {"shares": shares}}})


def test_signal_that_was_measured_is_not_measured_again():
    program = compiled(rules("a", "word_count < 3"), {"dedup": {"preset": "exact"}}, rules("b", "word_count > 9"))
    assert sum(isinstance(stage.options, SignalOptions) for stage in program.stages) == len(SOURCES)


def test_another_table_of_characters_measures_and_edits_anew(monkeypatch):
    steps = (rules("a", "word_count < 3"), {"lines": {"name": "short", "drop": {"short": "characters < 3"}}})
    first = [stage.options for stage in compiled(*steps).stages if isinstance(stage, LocalStage)]
    monkeypatch.setattr("curation.text.properties.TABLE_VERSION", 2)
    second = [stage.options for stage in compiled(*steps).stages if isinstance(stage, LocalStage)]
    changed = {type(one).__name__ for one, other in zip(first, second, strict=True) if one != other}
    assert changed == {"SignalOptions", "LineOptions"}


def test_decisions_depend_on_earlier_layers_and_signals_do_not():
    program = compiled(rules("a", "word_count < 3"))
    for stage in program.stages:
        assert stage.reads_layers == isinstance(stage.options, DecisionOptions)


def test_dedup_signatures_are_made_of_text_alone():
    program = compiled(rules("a", "word_count < 3"), {"dedup": {"preset": "minhash"}})
    signatures = [stage for stage in program.stages if stage.layer == "signatures"]
    assert [stage.source for stage in signatures] == sorted(SOURCES)
    assert not any(stage.reads_layers or stage.joins for stage in signatures)
    (matching,) = [stage for stage in program.stages if isinstance(stage, GlobalStage)]
    assert [need.split(".")[1] for need in matching.needs] == sorted(SOURCES)


def test_perplexity_trains_a_model_per_language_of_sources_of_that_language():
    step = {"perplexity": {"preset": "sound", "sources": ["web_*"], "model": {"train_on": ["web_*"], "order": 3}}}
    program = compiled(step)
    models = [stage for stage in program.stages if stage.layer == "model"]
    assert [(stage.label, stage.sources) for stage in models] == [
        ("sound.de", ("web_de",)), ("sound.en", ("web_en",)),
    ]  # fmt: skip
    assert program.columns["web_de"]["bucket"] == "bucket"
    assert "bucket" not in program.columns["code"]


def test_language_without_text_to_train_on_is_refused():
    step = {"perplexity": {"preset": "sound", "sources": ["web_*"], "model": {"train_on": ["web_de"], "order": 3}}}
    with pytest.raises(ProgramError, match="none of its sources is in 'en'"):
        compiled(step)


def test_code_is_not_asked_for_its_language():
    program = compiled({"language": {"min_score": 0.5}})
    assert shown(program) == [f"{name}.{layer}" for name in ("web_de", "web_en") for layer in ("signals", "decisions")]


def test_sources_for_validation_are_never_dropped():
    program = compiled(rules("a", "word_count < 3"), {"dedup": {"preset": "exact"}}, exempt=["web_en"])
    assert not any("web_en" in stage for stage in shown(program))


@pytest.mark.parametrize(
    ("sql", "near"), [("word_cuont < 3", "word_count"), ("langauge_score < 1", "language_score"), ("qqqq = 1", None)]
)
def test_unknown_signal_is_refused_with_the_nearest_name(sql, near):
    with pytest.raises(ProgramError, match="no signal or column") as raised:
        compiled({"language": {"min_score": 0.5, "sources": ["web_*"]}}, rules("a", sql, sources=["web_de"]))
    assert raised.value.path == "steps[1] (a)"
    assert ("did you mean" in raised.value.reason) == (near is not None)
    assert (near or "read where its `where` names it") in raised.value.reason


def compiled_of(source, *steps):
    """Stages of one source, by its own description."""
    read = [TypeAdapter(AnyStep).validate_python(step) for step in steps]
    described = {"web": Source(**{"path": "d.jsonl", "language": "de", **source})}
    return compile_program(described, read, lambda step, name: step)


def columns_of_rules(program):
    steps = [step for stage in program.stages if stage.layer == "decisions" for step in stage.options.steps]
    return {step.step: dict(step.columns) for step in steps}


def measured_by(program):
    return [stage.options for stage in program.stages if stage.layer == "signals"]


def test_column_of_a_source_does_not_stand_for_the_signal_of_its_name():
    brings = {"where": "word_count > 5 AND num_characters > 9 AND quality > 1"}
    rule = "word_count < 5 OR num_characters < 3 OR quality < 2"
    program = compiled_of(brings, rules("a", rule), {"clean": "web"}, rules("b", "word_count < 5"))
    assert columns_of_rules(program) == {
        "a": {"word_count": "word_count", "num_characters": "num_characters", "quality": "quality@source"},
        "b": {"word_count": "word_count@web"},
    }
    assert [options.names for options in measured_by(program)] == [("word_count",), ("word_count",)]
    assert program.columns["web"]["word_count"] == "word_count@web"
    assert "num_characters" not in program.columns["web"]


@pytest.mark.parametrize("name", ["language_score", "rps_doc_ml_palm_score", "ccnet_original_length"])
def test_what_a_source_brings_outlives_an_edit_of_the_text(name):
    program = compiled_of({"where": f"{name} > 0.6"}, {"clean": "web"}, rules("low", f"{name} < 0.7"))
    assert columns_of_rules(program) == {"low": {name: f"{name}@source"}}


def test_identified_language_goes_before_a_brought_one_until_the_text_is_edited():
    steps = ({"language": {}}, rules("a", "language_score < 0.7"), {"clean": "web"}, rules("b", "language_score < 0.7"))
    columns = columns_of_rules(compiled_of({"where": "language_score > 0.6"}, *steps))
    assert (columns["a"], columns["b"]) == (
        {"language_score": "language_score"}, {"language_score": "language_score@source"},
    )  # fmt: skip


def test_lines_are_kept_where_the_mean_was_measured_before():
    signal = "rps_lines_num_words_mean"
    steps = (rules("a", f"{signal} > 1"), {"dedup": {"preset": "exact"}})
    program = compiled_of({}, *steps, {"measure": {"signals": [signal], "per_line": True}})
    assert [(options.names, options.per_line) for options in measured_by(program)] == [((signal,), ()), ((), (signal,))]


@pytest.mark.parametrize("between", [[], [{"dedup": {"preset": "exact"}}]])
def test_second_file_for_a_signal_of_the_same_text_is_refused(between):
    first, second = ({"measure": {"name": n, "files": {"rps_doc_ldnoobw_words": f"{n}.txt"}}} for n in "ab")
    with pytest.raises(ProgramError, match="of web is measured on this text with a"):
        compiled_of({}, first, *between, second)
    given = [options.given[0].path for options in measured_by(compiled_of({}, first, {"clean": "web"}, second))]
    assert given == ["a.txt", "b.txt"]


def test_least_score_of_a_language_that_is_not_named_is_the_default():
    program = compiled_of({"language": ["de", "en"]}, {"language": {"min_score": {"de": 0.8}}})
    (step,) = [step for stage in program.stages if stage.layer == "decisions" for step in stage.options.steps]
    assert dict(step.rules)["low_score"] == (
        "(language = 'de' AND language_score < 0.8) OR (language = 'en' AND language_score < 0.65)"
    )


@pytest.mark.parametrize("code", ["nld", "tha", "nb", "iw", "deu_Latn", "xx"])
def test_code_that_no_identified_language_equals_is_refused(code):
    with pytest.raises(ValidationError, match="not a language code"):
        Source(path="d.jsonl", language=code)
    with pytest.raises(ValidationError, match="not a language code"):
        compiled({"language": {"min_score": {code: 0.8}}})


@pytest.mark.parametrize(("said", "unit"), [({}, "line"), ({"unit": "paragraph"}, "paragraph")])
def test_unit_that_the_recipe_says_goes_before_that_of_a_preset(said, unit):
    (stage,) = compiled_of({}, {"lines": {"preset": "boilerplate", **said}}).stages
    assert stage.options.unit == unit


def test_preset_that_joins_lines_is_refused_for_paragraphs():
    with pytest.raises(ProgramError, match="c4_lines strips lines and joins them") as raised:
        compiled_of({}, {"lines": {"preset": "c4_lines", "unit": "paragraph"}})
    assert raised.value.path == "steps[0] (c4_lines).unit"


def test_where_on_the_text_carries_no_second_copy_of_it():
    source = Source(path="d.jsonl", language="de", fields={"text": "body"}, where="LENGTH(body) > 5 AND text = 'x'")
    assert brought_columns(source, {}, "web") == ("text",)
    with pytest.raises(ProgramError, match="body holds the text of web; rules ask for signals of it"):
        compiled_of({"fields": {"text": "body"}, "where": "LENGTH(body) > 5"}, rules("a", "LENGTH(body) < 9"))
