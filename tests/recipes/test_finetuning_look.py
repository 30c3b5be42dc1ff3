"""`gristmill finetune --look`: what is learnt and what is only read, as the prepared files have it."""

import json
import re

import pytest

pytest.importorskip("torch", reason="training needs the `training` extra")

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
