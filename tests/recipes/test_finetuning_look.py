"""`gristmill finetune --look`: what is learnt and what is only read, as the prepared files have it."""

import json
import re

import pytest

pytest.importorskip("torch", reason="training needs the `training` extra")

from recipes.finetuning.cost import tuning_forecast
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from training.export import huggingface_config
from training.models import ModelShape

ROWS = [
    {"messages": [
        {"role": "user", "content": "Wo steht die Mühle?"}, {"role": "assistant", "content": "Am Bach."},
        {"role": "user", "content": "Und der Müller?"}, {"role": "assistant", "content": "Er schläft."},
    ]},
    {"messages": [{"role": "user", "content": "Was mahlt sie?"}, {"role": "assistant", "content": "Korn."}]},
    {"messages": [{"role": "user", "content": "Und jetzt?"}, {"role": "assistant", "content": ""}]},
    {"messages": [{"role": "user", "content": "a" * 500}, {"role": "assistant", "content": "Zu lang."}]},
    {"messages": [{"role": "user", "content": "Erzähle."}, {"role": "assistant", "content": "Es war " + "x " * 300}]},
]  # fmt: skip


@pytest.fixture
def recipe(tmp_path, write_byte_tokenizer):
    write_byte_tokenizer(tmp_path / "base")
    config = huggingface_config(ModelShape("llama", 300, 32, 2, 4, 64, 256), {}, "fp32")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "r.yaml"
    path.write_text("finetuning: {from: ./base, examples: chat.jsonl, held_out: 0, context: 256}\n")
    return path


def test_look_marks_every_answer_with_its_end_and_nothing_else(recipe, gristmill_here):
    said = gristmill_here("finetune", recipe, "--look", 9).out
    learnt = [text for text in re.findall("⟦(.*?)⟧", said, re.DOTALL) if text != " "]  # the header shows the marks
    whole = {"Am Bach.<|im_end|>", "Er schläft.<|im_end|>", "Korn.<|im_end|>"}
    (cut,) = set(learnt) - whole  # the end of what was cut is not there to be learnt
    assert len(learnt) == 4
    assert cut.startswith("Es war x x")
    assert "<|im_end|>" not in cut
    assert "<|im_start|>user\n  Und der Müller?<|im_end|>" in said
    assert "chat: 1 cut: chat.jsonl row 4\n" in said
    assert "chat: 1 empty_answer: chat.jsonl row 2\n" in said
    assert "chat: 1 too_long: chat.jsonl row 3\n" in said
    assert not [path for path in (recipe.parent / "work").rglob("*") if path.is_file()]


def test_look_counts_what_it_shows(recipe, gristmill_here):
    found = json.loads(gristmill_here("finetune", recipe, "--look", 9, "--json").out)
    one = found["sets"][0]
    assert sum(shown["tokens"] for shown in found["sequences"]) == one["tokens"]
    assert sum(shown["learnt"] for shown in found["sequences"]) == one["answer_tokens"]
    assert sum(len(shown["conversations"]) for shown in found["sequences"]) == one["kept"] == 3
    assert len(found["sequences"]) == one["sequences"] == 2


@pytest.mark.parametrize(("lora", "trained"), [("", 1.0), (", lora: {rank: 2}", 0.5)])
def test_forecast_of_a_tuning_has_the_train_steps_that_look_tells(recipe, gristmill_here, monkeypatch, lora, trained):
    monkeypatch.setattr("recipes.pretraining.training_cost._seconds", lambda *_: (12.0, "by heart"))
    recipe.write_text(recipe.read_text().replace("context: 256", f"context: 256{lora}"))
    steps = json.loads(gristmill_here("finetune", recipe, "--look", 1, "--json").out)["train_steps"]
    said = gristmill_here("run", recipe, "--dry-run").out
    assert re.search(rf"^fine-tuning: .* tokens in {steps} train steps?", said, re.MULTILINE), said
    assert "12 s with" in said
    assert "by heart" in said
    with Run.open(load_recipe(recipe), silent=True) as run:
        found = tuning_forecast(run)
    assert found.steps == steps
    assert not found.there
    assert found.checkpoint_bytes <= 12 * found.parameters * trained
