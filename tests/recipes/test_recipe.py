"""The whole recipe: the examples are valid, mistakes are shown all at once, only what counts enters a key."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from curation.amounts import Amount
from curation.config import STEP_KINDS, Dedup, KeepRule
from curation.rule_presets import load_preset
from recipes.errors import RunError
from recipes.pretraining.shapes import phase_tokens, steps_of_phases
from recipes.run import Run
from recipes.schema.recipe import Recipe, RecipeErrors, load_recipe
from recipes.schema.resolved import flat, resolved
from recipes.schema.validation import not_yet

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "recipes" / "examples").glob("*.yaml"))
SHARED = Path(os.environ.get("GRISTMILL_TEST_DATA", "/nowhere")).parent / "recipes"

SMALL = """
sources:
  zh_web: {path: zh/*.jsonl, language: zh}
  en_web: {path: en/*.parquet, language: en}
  en_wiki: {path: wiki/*.parquet, language: en}
steps:
  - language: {min_score: 0.5}
  - rules: gopher
  - dedup: {preset: minhash, keep: [{source: "*_wiki"}, longest]}
domains:
  max_epochs: 4
tokenizer: {algorithm: byte_bpe, vocabulary: 4096}
schedule:
  - {name: main, tokens: 1B, weights: {zh_web: 0.5, "en_*": 0.5}}
  - {name: cooldown, tokens: 100M, ramp: 10M, weights: natural^0.5}
model: llama_15m
training: {learning_rate: {peak: 5e-3}}
"""


@pytest.fixture
def load(tmp_path):
    def loaded(text=SMALL, *overrides, name="r.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_recipe(path, overrides)

    return loaded


@pytest.fixture
def errors(load):
    """Errors of a recipe as `line: path: value …: reason`, without the file."""

    def found(text=SMALL, *overrides):
        with pytest.raises(RecipeErrors) as raised:
            load(text, *overrides)
        return [str(error).replace(f"{error.place.file}:", "") for error in raised.value.errors]

    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_recipe_is_valid(path):
    assert load_recipe(path).name == path.name.removesuffix(".yaml")


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="GRISTMILL_TEST_DATA names no folder beside the published recipes")
@pytest.mark.parametrize("name", ["de_web.yaml", "de_web.slurm.yaml", "zh_en.yaml", "de_1b.yaml"])
def test_published_recipe_is_valid(name):
    assert load_recipe(SHARED / name).sources


def test_examples_use_most_keys_of_the_schema():
    named = {
        path
        for example in EXAMPLES
        for path, value in flat(resolved(load_recipe(example)))
        if value.origin != "default"
    }
    for key in (
        "ablation.confirm.model.preset",
        "training.amendments",
        "steps.word_salad.tokenizer",
        "export.average.last",
    ):
        assert key in named


def test_phase_in_sequences_counts_those_of_its_own_context(load):
    recipe = load(SMALL.replace("tokens: 100M", "tokens: 50000 sequences, context: 512"))
    assert phase_tokens(recipe) == [10**9, 50_000 * 512]


def test_train_steps_of_a_batch_that_grows_are_checked_as_the_plan_counts_them(load):
    """Of the last batch's size alone, 3,000 steps would be longer than the schedule and behind the next amendment."""
    grows = "batch: [[0, 256 sequences], [1B, 1024 sequences]]"
    rate = "{shape: wsd, warmup: 3000 train steps, decay: 90 train steps}"
    amendments = "[{at: 3000 train steps, skip_data: 1M, why: w}, {at: 900M, skip_data: 1M, why: w}]"
    recipe = load(SMALL.replace("{peak: 5e-3}", f"{rate}, {grows}, amendments: {amendments}"))
    assert [len(runs) for runs in steps_of_phases(recipe)] == [1, 1]
    steps = SMALL.replace("tokens: 1B", "tokens: 3814 train steps").replace("tokens: 100M", "tokens: 95 train steps")
    assert phase_tokens(load(steps.replace("{peak: 5e-3}", f"{rate}, {grows}"))) == [3814 << 18, 95 << 20]


def test_recipe_words_and_mappings_resolve_to_values(load):
    recipe = load()
    assert recipe.schedule[0].tokens == Amount(10**9, "tokens")
    assert (recipe.schedule[1].weights.kind, recipe.schedule[1].weights.power) == ("natural", 0.5)
    assert recipe.domains.max_epochs == {"*": 4.0}
    assert recipe.model.layers == 6
    assert recipe.training.learning_rate.peak == 5e-3
    assert str(recipe.training.learning_rate.warmup) == "6M", "what training: leaves out is the preset's"
    assert str(recipe.training.batch[0].size) == "48 sequences"
    assert recipe.steps[2].keep == (KeepRule(by="source", name="*_wiki"), KeepRule(by="longest"))


TEN_MISTAKES = """\
sources:
  zh_web: {path: zh/*.jsonl, language: chinese}
  en_web: {path: en/*.parquet, language: en, sample: 30}
  en_wiki: {path: wiki/*.parquet}
steps:
  - rules: {preset: gopher, sources: ["zh_*", "eng_web"]}
  - rules: gopher
  - rules: gofer
  - rules: {preset: gopher, name: house, min_wrods: 30}
  - dedupe: minhash
domains:
  max_epoch: 3
tokenizer: {algorithm: byte_bpe, vocabulary: "32k"}
schedule:
  - name: main
    tokens: 3 TB
    weights: {zh_web: 0.4, en_web: 0.4, en_wiki: 0.199}
  - name: cooldown
    tokens: 5000
    weights: ablation
model: llama_15
checkpoints: {early: yes}
max_epochs: 4
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (2, "sources.zh_web.language: value 'chinese': not a language code used here; did you mean zh?"),
        (3, "sources.en_web.sample: value 30: a share is between 0 and 1; did you mean 0.3?"),
        (4, "sources.en_wiki.language: missing"),
        (6, "steps.gopher.sources[1]: value 'eng_web': no source is called so; did you mean en_web?"),
        (7, "steps.gopher: value 'gopher': two steps are called 'gopher'; give this one a name"),
        (8, "steps.gofer: value 'gofer': unknown preset of rules; did you mean gopher?"),
        (9, "steps.house.min_wrods: value 30: unknown option of gopher; did you mean min_words?"),
        (10, "value 'dedupe': unknown kind of step; did you mean dedup?"),
        (12, "domains.max_epoch: value 3: unknown key; did you mean max_epochs?"),
        (13, "tokenizer.vocabulary: value '32k': a whole number is wanted"),
        (16, "schedule.main.tokens: value '3 TB': TB counts bytes"),
        (16, "did you mean 3T?"),
        (17, "weights sum to 0.999, not 1; normalised: {zh_web: 0.4004, en_web: 0.4004, en_wiki: 0.1992}"),
        (19, "schedule.cooldown.tokens: value 5000: a number without a unit; did you mean '5000 tokens'"),
        (20, "schedule.cooldown.weights: value 'ablation': there is no `ablation:` section"),
        (21, "model: value 'llama_15': unknown model preset; did you mean llama_15m?"),
        (22, "checkpoints.early: value 'yes': true or false is wanted; did you mean true?"),
        (23, "max_epochs: value 4: unknown key; it stands below domains"),
    ],
)
def test_ten_and_more_mistakes_are_all_shown_with_line_and_fix(errors, line, said):
    found = errors(TEN_MISTAKES)
    assert any(error.startswith(f"{line}: ") and said in error for error in found), "\n".join(found)


def test_ten_and_more_mistakes_show_nothing_else_and_in_the_order_of_lines(errors):
    found = errors(TEN_MISTAKES)
    lines = [int(error.split(":")[0]) for error in found]
    assert lines == [2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 16, 17, 19, 20, 21, 22, 23]


CASES = {
    "no sources": ("sources: {}", "more entries are wanted"),
    "not a mapping": ("- a", "a recipe is a mapping"),
    "options beside the kind": (
        SMALL.replace("  - rules: gopher", "  - rules: gopher\n    min_words: 3"),
        "indent its options",
    ),
    "two steps under one dash": (
        SMALL.replace("  - rules: gopher", "  - rules: gopher\n    clean: web"),
        "this has 2 keys",
    ),
    "name with a slash": (SMALL.replace("zh_web: {path", "zh/web: {path"), "did you mean zh_web?"),
    "percent": (SMALL.replace("0.5}\n  - rules", "65%}\n  - rules"), "did you mean 0.65?"),
    "code of three letters": (SMALL.replace("language: zh", "language: cmn"), "did you mean zh?"),
    "unknown format": (SMALL.replace("*.parquet", "*.docx", 1), "the suffix .docx tells no format"),
    "misspelt format": (SMALL.replace("language: zh", "language: zh, format: josnl"), "did you mean jsonl?"),
    "misspelt preset of dedup": (SMALL.replace("minhash", "minhsah"), "did you mean minhash?"),
    "keep of no source": (SMALL.replace("*_wiki", "wiki_*"), "no source is called so"),
    "option of another dedup": (
        SMALL.replace("{preset: minhash,", "{preset: minhash, min_words: 3,"),
        "counts for paragraphs",
    ),
    "index of paragraphs": (
        SMALL.replace(
            "- dedup: {preset: minhash,",
            "- dedup: {preset: paragraphs_keep_first, index: {publish: web}}\n  - dedup: {preset: minhash,",
        ),
        "steps.paragraphs_keep_first.index: counts for exact and minhash only",
    ),
    "threshold and bands": (
        SMALL.replace("{preset: minhash,", "{preset: minhash, threshold: 0.8, bands: 9, rows: 13,"),
        "not both",
    ),
    "option of another kind": (SMALL.replace("{min_score: 0.5}", "{threshold: 0.5}"), "it is an option of dedup"),
    "condition not SQL": (
        SMALL.replace("- rules: gopher", "- rules: {name: r, drop: {x: 'a == 1'}}"),
        "write = AND OR",
    ),
    "condition not closed": (
        SMALL.replace("- rules: gopher", "- rules: {name: r, drop: {x: '(a > 1'}}"),
        "do not pair up",
    ),
    "rules of nothing": (SMALL.replace("- rules: gopher", "- rules: {name: r}"), "name a preset, or conditions"),
    "threshold as text": (
        SMALL.replace("- rules: gopher", "- rules: {preset: gopher, min_words: many}"),
        "a number is wanted",
    ),
    "preset of lines": (SMALL.replace("- rules: gopher", "- rules: c4_lines"), "unknown preset of rules"),
    "split without buckets": (SMALL.replace("max_epochs: 4", "split: {zh_web: bucket}"), "add a step - perplexity"),
    "perplexity without model": (
        SMALL.replace("- rules: gopher", "- perplexity: ccnet"),
        "missing: a path, or {train_on",
    ),
    "train_on of no source": (
        SMALL.replace("- rules: gopher", "- perplexity: {preset: sound, model: {train_on: [wiki]}}"),
        "no source is called so",
    ),
    "ccnet's cutoffs under a model of one's own": (
        SMALL.replace("- rules: gopher", "- perplexity: {model: {train_on: [en_wiki]}}"),
        "mean nothing under a model of your own; write buckets: {shares: [0.3, 0.6], of: run}",
    ),
    "ccnet's cutoffs line by line": (
        SMALL.replace("- rules: gopher", "- perplexity: {model: m/x, scoring: lines}"),
        "mean nothing under scoring: lines",
    ),
    "shares of text of which nothing is left": (
        SMALL.replace("vocabulary: 4096", 'vocabulary: 4096, text: {shares: {zh_web: 1, "zh_*": 0}}'),
        "nothing is left for 'zh_*': all it covers is named by zh_web",
    ),
    "cuts that fall": (
        SMALL.replace("- rules: gopher", "- perplexity: {model: m/x, buckets: {shares: [0.6, 0.3]}}"),
        "must rise",
    ),
    "validate_only of no source": (SMALL.replace("max_epochs: 4", "validate_only: [en_wkii]"), "did you mean en_wiki?"),
    "weight for validate_only": (
        SMALL.replace("max_epochs: 4", "validate_only: [en_wiki]").replace('"en_*": 0.5', "en_web: 0.4, en_wiki: 0.1"),
        "this source is validate_only",
    ),
    "split by a language that nothing tells": (
        SMALL.replace("  - language: {min_score: 0.5}\n", "").replace(
            "domains:\n", "domains:\n  split: {en_web: language}\n"
        ),
        "domains.split.en_web: value 'language': nothing tells the language of en_web; add a step - language",
    ),
    "step on ready tokens": (
        SMALL.replace("zh/*.jsonl", "zh/*.bin, format: megatron")
        .replace("{algorithm: byte_bpe, vocabulary: 4096}", "some/tokenizer")
        .replace("- rules: gopher", "- rules: {preset: gopher, sources: [zh_web]}"),
        "ready token shards, which no step looks at; name sources of text: en_web, en_wiki",
    ),
    "domain without weight": (SMALL.replace('"en_*": 0.5', "en_web: 0.5"), "no weight names en_wiki"),
    "weight for no domain": (SMALL.replace('"en_*": 0.5', '"*": 0.4, zh_weeb: 0.1'), "did you mean zh_web?"),
    "weight for a part of no split": (SMALL.replace("zh_web: 0.5", "zh_web/head: 0.5"), "zh_web is not split"),
    "weights of nothing": (
        SMALL.replace('"en_*": 0.5', '"en_*": 0.2, en_web: 0.2, en_wiki: 0.1'),
        "nothing is left for 'en_*'",
    ),
    "weights as percent": (SMALL.replace("zh_web: 0.5,", "zh_web: 50,"), "did you mean 0.5?"),
    "weights misspelt": (SMALL.replace("natural^0.5", "natrual"), "did you mean natural?"),
    "weights uniform": (SMALL.replace("natural^0.5", "uniform"), "natural^0"),
    "caps of no domain": (SMALL.replace("max_epochs: 4", "max_epochs: {zh_wbe: 4}"), "did you mean zh_web?"),
    "first phase ramps": (SMALL.replace("tokens: 1B,", "tokens: 1B, ramp: 1M,"), "no weights to ramp from"),
    "ramp too long": (SMALL.replace("ramp: 10M", "ramp: 101M"), "longer than its phase of 100M"),
    "phases of one name": (SMALL.replace("name: cooldown", "name: main"), "two phases are called so"),
    "phase too short": (SMALL.replace("tokens: 100M, ramp: 10M", "tokens: 100 tokens"), "shorter than one train step"),
    "warm-up too long": (SMALL.replace("peak: 5e-3", "warmup: 2B"), "longer than the schedule"),
    "warm-up of the preset too long": (  # 6M of llama_15m: no key of the file, and named all the same
        SMALL.replace("1B", "4M").replace("100M, ramp: 10M", "1M, ramp: 100K"),
        "training.learning_rate.warmup: value '6M': longer than the schedule",
    ),
    "warm-up and decay too long": (
        SMALL.replace("peak: 5e-3", "warmup: 700M, shape: wsd, decay: 700M"),
        "training.learning_rate.warmup: value '700M': with the decay of 700M longer than the schedule",
    ),
    "wsd without decay": (SMALL.replace("peak: 5e-3", "shape: wsd"), "needs the span of its decay"),
    "decay without wsd": (SMALL.replace("peak: 5e-3", "decay: 1B"), "counts for shape wsd only"),
    "final above peak": (SMALL.replace("peak: 5e-3", "final: 1.0"), "above the peak"),
    "batch not whole sequences": (
        SMALL.replace("training: {", "training: {batch: 2M, "),
        "1953 sequences (1999872 tokens)",
    ),
    "batch starts late": (SMALL.replace("training: {", "training: {batch: [[1B, 8 sequences]], "), "begin at 0"),
    "batches whose starts fall in tokens": (
        SMALL.replace(
            "training: {", "training: {batch: [[0, 8 sequences], [4M, 16 sequences], [3K sequences, 32 sequences]], "
        ),
        "begins at 3,072,000 tokens, not behind the batch before it (4,000,000)",
    ),
    "batch that begins twice": (
        SMALL.replace("training: {", "training: {batch: [[0, 8 sequences], [0 sequences, 16 sequences]], "),
        "begin at 0 and their starts rise",
    ),
    "amended batch that is no whole sequences": (
        SMALL.replace("training: {", 'training: {amendments: [{at: 1M, set: {batch: 1500 tokens}, why: "faster"}], '),
        "training.amendments[0].set.batch: value '1.5K': not whole sequences of 1024 tokens",
    ),
    "decay of more than a run whose batch grows": (
        SMALL.replace(
            "{peak: 5e-3}",
            "{shape: wsd, warmup: 0, decay: 4000 train steps}, batch: [[0, 256 sequences], [1B, 1024 sequences]]",
        ),
        "training.learning_rate.decay: value '4000 train steps': longer than the schedule",
    ),
    "batch without unit": (SMALL.replace("training: {", "training: {batch: 64, "), "'64 sequences'"),
    "context that fits no batch": (
        SMALL.replace("weights: natural^0.5", "context: 1000"),
        "not whole sequences of so many",
    ),
    "context behind the last position": (
        SMALL.replace("model: llama_15m", "model: {preset: mindllm_1b3, context: 1024}")
        .replace("weights: natural^0.5", "context: 2048")
        .replace("peak: 5e-3", "warmup: 1M"),
        "this one has 1,024 (model.context); set model.context to 2048",
    ),
    "training of no model": (SMALL.replace("model: llama_15m\n", ""), "training of what?"),
    "model without schedule": (
        SMALL[: SMALL.index("schedule:")] + "model: llama_15m\n",
        "a model is trained on a schedule",
    ),
    "schedule without tokenizer": (SMALL.replace("tokenizer: {", "# {"), "say tokenizer"),
    "tokenizer misspelt": (
        SMALL.replace("{algorithm: byte_bpe, vocabulary: 4096}", "byte_bpe_23k"),
        "did you mean byte_bpe_32k?",
    ),
    "tokenizer without room": (SMALL.replace("4096", "100"), "leave no room; 259 at least"),
    "language by another code": (SMALL.replace("language: zh", "language: nld"), "value 'nld': not a language code"),
    "least score of another code": (SMALL.replace("{min_score: 0.5}", "{min_score: {deu: 0.8}}"), "did you mean de?"),
    "rows that a rule does not tell apart": (
        SMALL.replace("rules: gopher", "rules: {preset: gopher, on: survivors}"),
        "steps.gopher.on: value 'survivors': rules looks at all rows, also dropped ones; leave `on` out",
    ),
    "rows that a text edit never sees": (
        SMALL.replace("rules: gopher", "clean: {on: all}"),
        "clean looks at survivors only",
    ),
    "language of no code": (SMALL.replace("language: zh", "language: xx"), "not a language code"),
    "model misspelt": (
        SMALL.replace("model: llama_15m", "model: llama_tny").replace("1B", "400K").replace("M", "K"),
        "did you mean llama_tiny?",
    ),
    "tokenizer without size": (SMALL.replace(", vocabulary: 4096", ""), "the number of token ids"),
    "shares of text": (SMALL.replace("4096}", "4096, text: {shares: {zh_web: 0.4}}}"), "normalised: {zh_web: 1}"),
    "weight that is no number": (SMALL.replace("zh_web: 0.5", "zh_web: .nan"), "between 0 and 1"),
    "weight below nothing": (SMALL.replace("zh_web: 0.5", "zh_web: -0.5"), "between 0 and 1"),
    "masks without end tokens": (SMALL + "sequences: {document_masks: true, eos: false}", "leave sequences.eos true"),
    "attention in another precision": (
        SMALL.replace("training: {", "training: {precision: fp32, ") + "execution: {training: {attention: varlen}}",
        "takes bf16",
    ),
    "checkpoints that stay": (SMALL + "checkpoints: {every: 20M, keep: {every: 50M}}", "did you mean 40M?"),
    "keep misspelt": (SMALL + "checkpoints: {keep: al}", "did you mean all?"),
    "model's own training": (
        SMALL.replace("model: llama_15m", "model: {preset: llama_15m, training: {batch: 8 sequences}}"),
        "stand in `training:`",
    ),
    "amendment of nothing": (
        SMALL.replace("training: {", "training: {amendments: [{at: 1M, set: {lr: 1}, why: x}], "),
        "is no training path",
    ),
    "amendment without reason": (
        SMALL.replace("training: {", "training: {amendments: [{at: 1M, skip_data: 1M}], "),
        "why: missing",
    ),
    "amendment behind the end": (
        SMALL.replace("training: {", "training: {amendments: [{at: 2B, skip_data: 1M, why: x}], "),
        "behind the end",
    ),
    "source's own value misspelt": (
        SMALL.replace("language: zh", "language: zh, steps: {gopher: {min_wrods: 3}}"),
        "did you mean min_words?",
    ),
    "source's own value of no step": (
        SMALL.replace("language: zh", "language: zh, steps: {gofer: {min_words: 3}}"),
        "did you mean gopher?",
    ),
    "source switches a step off": (
        SMALL.replace("language: zh", "language: zh, steps: {gopher: {sources: []}}"),
        "a step's values only",
    ),
    "memory in tokens": (SMALL + "execution: {memory: 4B}", "did you mean 4 GiB?"),
    "engine misspelt": (SMALL + "execution: {engine: slrum}", "did you mean slurm?"),
    "number as text": (SMALL + "seed: '3'", "a whole number is wanted"),
    "key stands twice": (SMALL + "model: llama_1m", "stands twice"),
}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("natural^0.5", "natural, order: {blocked: [zh_web, en_web]}", "draw en_wiki too"),
        ("natural^0.5", '{zh_web: 1, "en_*": 0}, order: {blocked: [zh_web]}', None),
        (
            "natural^0.5",
            '{zh_web: 1, "en_*": 0, en_wiki/a: 0.0}, order: {blocked: ["*", "en_*", "*_web"]}',
            "en_wiki/a",
        ),
        ("natural^0.5", 'natural, order: {blocked: ["*", "en_*", "*_wiki"]}', None),
        ("natural^0.5", 'natural, order: {blocked: ["*", "zh_*", "*web"]}', "neither is more specific"),
        ("max_epochs: 4", 'max_epochs: {"zh_*": 2, "*web": 3, "*": 4}', "'zh_web' is named by '*web' and by 'zh_*'"),
    ],
)
def test_blocks_and_caps_are_checked_before_anything_runs(load, errors, old, new, said):
    text = SMALL.replace(old, new)
    if said is None:
        load(text)
        return
    (error,) = errors(text)
    assert said in error


def test_a_phase_of_another_context_fits_every_batch_that_it_is_trained_with(load, errors):
    text = SMALL.replace("{peak: 5e-3}", "{peak: 5e-3}, batch: [[0, 3 sequences], [LINE, 16 sequences]]")
    text = text.replace("weights: natural^0.5", "context: 2048")  # from 1B to 1.1B tokens
    (error,) = errors(text.replace("LINE", "1.05B"))
    assert "a train step of 3,072 tokens is not whole sequences" in error
    load(text.replace("LINE", "900M"))
    swapped = text.replace("3 seq", "4 seq").replace("16 seq", "17 seq")
    load(swapped.replace("LINE", "2B"))
    assert "a train step of 17,408 tokens" in errors(swapped.replace("LINE", "1.05B"))[0]


def test_weights_of_a_file_are_checked_as_those_of_the_recipe(load, errors, tmp_path):
    text = SMALL.replace("natural^0.5", f"{tmp_path}/w.json")
    load(text)  # `validate` tells of a missing file
    (tmp_path / "w.toml").touch()
    assert "read from .json, .yaml or .csv" in errors(text.replace("w.json", "w.toml"))[0]
    for written, said in {
        '{"zh_web": 0.5, "en_wbe": 0.5}': "'en_wbe': names no domain; did you mean en_web?",
        '{"zh_web": 0.5, "*": 0.4}': 'weights sum to 0.9, not 1; normalised:\n{"zh_web": 0.5556, "*": 0.4444}',
        '{"zh_web": 0.5, "en_web": 0.5}': "no weight names en_wiki",
        '{"zh_web": 0.5': "not JSON",
    }.items():
        (tmp_path / "w.json").write_text(written)
        assert said in errors(text)[0]
    (tmp_path / "w.json").write_text('{"zh_web": 0.5, "en_web": 0.5, "en_wiki": 0}')
    load(text.replace("w.json", "w.json, order: {blocked: [zh_web, en_web]}"))


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_error_that_says_the_fix(errors, case):
    text, said = CASES[case]
    found = errors(text)
    assert said in found[0], "\n".join(found)
    assert len(found) == 1, "\n".join(found)


ABLATION = (
    SMALL.replace('weights: {zh_web: 0.5, "en_*": 0.5}', "weights: ablation")
    + """
ablation:
  tokens: 300M
  runs: {dirichlet: 8}
"""
)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("  bounds: {zh_web: [0.6, 0.3]}", "did you mean [0.3, 0.6]?"),
        ("  bounds: {zh_web: 0.3}", "[least, most]"),
        ("  bounds: {zh_web: [0.6, 1], en_web: [0.5, 1]}", "the least shares sum to 1.1"),
        ("  bounds: {zh_wbe: [0, 1]}", "did you mean zh_web?"),
        ("  objective: {zh_web: 0.5}", "shares of the objective sum to 0.5"),
        ("  objective: wrost", "did you mean worst?"),
        ("  objective: {pareto: [zh_web, en_wbe]}", "did you mean en_web?"),
        ("  baselines: [natural, unimacks]", "did you mean unimax?"),
        ("  baselines: [ablation]", "compared with"),
        ("  orders: [{blocked: [zh_web, en_wbe]}]", "did you mean en_web?"),
        ("  proxy: {preset: llama_15m, training: {batch: 1000 tokens}}", "1 sequences (1024 tokens)"),
        ("  confirm: {model: llama_2m, tokens: 1B}", "did you mean llama_20m?"),
        ("  confirm: {model: llama_20m, tokens: 1K}", "shorter than one train step of its model"),
        ("  stop: {at: 0.2}", "keep: missing"),
    ],
)
def test_ablation_mistake_is_one_error(errors, added, said):
    found = errors(ABLATION + added)
    assert said in found[0], "\n".join(found)
    assert len(found) == 1, "\n".join(found)


def test_weights_may_name_parts_that_only_the_text_tells(load, errors):
    text = SMALL.replace("max_epochs: 4", "split: {zh_web: topic}").replace(
        "zh_web: 0.5", "zh_web/news: 0.3, zh_web: 0.2"
    )
    assert load(text).schedule[0].weights.shares == {"zh_web/news": 0.3, "zh_web": 0.2, "en_*": 0.5}
    buckets = text.replace("- rules: gopher", "- perplexity: {model: m/x}").replace("topic", "bucket")
    (error,) = errors(buckets.replace("news", "haed"))
    assert "zh_web/haed" in error
    assert "did you mean zh_web/head?" in error


def test_weights_name_the_levels_that_the_step_cuts(load, errors):
    text = SMALL.replace("max_epochs: 4", "split: {zh_web: bucket}").replace(
        "- rules: gopher", "- perplexity: {preset: sound, model: m/x, buckets: {shares: [0.25, 0.5, 0.75]}}"
    )
    named = {"zh_web/head": 0.1, "zh_web/middle_1": 0.1, "zh_web/middle_2": 0.1, "zh_web/tail": 0.2, "en_*": 0.5}
    text = text.replace('zh_web: 0.5, "en_*": 0.5', ", ".join(f'"{name}": {share}' for name, share in named.items()))
    assert load(text).schedule[0].weights.shares == named
    found = errors(text.replace("[0.25, 0.5, 0.75]", "[0.5]"))
    assert len(found) == 2
    assert all("names no domain" in error for error in found)


def test_error_in_an_extended_file_names_that_file(tmp_path):
    (tmp_path / "base.yaml").write_text("sources: {a: {path: x.jsonl, language: german}}\nseed: x\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\nseed: 1\nsteps: [{rules: gofer}]\n")
    with pytest.raises(RecipeErrors) as raised:
        load_recipe(tmp_path / "top.yaml")
    places = [(Path(error.place.file).name, error.place.line) for error in raised.value.errors]
    assert places == [("top.yaml", 3), ("base.yaml", 1)]


def test_error_in_set_names_the_override(load):
    with pytest.raises(RecipeErrors, match=r"^--set model=llama_15: model: value 'llama_15': unknown model preset"):
        load(SMALL, "model=llama_15")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path):
    (tmp_path / "far").mkdir()
    base = "sources: {a: {path: x.jsonl, language: de}}\nexecution: {raw: ../corpora, reuse: [store, /lab]}\n"
    (tmp_path / "far" / "base.yaml").write_text(
        base + "steps: [{language: {model: lid.bin}}]\ntokenizer: s3://b/tok.json\n"
    )
    (tmp_path / "top.yaml").write_text("extends: far/base.yaml\n")
    recipe = load_recipe(tmp_path / "top.yaml", ["execution.disk=1 TiB"])
    assert recipe.execution.raw == str(tmp_path / "corpora")
    assert recipe.execution.reuse == (str(tmp_path / "far" / "store"), "/lab")
    assert recipe.execution.workdir == str(tmp_path / "work")
    assert recipe.steps[0].model == str(tmp_path / "far" / "lid.bin")
    assert recipe.tokenizer.path == "s3://b/tok.json"
    assert recipe.sources["a"].path == ("x.jsonl",), "below execution.raw, not beside the recipe"


def test_steps_of_a_source_have_its_own_values(load):
    recipe = load(
        SMALL.replace("language: zh}", "language: zh, steps: {gopher: {min_words: 30}, minhash: {threshold: 0.7}}}")
    )
    assert [step.name for step in recipe.steps_of("zh_web")] == ["language", "gopher", "minhash"]
    own, others = recipe.steps_of("zh_web"), recipe.steps_of("en_web")
    assert own[1].thresholds() == {"min_words": 30}
    assert others[1].thresholds() == {}
    assert (own[2].threshold, own[2].bands) == (0.7, None), "a threshold takes the place of bands and rows"
    assert (others[2].threshold, others[2].bands, others[2].rows) == (None, 14, 8)
    assert own[2].keep == others[2].keep


def test_options_that_count_leave_out_defaults_and_what_changes_no_result():
    plain = Dedup.model_validate({"preset": "minhash"})
    assert plain.options_that_count() == {"kind": "dedup", "preset": "minhash", "name": "minhash"}
    said = Dedup.model_validate(
        {"preset": "minhash", "bands": 14, "rows": 8, "cluster": "star", "max_drop": 0.5, "sources": "a"}
    )
    assert said.options_that_count() | {"name": "minhash"} == plain.options_that_count()
    other = Dedup.model_validate({"preset": "minhash", "threshold": 0.8, "keep": ["newest", {"source": "a"}]})
    assert other.options_that_count() == {
        "kind": "dedup", "preset": "minhash", "name": "minhash", "threshold": 0.8, "bands": None, "rows": None,
        "keep": [{"by": "newest"}, {"by": "source", "name": "a"}],
    }  # fmt: skip


def test_options_that_count_a_threshold_equal_to_the_presets_is_absent(load):
    words = load_preset("gopher").options["min_words"]
    for written, counted in ((words, {}), (words + 1, {"min_words": words + 1})):
        step = load(SMALL, f"steps.gopher.min_words={written}").steps[1]
        options = step.options_that_count(preset_options=load_preset("gopher").options)
        assert options == {"kind": "rules", "preset": "gopher", "name": "gopher"} | counted


def test_options_that_count_hold_files_by_content_only(load):
    step = load(SMALL.replace("- rules: gopher", "- perplexity: {model: models/de.arpa}")).steps[1]
    assert "model" not in step.options_that_count()
    assert step.options_that_count(content_hash=lambda path: Path(path).name)["model"] == "de.arpa"


@pytest.mark.parametrize("kind", STEP_KINDS)
def test_options_that_count_of_a_default_step_are_its_names(kind):
    needed = {"measure": {"signals": ["a"]}, "perplexity": {"model": {"train_on": ["a"]}}}
    options = STEP_KINDS[kind].model_validate({"kind": kind, **needed.get(kind, {})}).options_that_count()
    assert set(options) - {"kind", "preset", "name", "signals", "model"} == set()


EXECUTION = [
    "execution.workers=3", "execution.memory=1 GiB", "execution.raw=/x", "execution.training.nodes=2",
    "execution.loggers=[csv]",
    "checkpoints.every=1M", "checkpoints.keep=all", "checkpoints.early=true",
]  # fmt: skip


def test_recipe_options_that_count_know_neither_execution_nor_checkpoints(load):
    before = load().options_that_count()
    for override in EXECUTION:
        assert load(SMALL, override).options_that_count() == before, override
    for override in (
        "seed=1",
        "steps.gopher.min_words=3",
        "training.learning_rate.peak=1e-3",
        "domains.held_out.tokens=2M",
    ):
        assert load(SMALL, override).options_that_count() != before, override


def test_recipe_options_that_count_are_json(load):
    import json

    assert json.loads(json.dumps(load().options_that_count()))["schedule"][0]["tokens"] == [10**9, "tokens"]


def test_resolved_names_the_origin_of_every_value(load):
    values = dict(flat(resolved(load(SMALL, "steps.gopher.min_words=30"))))
    origins = {path: value.origin.rpartition("/")[2] for path, value in values.items()}
    assert origins["seed"] == "default"
    assert origins["sources.zh_web.language"] == "r.yaml:3"
    assert origins["steps.gopher.min_words"] == "--set steps.gopher.min_words=30"
    assert origins["steps.gopher.max_words"] == "preset gopher"
    assert origins["steps.minhash.bands"] == "preset minhash"
    assert origins["schedule.cooldown.ramp"] == "r.yaml:15"
    assert origins["model.preset"] == "r.yaml:16"
    assert origins["model.layers"] == "preset llama_15m"
    assert origins["training.learning_rate.peak"] == "r.yaml:17"
    assert origins["training.learning_rate.warmup"] == "preset llama_15m"
    assert values["training.learning_rate.warmup"].value == "6M"
    assert values["training.batch"].value == "48 sequences"


def test_not_yet_names_keys_whose_work_comes_later_with_their_lines():
    found = [str(message) for message in not_yet(load_recipe(ROOT / "recipes" / "examples" / "de_1b.yaml"))]
    for said in ("WARC", "redpajama-v2", "text extraction", "decontamination", "suites", "running on slurm", "disk"):
        assert sum(said in message for message in found) == 1, (said, found)
    assert all(".yaml:" in message for message in found)


def test_not_yet_is_empty_for_what_is_there(load):
    assert not_yet(load()) == []


def test_importing_the_schema_loads_no_heavy_library():
    heavy = ("numpy", "polars", "numba", "datatrove", "torch", "lightning", "pyarrow")
    imports = "import sys, recipes.schema.recipe, recipes.schema.validation, recipes.schema.resolved"
    code = f"{imports}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_loading_a_recipe_takes_a_quarter_of_a_second_at_most():
    started = time.process_time()
    load_recipe(ROOT / "recipes" / "examples" / "de_1b.yaml")
    assert time.process_time() - started < 0.25


def test_recipe_given_as_a_mapping_needs_no_file():
    recipe = Recipe.model_validate(
        {"sources": {"a": {"path": "x.jsonl", "language": "de"}}, "steps": [{"rules": "gopher"}]}
    )
    assert recipe.name == "recipe"
    assert recipe.steps[0].preset == "gopher"


def test_unpinned_weights_on_several_nodes_are_refused(load, tmp_path):
    recipe = load(ABLATION + f"execution: {{workdir: {tmp_path}, training: {{nodes: 2}}}}\n")
    with pytest.raises(RunError, match="on 2 nodes needs weights that stand in the recipe"):
        _ = Run.open(recipe, silent=True).weights


def test_names_without_signs_are_looked_up_however_many_domains_there_are(tmp_path, monkeypatch):
    """10,000 domains with a weight, a cap and a bound each: comparing every name with every domain takes minutes."""
    names = [f"s{number}" for number in range(200)]
    sources = "".join(f"  {name}: {{path: {name}.jsonl, language: de}}\n" for name in names)
    shares, caps = ", ".join(f"{name}: 0.005" for name in names), ", ".join(f"{name}: 4" for name in names)
    path = tmp_path / "r.yaml"
    text = (
        f"sources:\n{sources}steps:\n"
        f"  - rules: {{name: r, sources: [{', '.join(names)}], drop: {{short: word_count < 3}}}}\n"
        f"domains: {{max_epochs: {{{caps}}}}}\ntokenizer: {{algorithm: byte_bpe, vocabulary: 8000}}\n"
        f"schedule: [{{name: main, tokens: 10M, weights: {{{shares}}}}}]\nmodel: llama_15m\n"
    )
    path.write_text(text)
    compared = []
    for module in ("recipes.schema.names", "recipes.checks.training", "mixing.patterns"):
        monkeypatch.setattr(f"{module}.covers", lambda pattern, domain: compared.append((pattern, domain)))
    for module in ("recipes.schema.names", "recipes.schema.recipe"):
        monkeypatch.setattr(f"{module}.fnmatchcase", lambda name, pattern: compared.append((name, pattern)))
    load_recipe(path)
    assert compared == []
    monkeypatch.undo()
    path.write_text(text.replace("s7: 0.005", "s7x: 0.005"))
    with pytest.raises(RecipeErrors) as wrong:
        load_recipe(path)
    assert ["names no domain" in str(one) or "no weight names s7;" in str(one) for one in wrong.value.errors] == [
        True
    ] * 2
