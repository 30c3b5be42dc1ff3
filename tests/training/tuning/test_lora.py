import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from training import checkpoint as checkpoints
from training.export import ExportOptions, export_huggingface
from training.models import ModelShape
from training.spec import LowRank, SpecError
from training.tuning import lora
from training.tuning.adapter import check_adapter, load_tuned, write_adapter, write_merged

SHAPES = {
    "llama": ModelShape("llama", 64, 32, 2, 4, 64, 16, kv_heads=2),
    "tied": ModelShape("llama", 64, 32, 2, 4, 64, 16, tied=True),
    "gpt_neo": ModelShape("gpt_neo", 64, 32, 2, 4, 64, 16, tied=True, window=5),
    "mindllm": ModelShape("mindllm", 64, 32, 2, 4, 64, 16, kv_heads=2),
}
OPTIONS = LowRank(4, 8.0, 0.0, ("query", "value", "down"))
TOKENS = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(1))


def logits(model):
    with torch.no_grad():
        return model(TOKENS)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_untrained_update_changes_nothing_and_a_trained_one_merges_to_the_same_logits(make_tuned, make_model, name):
    tuned, model = make_tuned(SHAPES[name], OPTIONS)
    base = make_model(SHAPES[name])
    fresh = lora.adapt(make_model(SHAPES[name]), OPTIONS)
    lora.fill(fresh, tuned.start, None, 5)
    assert torch.equal(logits(fresh), logits(base))
    assert (logits(model) - logits(base)).abs().max() > 1e-2
    assert torch.equal(logits(load_tuned(tuned)), logits(model))
    merged = checkpoints.load_model(checkpoints.open_checkpoint(write_merged(tuned, tuned.last.parent / "merged")))
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_peft_loads_the_adapter_and_has_our_logits(make_tuned, tmp_path, name, embeddings):
    pytest.importorskip("peft", reason="needs the extra `peft`")
    tuned, _ = make_tuned(SHAPES[name], dataclasses.replace(OPTIONS, embeddings=embeddings))
    export_huggingface([tuned.start], tmp_path / "base", ExportOptions("fp32"))
    write_adapter(tuned, tmp_path / "base", tmp_path / "adapter", tmp_path)
    assert check_adapter(tuned, tmp_path / "adapter", tmp_path / "base") <= 1e-4


def test_checkpoint_of_updates_holds_nothing_else(make_tuned):
    tuned, _ = make_tuned(SHAPES["llama"], OPTIONS)
    saved = load_file(next(tuned.last.glob("*.safetensors")))
    assert len(saved) == 2 * 3 * 2
    assert all(name.endswith(("lora_a", "lora_b")) for name in saved)


def test_gradients_are_those_of_the_written_out_formula(make_tuned):
    _, model = make_tuned(SHAPES["llama"], OPTIONS)
    model(TOKENS).square().mean().backward()
    layer = model.blocks[1].feed_forward.down
    ours = layer.lora_a.grad.clone(), layer.lora_b.grad.clone()
    assert layer.weight.grad is None
    # The twin: the same layer with W + scale B A as one matrix.
    a, b = (part.detach().clone().requires_grad_() for part in (layer.lora_a, layer.lora_b))
    layer.forward = lambda x: torch.nn.functional.linear(x, layer.weight + 8.0 / 4 * b @ a)
    model(TOKENS).square().mean().backward()
    torch.testing.assert_close(ours, (a.grad, b.grad), rtol=1e-4, atol=1e-7)


def test_dropout_leaves_measuring_alone(make_tuned):
    _, plain = make_tuned(SHAPES["llama"], OPTIONS)
    _, dropping = make_tuned(SHAPES["llama"], dataclasses.replace(OPTIONS, dropout=0.5))
    assert torch.equal(logits(dropping), logits(plain))
    assert not torch.equal(dropping(TOKENS), plain(TOKENS))


def test_initial_values_depend_on_seed_and_name_alone_and_have_the_spread_of_peft():
    values = lora.initial_values("blocks.0.attention.query.lora_a", (64, 100), 3)
    assert torch.equal(values, lora.initial_values("blocks.0.attention.query.lora_a", (64, 100), 3))
    assert not torch.equal(values, lora.initial_values("blocks.1.attention.query.lora_a", (64, 100), 3))
    theirs = torch.nn.init.kaiming_uniform_(torch.empty(64, 100), a=5**0.5)
    assert values.abs().max() <= 0.1
    assert values.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


def test_layer_that_is_not_there_and_rank_above_width_are_refused(make_model):
    with pytest.raises(lora.AdapterError, match="no layer gate; it has query, key, value, output, up, down"):
        lora.adapt(make_model(SHAPES["gpt_neo"]), dataclasses.replace(OPTIONS, targets=("gate",)))
    with pytest.raises(lora.AdapterError, match="rank: 17 is more than the 16 that value"):
        lora.adapt(make_model(SHAPES["llama"]), dataclasses.replace(OPTIONS, rank=17))


def test_updates_need_weights_to_start_from(make_spec):
    with pytest.raises(SpecError, match="start_from"):
        make_spec(lora=OPTIONS)
