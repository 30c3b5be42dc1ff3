"""What a fine-tuning starts from: checked with its line before anything is made, and made once."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs the `training` extra")

from recipes.finetuning.numbers import _parameters  # noqa: E402
from recipes.pretraining.start_weights import Origin, fitting_checkpoint  # noqa: E402
from recipes.run import Run  # noqa: E402
from recipes.schema.recipe import load_recipe  # noqa: E402
from training.checkpoint import open_checkpoint, read_weights  # noqa: E402
from training.export import huggingface_config  # noqa: E402
from training.importing import write_weights  # noqa: E402
from training.models import ModelShape, build  # noqa: E402
from training.models.initial import initialise  # noqa: E402
from training.spec import LowRank  # noqa: E402
from training.tuning import lora  # noqa: E402
from training.tuning.config import Lora  # noqa: E402

SHAPES = {
    "llama": ModelShape("llama", 300, 32, 2, 4, 64, 64, kv_heads=2),
    "tied": ModelShape("llama", 300, 32, 2, 4, 64, 64, tied=True),
    "gpt_neo": ModelShape("gpt_neo", 300, 32, 2, 4, 64, 64, tied=True),
}


@pytest.fixture
def tune(tmp_path):
    """A recipe that tunes what lies beside it, with one conversation."""

    def write(more="", start="base", name="r"):
        (tmp_path / "chat.jsonl").write_text(json.dumps({"question": "a?", "answer": "b."}) + "\n")
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"finetuning:\n  from: ./{start}\n  examples: chat.jsonl\n  held_out: 0\n{more}")
        return path

    return write


def write_config(folder, shape):
    (folder / "config.json").write_text(json.dumps(huggingface_config(shape, {}, "fp32")))


def write_checkpoint(root, shape):
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    initialise(model, shape, 0)
    return write_weights(dict(model.named_parameters()), shape, root, {})


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("family", "line", "told"),
    [
        ("gpt_neo", "lora: {targets: gate}", "r.yaml:5: finetuning.lora.targets: value 'gate': a gpt_neo model has no"),
        ("llama", "lora: {rank: 17, targets: all}", "r.yaml:5: finetuning.lora.rank: value 17: more than the width of"),
        ("gpt_neo", "context: 65", "r.yaml:5: finetuning.context: value 65: more than the 64 positions"),
        ("llama", "template: mine.jinja", "r.yaml:5: finetuning.template: value"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "finetune"])
def test_start_that_does_not_fit_is_told_with_its_line_before_anything_is_made(
    tune, write_byte_tokenizer, gristmill_here, tmp_path, verb, family, line, told
):
    write_byte_tokenizer(tmp_path / "base")
    write_config(tmp_path / "base", SHAPES[family])
    refused = gristmill_here(verb, tune(f"  {line}\n"), code=2)
    assert told in refused.err
    assert not files_below(tmp_path / "work")


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("nowhere", "no such file or folder"),
        ("steps", "no checkpoint and no Hugging Face folder (manifest.json, config.json); did you mean"),
        ("empty", "no checkpoint and no Hugging Face folder (manifest.json, config.json)\n"),
        ("steps/adapters", "a checkpoint of low-rank updates, without the weights that they change"),
        ("steps/step-00000001-00", "a checkpoint without its tokenizer; say tokenizer: PATH"),
    ],
)
def test_start_that_is_none_is_told_with_its_line(tune, gristmill_here, tmp_path, start, told):
    (tmp_path / "empty").mkdir()
    for name, tensors in (("adapters", {"model/blocks.0.attention.query.lora_a": {}}), ("step-00000001-00", {})):
        manifest = {"shape": vars(SHAPES["llama"]), "tensors": tensors}
        (tmp_path / "steps" / name).mkdir(parents=True)
        (tmp_path / "steps" / name / "manifest.json").write_text(json.dumps(manifest))
    refused = gristmill_here("validate", tune(start=start), code=2)
    assert "r.yaml:2: finetuning.from: value" in refused.err
    assert told in refused.err


def test_missing_examples_stop_a_run_before_its_model_is_trained(small, gristmill_here):
    recipe = small()
    recipe.write_text(recipe.read_text() + "finetuning: {examples: [chat.jsonl]}\n")
    refused = gristmill_here("run", recipe, code=2)
    assert "finetuning.examples.chat.path: value" in refused.err
    assert "no JSONL, JSON or Parquet file at" in refused.err
    assert not list(recipe.parent.glob("work/de.*"))


def test_dry_run_from_a_checkpoint_makes_neither_a_tokenizer_nor_anything_else(small, tmp_path, gristmill_here, tune):
    checkpoint = write_checkpoint(tmp_path / "checkpoints", SHAPES["llama"])
    tune()
    recipe = small()
    tuned = f"finetuning: {{from: {checkpoint}, examples: chat.jsonl}}\n"
    recipe.write_text(recipe.read_text() + tuned)
    refused = gristmill_here("finetune", recipe, "--dry-run", code=1)
    assert "was not made yet; `gristmill run" in refused.err
    assert [path.name for path in files_below(tmp_path / "work")] in ([], ["inputs.json"])


def test_checkpoint_brings_the_tokenizer_that_lies_beside_it(tune, write_byte_tokenizer, gristmill_here, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "trained" / "checkpoints", SHAPES["llama"])
    write_byte_tokenizer(tmp_path / "trained" / "tokenizer")
    said = gristmill_here("finetune", tune(start=checkpoint.relative_to(tmp_path)), "--dry-run").out
    assert "2 new tokens" in said
    assert not files_below(tmp_path / "work")


def test_checkpoint_with_new_rows_is_named_by_what_spelt_them_and_made_once(tune, tmp_path):
    shape = SHAPES["llama"]
    start = write_checkpoint(tmp_path / "base", shape)
    runs = [Run.open(load_recipe(tune(name=name)), silent=True) for name in ("one", "two", "three")]
    spelt = [{300: [1], 301: [2, 3]}, {301: [2, 3], 300: [1]}, {300: [2], 301: [2, 3]}]
    origins = [Origin(start, "k", shape, new, "finetuning.from") for new in spelt]
    with ThreadPoolExecutor(3) as threads:  # at once: one makes it, the other waits
        found = list(threads.map(fitting_checkpoint, runs, origins, [302] * 3))
    assert found[0] == found[1] != found[2]
    rows = read_weights(open_checkpoint(found[0]))["embedding.weight"]
    assert torch.equal(rows[301], rows[[2, 3]].mean(0))
    assert len(list(found[0].parent.glob("step-*"))) == 1


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("targets", [("query", "value"), ("all",)])
def test_told_number_of_trained_parameters_is_what_is_trained(name, embeddings, targets):
    shape, chosen = replace(SHAPES[name], vocabulary=302), Lora(rank=4, targets=targets)
    wanted = type("Wanted", (), {"lora": chosen})
    layers = tuple(lora.layer_names(build(shape))) if targets == ("all",) else targets
    model = lora.adapt(build(shape), LowRank(4, 8.0, 0.0, layers, embeddings))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert _parameters(wanted, shape, embeddings).startswith(f"{trained:,} parameters are trained")


CONTINUED = """
sources: {web: {path: web.jsonl, language: de}}
schedule: [{name: main, tokens: 4K}]
model: {preset: llama_tiny, layers: 2, width: 32, heads: 4, kv_heads: 2, feedforward: 64, context: 64, tied: false}
tokenizer: ./other
training: {batch: 4 sequences, from: ./trained/checkpoints/STEP}
"""


@pytest.fixture
def continued(tmp_path, write_byte_tokenizer):
    """A recipe that goes on from a checkpoint which has its tokenizer beside it, and names another one."""
    checkpoint = write_checkpoint(tmp_path / "trained" / "checkpoints", SHAPES["llama"])
    write_byte_tokenizer(tmp_path / "trained" / "tokenizer")
    write_byte_tokenizer(tmp_path / "other")
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    path = tmp_path / "r.yaml"
    path.write_text(CONTINUED.replace("STEP", checkpoint.name))
    return path


def test_checkpoint_of_another_shape_is_told_with_its_line_before_anything_is_read(continued, gristmill_here):
    assert "valid" in gristmill_here("validate", continued).out
    for verb in ("validate", "run", "train"):
        refused = gristmill_here(verb, continued, "--set", "model.feedforward=96", code=2)
        assert "r.yaml:6: training.from: value" in refused.err
        assert "feedforward is 64 there, 96 in the recipe's model" in refused.err
    assert not files_below(continued.parent / "work")


def test_tokenizer_that_gives_ids_another_meaning_is_refused_before_anything_is_read(continued, gristmill_here):
    other = continued.parent / "other" / "tokenizer.json"
    changed = json.loads(other.read_text())
    vocabulary = changed["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    other.write_text(json.dumps(changed))
    refused = gristmill_here("train", continued, code=1)
    assert "2 of its 25" in refused.err
    assert f"say tokenizer: {continued.parent / 'trained' / 'tokenizer'}" in refused.err
    assert not files_below(continued.parent / "work")


def test_tokenizer_with_more_ids_than_the_model_knows_is_refused(tune, write_byte_tokenizer, gristmill_here, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "alone", replace(SHAPES["llama"], vocabulary=200))
    write_byte_tokenizer(tmp_path / "other")
    recipe = tune(start=checkpoint.relative_to(tmp_path))
    recipe.write_text(recipe.read_text() + "tokenizer: ./other\n")
    refused = gristmill_here("finetune", recipe, "--dry-run", code=1)
    assert "the model knows 200 token ids, and" in refused.err
