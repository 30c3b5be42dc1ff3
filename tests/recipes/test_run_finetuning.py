"""Fine-tuning and continued pretraining by recipe, on real processes. A minute, so slow."""

import json
import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest
import tokenizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "white", "black")
RECIPE = """
finetuning:
  from: ./base
  examples: chat.jsonl
  epochs: EPOCHS
  batch: 4 sequences
  context: 64
  precision: fp32
  held_out: 0
  learning_rate: {peak: 5e-3, shape: linear}
  LORA
export: {format: huggingface, precision: fp32}
checkpoints: {every: 5 train steps}
execution: {training: {devices: 1, threads: 1}}
"""


def write_tokenizer(folder):
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE())
    encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(["Which colour has house 1? House 2 is red green blue white black."] * 9, trainer)
    encoder.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def make_base(tmp_path):
    """A random Llama with a byte-level tokenizer as a Hugging Face folder, and twenty conversations."""
    folder = tmp_path / "base"
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    rows = [
        {"instruction": f"Which colour has house {n}?", "output": f"House {n} is {COLOURS[n * 7 % 5]}."}
        for n in range(20)
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def recipe(name, epochs=160, lora=""):
        path = tmp_path / name / "tune.yaml"
        path.parent.mkdir()
        text = RECIPE.replace("EPOCHS", str(epochs)).replace("LORA", lora)
        path.write_text(text.replace("./base", "../base").replace("chat.jsonl", "../chat.jsonl"))
        return path, rows

    return recipe


def answers(folder, rows):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    said = []
    for row in rows:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            add_generation_prompt=True, return_tensors="pt", return_dict=True,
        )  # fmt: skip
        ids = model.generate(**asked, max_new_tokens=24, do_sample=False)
        said.append(tokenizer.decode(ids[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


def test_tuned_model_answers_as_it_was_taught_and_a_killed_tuning_leaves_the_same_bytes(gristmill, start, make_base):
    recipe, rows = make_base("whole")
    dry = gristmill("finetune", recipe, "--dry-run").out
    assert "20        20" in dry
    assert not (recipe.parent / "work").joinpath("examples").exists()
    folder = Path(gristmill("finetune", recipe).out.strip())
    assert answers(folder, rows) == [row["output"] for row in rows]
    assert gristmill("generate", recipe, "--ask", rows[7]["instruction"]).out.strip() == rows[7]["output"]
    killed, _ = make_base("killed")
    process = start("finetune", killed)
    deadline = time.monotonic() + 120
    while not list((killed.parent / "work").glob("tuning-*/checkpoints/step-*/manifest.json")):
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = Path(gristmill("finetune", killed).out.strip())
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "reused" in gristmill("finetune", recipe).err


def test_adapter_of_a_tuning_on_chosen_examples_loads_through_peft(gristmill, make_base):
    peft = pytest.importorskip("peft", reason="needs the extra `peft`")
    lora = "lora: {rank: 8, targets: all, dropout: 0.1}"
    recipe, _ = make_base("lora", 4, f"{lora}\n  selection: {{entropy: [-9, 9], model_entropy: 6, clusters: 2}}")
    folder = Path(gristmill("finetune", recipe).out.strip())
    ledger = pl.read_parquet(next(recipe.parent.glob("work/examples-*/ledger.parquet")))
    assert ledger["entropy"].is_between(4, 8).all()
    assert set(ledger["cluster"]) == {0, 1}
    model = peft.AutoPeftModelForCausalLM.from_pretrained(folder.parent / "adapter").eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(0, 290, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, merged(tokens).logits, atol=1e-4, rtol=0)


def test_export_is_warmed_up_again_and_cooled_down_in_another_recipe(gristmill, copy_of_finished, tmp_path):
    first = copy_of_finished.recipe
    first.write_text(first.read_text() + "export: {format: huggingface, precision: fp32}\n")
    export = Path(gristmill("export", first).out.strip())
    again = tmp_path / "again.yaml"
    text = first.read_text()
    begin, end = text.index("\nschedule:") + 1, text.index("\nmodel:") + 1
    schedule = (
        'schedule:\n  - {name: again, tokens: 16K, weights: natural}\n  - {name: down, tokens: 8K, weights: {"*": 1}}\n'
    )
    rate = f"training: {{from: {export}, learning_rate: {{peak: 5e-4, final: 0, warmup: 4K, shape: wsd, decay: 8K}}, "
    text = (text[:begin] + schedule + text[end:]).replace("training: {batch", rate + "batch")
    again.write_text(text.replace("tokenizer: {algorithm: byte_bpe, vocabulary: 600}", f"tokenizer: {export}"))
    gristmill("train", again)
    runs = {path.parent.name: path for path in (tmp_path / "work").glob("training-*/runs/*/held_out.csv")}
    trunk, cooled = (pl.read_csv(runs[name]) for name in (first.stem, "again"))
    begun = cooled.filter(pl.col("step") == 0)["loss"].mean()
    assert begun == pytest.approx(trunk.filter(pl.col("step") == trunk["step"].max())["loss"].mean(), rel=1e-3)
    assert cooled.filter(pl.col("step") == cooled["step"].max())["loss"].mean() < begun
    rates = pl.read_csv(runs["again"].with_name("metrics.csv"))["learning_rate"].to_list()
    assert max(rates) == pytest.approx(5e-4)
    assert rates[-1] == 0.0


@pytest.mark.parametrize("lora", ["", "  lora: {rank: 4, targets: all}\n"])
def test_checkpoint_of_a_training_is_tuned_with_the_tokenizer_that_it_keeps(
    gristmill, copy_of_finished, tmp_path, lora
):
    last = Path(gristmill("train", copy_of_finished.recipe).out.strip())
    rows = [{"instruction": f"Frage {n}?", "output": f"Antwort {n}."} for n in range(12)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "tune.yaml"
    tuned = f"finetuning:\n  from: {last}\n  examples: chat.jsonl\n  epochs: 2\n  batch: 4 sequences\n{lora}"
    recipe.write_text(tuned + "export: {format: huggingface, precision: fp32}\nexecution: {workdir: tuned}\n")
    folder = Path(gristmill("finetune", recipe).out.strip())
    assert all(len(text) > 0 for text in answers(folder, rows[:1]))
    assert f"checkpoint {last.name} of {last.parent.parent.name}" in (folder / "README.md").read_text()
    assert "done" in gristmill("status", recipe).out
