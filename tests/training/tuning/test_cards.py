"""Cards of tuned models: their code is run as it stands, and stops where answers end."""

import json
import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from training.export import ExportOptions, export_huggingface
from training.models import ModelShape
from training.spec import LowRank
from training.tuning.adapter import write_adapter, write_merged
from training.tuning.cards import Card, finish_adapter, finish_folder, hub_origin
from training.tuning.tokens import template_of, write_tokenizer


@pytest.fixture
def make_folders(tmp_path, make_tuned, tokenizer_folder):
    """Export a tuned model of a family: its weights, the merged model's folder and the adapter's."""

    def make(family):
        encoder = write_tokenizer(tokenizer_folder, tmp_path / "tokenizer", template_of("chatml", tokenizer_folder))
        shape = ModelShape(family, encoder.vocabulary, 32, 2, 4, 64, 256, kv_heads=2)
        tuned, _ = make_tuned(shape, LowRank(4, 8.0, 0.0, ("query", "value"), embeddings=True))
        merged = write_merged(tuned, tmp_path / "merged")
        for checkpoint, name in ((tuned.start, "base"), (merged, "huggingface")):
            export_huggingface([checkpoint], tmp_path / name, ExportOptions("fp32", str(tmp_path / "tokenizer")))
        write_adapter(tuned, tmp_path / "base", tmp_path / "adapter", tmp_path / "tokenizer")
        return tuned, tmp_path / "huggingface", tmp_path / "adapter"

    return make


def said_by(folder, monkeypatch):
    """Run the code of a folder's card in the folder; ids of the answer."""
    (code,) = re.findall("```python\\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = code.replace("max_new_tokens=200", "max_new_tokens=9")
        exec(code.replace("print(", "answer = model.generate(**inputs, max_new_tokens=9)\nprint("), found)
    return found["answer"][0, found["inputs"]["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("family", ["llama", "mindllm"])
def test_code_of_both_cards_runs_and_stops_where_answers_end(make_folders, monkeypatch, family):
    pytest.importorskip("peft", reason="needs the extra `peft`")
    _, merged, adapter = make_folders(family)
    card = Card("mine", "theirs/base", family, {"loss on": "answers", "system": "a\nb"})
    finish_folder(merged, [1], card)
    finish_adapter(adapter, merged, card)
    free = said_by(merged, monkeypatch)
    assert len(free) == 9
    finish_folder(merged, [free[0], 1], card)
    finish_adapter(adapter, merged, card)
    assert said_by(merged, monkeypatch) == said_by(adapter, monkeypatch) == free[:1]
    for folder, library in ((merged, "transformers"), (adapter, "peft")):
        text = (folder / "README.md").read_text()
        assert text.startswith(f"---\nlibrary_name: {library}\n")
        assert "\nbase_model: theirs/base\n" in text
        assert '\n- system: "a\\nb"\n' in text
    assert f"`{adapter.parent / 'base'}`" in text


def test_base_model_in_the_cache_of_the_hub_is_named_as_the_hub_does(make_folders, tmp_path):
    cache = tmp_path / "hub" / "models--LSX-UniWue--LLaMmlein_120M" / "snapshots"
    cache.mkdir(parents=True)
    tuned, _, adapter = make_folders("llama")
    base = (adapter.parent / "base").rename(cache / "3f2ab")
    write_adapter(tuned, base, tmp_path / "again", tmp_path / "tokenizer")
    config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("LSX-UniWue/LLaMmlein_120M", "3f2ab")
    assert hub_origin(base) == ("LSX-UniWue/LLaMmlein_120M", "3f2ab")
    assert hub_origin(cache) is hub_origin(Path("/")) is hub_origin(tmp_path) is None
