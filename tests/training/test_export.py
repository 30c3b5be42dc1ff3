import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import checkpoint  # noqa: E402
from training.export import ExportError, ExportOptions, check_export, export_huggingface  # noqa: E402


@pytest.fixture(autouse=True)
def own_module_cache(tmp_path, monkeypatch):
    """transformers copies an export's own code into its cache."""
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def saved(tmp_path, make_model):
    def save(shape, seed=0):
        entry = checkpoint.shape_entry(shape)
        manifest = {"step": 1, "position": 4, "tokens": 64, "prefix": {"seed": seed}, "shape": entry, "state": {}}
        return checkpoint.save(tmp_path / "checkpoints", make_model(shape, seed), None, manifest)

    return save


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of single letters."""
    import tokenizers

    letters = {"<s>": 0, "</s>": 1, **{letter: 2 + place for place, letter in enumerate("abcdefghij ")}}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(letters, [], unk_token="<s>"))
    model.add_special_tokens(["<s>", "</s>"])
    model.decoder = tokenizers.decoders.Fuse()
    path = tmp_path / "letters" / "tokenizer.json"
    path.parent.mkdir()
    model.save(str(path))
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_export_loads_in_transformers_with_our_logits(tmp_path, shape, saved, precision):
    folder = tmp_path / "export"
    found = export_huggingface([saved(shape)], folder, ExportOptions(precision, name="tiny", sheet={"rows": 3}))
    assert found.logit_difference <= 1e-5 < found.logit_scale
    assert len(found.continuation.split()) == 8
    assert json.loads((folder / "data_sheet.json").read_text()) == {"rows": 3}
    assert "# tiny" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    if shape.family == "llama":
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(("family", "context", "read"), [("llama", 64, 64), ("mindllm", 8, 16), ("gpt_neo", 64, 16)])
def test_export_reads_as_far_as_it_was_trained(tmp_path, tiny, saved, family, context, read):
    """A Llama's last phase may have had longer sequences than its shape says; a GPT-Neo's cannot have."""
    assert tiny[family].context == 16
    folder = tmp_path / "export"
    export_huggingface([saved(tiny[family])], folder, ExportOptions(context=context))
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == read
    assert f"context {read}." in (folder / "README.md").read_text()


def test_export_carries_the_tokenizer_and_its_ids(tmp_path, tiny, saved, tokenizer):
    from transformers import AutoTokenizer

    folder = tmp_path / "export"
    export_huggingface([saved(tiny["llama"])], folder, ExportOptions(tokenizer=str(tokenizer), prompt="abc"))
    assert AutoTokenizer.from_pretrained(folder)("abc", add_special_tokens=False)["input_ids"] == [2, 3, 4]
    config = json.loads((folder / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 1, None)


CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"


@pytest.fixture(params=["letters", "gpt2"])
def theirs(request, tmp_path, tokenizer):
    """A tokenizer as transformers saves it: tokenizer.json alone, and one of a class with files of its own."""
    import tokenizers
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    folder = tmp_path / "theirs"
    if request.param == "letters":
        made = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), bos_token="<s>", eos_token="</s>")
    else:
        letters = {"<s>": 0, "</s>": 1, **{letter: 2 + n for n, letter in enumerate("abcdefghij\u0120")}, "ab": 13}
        bpe = tokenizers.models.BPE(letters, [("a", "b")])
        raw = tokenizers.Tokenizer(bpe)
        raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = tokenizers.decoders.ByteLevel()
        raw.add_special_tokens(["<s>", "</s>"])
        folder.mkdir()
        bpe.save(str(folder))
        raw.save(str(folder / "tokenizer.json"))
        words = {f"{kind}_token": word for kind, word in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<s>"))}
        made = GPT2Tokenizer.from_pretrained(folder, **words)
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    made.chat_template = CHAT
    made.save_pretrained(folder)
    return folder


def test_export_brings_all_of_a_tokenizer_along(tmp_path, tiny, saved, theirs):
    from transformers import AutoTokenizer

    options = ExportOptions(tokenizer=str(theirs), prompt="abc")
    export_huggingface([saved(tiny["llama"])], tmp_path / "export", options)
    source, copy = (AutoTokenizer.from_pretrained(folder) for folder in (theirs, tmp_path / "export"))
    text = "ab <turn>a bad cab</s>"
    assert copy(text)["input_ids"] == source(text)["input_ids"]
    assert copy.get_vocab() == source.get_vocab()
    assert copy.special_tokens_map == source.special_tokens_map
    said = [{"role": "a", "content": "bad cab"}]
    assert copy.apply_chat_template(said, tokenize=False) == "<s>a: bad cab</s>"
    assert source.apply_chat_template(said, tokenize=False) == "<s>a: bad cab</s>"
    there = {path.name for path in theirs.iterdir()}
    assert "chat_template.jinja" in there
    assert there <= {path.name for path in (tmp_path / "export").iterdir()}


def test_export_average_is_the_mean_of_the_weights(tmp_path, tiny, saved, make_model):
    from safetensors.torch import load_file

    shape = tiny["llama"]
    folder = tmp_path / "export"
    export_huggingface([saved(shape, seed) for seed in (0, 1)], folder, ExportOptions("fp32"))
    exported = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    mean = (make_model(shape, 0).embedding.weight + make_model(shape, 1).embedding.weight) / 2
    torch.testing.assert_close(exported, mean.detach())


def test_export_in_several_files_loads_the_same(tmp_path, tiny, saved, monkeypatch):
    monkeypatch.setattr("training.export.FILE_BYTES", 20_000)
    folder = tmp_path / "export"
    assert export_huggingface([saved(tiny["llama"])], folder).logit_difference <= 1e-5
    files = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(files) > 1
    assert all(path.stat().st_size < 25_000 for path in folder.glob("model-*.safetensors"))
    weights = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert sorted(set(weights.values())) == files


def test_export_of_other_weights_is_refused(tmp_path, tiny, saved):
    shape = tiny["llama"]
    first, second = saved(shape, 0), saved(shape, 1)
    export_huggingface([first], tmp_path / "export")
    with pytest.raises(ExportError, match="logits differ"):
        check_export([checkpoint.open_checkpoint(second)], tmp_path / "export", ExportOptions())
