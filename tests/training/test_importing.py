import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.checkpoint import load_model, open_checkpoint, read_weights  # noqa: E402
from training.export import huggingface_config  # noqa: E402
from training.generate import continuations  # noqa: E402
from training.importing import ImportFailed, import_huggingface, is_huggingface  # noqa: E402


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


def test_new_ids_begin_as_the_mean_of_what_spelt_them(tiny, save_theirs, tmp_path):
    folder, _ = save_theirs(tiny["gpt_neo"])
    larger = dataclasses.replace(tiny["gpt_neo"], vocabulary=67)
    found = read_weights(open_checkpoint(import_huggingface(folder, tmp_path / "ours", larger, {65: [3, 4]})))
    rows = found["embedding.weight"]
    torch.testing.assert_close(rows[65], (rows[3] + rows[4]) / 2)
    torch.testing.assert_close(rows[64], rows[:64].mean(0))
    torch.testing.assert_close(rows[66], rows[:64].mean(0))


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
