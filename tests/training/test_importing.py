import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.checkpoint import load_model, open_checkpoint, read_weights  # noqa: E402
from training.export import ExportOptions, export_huggingface, huggingface_config  # noqa: E402
from training.generate import continuations  # noqa: E402
from training.huggingface import ImportFailed, is_huggingface, shape_of_huggingface  # noqa: E402
from training.importing import import_huggingface, with_rows  # noqa: E402


@pytest.fixture
def save_theirs(tmp_path):
    """A random model of Hugging Face's own class, saved; returns the folder and the model."""

    def save(shape):
        torch.manual_seed(0)
        theirs = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**huggingface_config(shape, {}, "fp32"))
        )
        theirs.eval().save_pretrained(tmp_path / "theirs")
        return tmp_path / "theirs", theirs

    return save


@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
def test_imported_model_has_their_logits(tiny, save_theirs, tmp_path, family):
    folder, theirs = save_theirs(tiny[family])
    assert is_huggingface(folder)
    found = open_checkpoint(import_huggingface(folder, tmp_path / "ours", tiny[family]))
    tokens = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(load_model(found)(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    assert not is_huggingface(found.folder)


@pytest.mark.parametrize("family", ["llama", "gpt_neo", "mindllm"])
def test_shape_is_told_by_the_config_that_an_export_writes(tiny, tmp_path, family):
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(tiny[family], {}, "fp32")))
    assert shape_of_huggingface(tmp_path) == tiny[family]


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type is llama3"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_type is linear"),
        ("llama", {"attention_bias": True}, "attention_bias is True"),
        ("llama", {"head_dim": 64}, "head_dim is 64"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is gelu, and the model here has silu"),
        ("llama", {"model_type": "qwen2"}, "a qwen2 model; llama, gpt_neo and"),
        ("llama", {"vocab_size": None, "hidden_size": 33, "head_dim": None}, "tells no whole model"),
        ("gpt_neo", {"attention_layers": ["global", "global"]}, "global and local ones in turn"),
    ],
)
def test_model_that_ours_does_not_compute_is_refused_before_its_weights_are_read(tiny, tmp_path, family, change, told):
    config = {**huggingface_config(tiny[family], {}, "fp32"), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ImportFailed, match=told):
        shape_of_huggingface(tmp_path)


def test_new_id_among_spare_rows_begins_as_the_mean_too():
    rows = torch.arange(12.0).view(6, 2)
    larger = with_rows(rows, 7, {5: [0, 1], 6: [1, 2]})
    assert torch.equal(larger[:5], rows[:5])
    assert larger[5:].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_new_ids_begin_as_the_mean_of_what_spelt_them(tiny, save_theirs, tmp_path):
    folder, _ = save_theirs(tiny["gpt_neo"])
    larger = dataclasses.replace(tiny["gpt_neo"], vocabulary=67)
    found = read_weights(open_checkpoint(import_huggingface(folder, tmp_path / "ours", larger, {65: [3, 4]})))
    rows = found["embedding.weight"]
    torch.testing.assert_close(rows[65], (rows[3] + rows[4]) / 2)
    torch.testing.assert_close(rows[64], rows[:64].mean(0))
    torch.testing.assert_close(rows[66], rows[:64].mean(0))


@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
def test_rows_beyond_the_tokenizer_are_cut_and_the_export_has_the_logits_of_all_ids(
    tiny, save_theirs, tmp_path, family
):
    """64 rows for 57 ids, tied and untied, as of a vocabulary padded for the hardware's sake."""
    folder, theirs = save_theirs(tiny[family])
    ours = dataclasses.replace(tiny[family], vocabulary=57)
    made = import_huggingface(folder, tmp_path / "ours", ours, known=57)
    export_huggingface([made], tmp_path / "export", ExportOptions("fp32"))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export").eval()
    tokens = torch.randint(0, 57, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits[..., :57]
        torch.testing.assert_close(load_model(open_checkpoint(made))(tokens), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(again(tokens).logits, expected, atol=1e-5, rtol=0)
    with pytest.raises(ImportFailed, match="has 58 token ids and the tokenizer 57"):
        import_huggingface(folder, tmp_path / "other", ours, known=58)


def test_extended_tokenizer_takes_some_padding_rows_and_the_others_are_cut():
    rows = torch.arange(12.0).view(6, 2)  # four ids, two rows of padding
    larger = with_rows(rows, 5, {4: [0, 1]}, known=4)
    assert larger.tolist() == [*rows[:4].tolist(), [1.0, 2.0]]
    whole = with_rows(rows, 7, {4: [0, 1]}, known=4)
    assert whole[5:].tolist() == 2 * [rows[:4].mean(0).tolist()]  # new ids that nothing spelt, not padding


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": 3}, "num_hidden_layers is 2 there, 3"),
        ({"kv_heads": 4}, "num_key_value_heads is 2 there, 4"),
        ({"vocabulary": 60}, "has 64 token ids and the tokenizer 60"),
        ({"rope_base": 500.0}, "rope_theta is 10000 there"),
        ({"family": "mindllm"}, "a llama model; the recipe's is mindllm"),
    ],
)
def test_other_models_are_refused_by_the_first_difference(tiny, save_theirs, tmp_path, change, told):
    folder, _ = save_theirs(tiny["llama"])
    with pytest.raises(ImportFailed, match=told):
        import_huggingface(folder, tmp_path / "ours", dataclasses.replace(tiny["llama"], **change))


def test_folder_without_safetensors_is_refused(tiny, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(tiny["llama"], {}, "fp32")))
    with pytest.raises(ImportFailed, match=r"no model\.safetensors"):
        import_huggingface(tmp_path, tmp_path / "ours", tiny["llama"])


def test_continuations_are_the_likeliest_tokens_and_repeat(tiny, save_theirs, tmp_path):
    folder, theirs = save_theirs(tiny["llama"])
    ours = import_huggingface(folder, tmp_path / "ours", tiny["llama"])
    ids = torch.tensor([[5, 6]])
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert list(continuations(ours, [5, 6], 8, 0.0, 0)) == expected[0, 2:].tolist()
    drawn = [list(continuations(ours, [5, 6], 20, 1.0, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]  # 20 tokens are more than the context of 16
    assert list(continuations(ours, [5, 6], 8, 0.0, 0, stop=int(expected[0, 2]))) == []
