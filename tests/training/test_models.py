import dataclasses

import pytest

torch = pytest.importorskip("torch")

from training.attention import Reach  # noqa: E402
from training.documents import documents_of  # noqa: E402
from training.export import exported_name, huggingface_config  # noqa: E402
from training.step import StepOptions, sequence_nats  # noqa: E402


def tokens_of(shape, batch=2, length=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary, (batch, length or shape.context), generator=draw)


def huggingface_twin(model, shape):
    """transformers' own class with our weights."""
    import transformers

    kind = {"llama": "Llama", "gpt_neo": "GPTNeo"}[shape.family]
    config = getattr(transformers, f"{kind}Config")(**huggingface_config(shape, {}, "fp32"))
    twin = getattr(transformers, f"{kind}ForCausalLM")(config)
    renamed = {exported_name(shape.family, name): p.detach() for name, p in model.named_parameters()}
    missing = twin.load_state_dict(renamed, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    twin.tie_weights()
    return twin


@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
def test_model_logits_equal_huggingface(family, tiny, make_model):
    shape = dataclasses.replace(tiny[family], context=40)
    model = make_model(shape, seed=3)
    twin = huggingface_twin(model, shape).eval()
    tokens = tokens_of(shape)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), twin(tokens).logits, atol=1e-5, rtol=0)


def test_llama_trained_twenty_steps_has_huggingface_losses(tiny, make_model):
    shape = tiny["llama"]
    model = make_model(shape, seed=4)
    twin = huggingface_twin(model, shape)
    losses = []
    for network, loss_of in (
        (model, lambda x: model(x[:, :-1], x[:, 1:], torch.full((4, 15), 1 / 60))[0]),
        (twin, lambda x: twin(x, labels=x).loss),
    ):
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        course = []
        for step in range(20):
            loss = loss_of(tokens_of(shape, 4, seed=step % 3))
            course.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(course)
    assert losses[0][-1] < losses[0][0] - 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_mindllm_block_is_deepnorm_by_hand(tiny, make_model):
    shape = dataclasses.replace(tiny["mindllm"], layers=8)
    block = make_model(shape).blocks[0]
    for part in (block.attention.output, block.feed_forward.down):
        torch.nn.init.zeros_(part.weight)  # both parts give 0: what is left is the stream, normalised
    x = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(3, 8)
    with torch.no_grad():
        out = block(x, (ones, 0 * ones), Reach("sdpa"))
    assert block.alpha == 2.0
    torch.testing.assert_close(out, x / x.square().mean(-1, keepdim=True).sqrt(), atol=1e-4, rtol=0)


def test_model_later_tokens_change_no_earlier_logits(shape, make_model):
    model = make_model(shape, seed=1)
    tokens = tokens_of(shape)
    changed = tokens.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % shape.vocabulary
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_model_recomputing_activations_changes_no_gradient(shape, make_model):
    gradients = []
    for recompute in (False, True):
        model = make_model(shape, recompute=recompute)
        tokens = tokens_of(shape)
        model(tokens, tokens.roll(-1, 1))[0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_masked_documents_have_the_nats_of_documents_alone(shape, make_model):
    # Rotary positions are relative and learned ones start anew: a document's place in the sequence does not matter.
    model = make_model(shape, seed=2)
    first = torch.tensor([[3, 9, 4, 0]])
    second = torch.tensor([[7, 1, 8, 2, 5]])
    with torch.no_grad():
        packed = model(torch.cat([first, second], 1), documents=documents_of(torch.cat([first, second], 1), 0))
        torch.testing.assert_close(packed[:, 4:], model(second), atol=1e-5, rtol=0)


def test_sequence_nats_in_bf16_are_close_to_fp32(shape, make_model):
    model, tokens = make_model(shape), tokens_of(shape, length=17)
    if shape.family == "gpt_neo":
        tokens = tokens[:, :16]
    exact, rough = (sequence_nats(model, tokens, 1.0, StepOptions(2, precision=p))[1] for p in ("fp32", "bf16"))
    torch.testing.assert_close(exact, rough, rtol=0.01, atol=0)
    assert not torch.equal(exact, rough)


@pytest.mark.parametrize("spacing", [4, 9])  # documents within GPT-Neo's window of 5 tokens, and longer ones
def test_documents_one_by_one_have_the_gradients_of_the_dense_mask(shape, make_model, spacing):
    tokens = tokens_of(shape).clamp(min=1)
    tokens[:, ::spacing] = 0
    found = []
    for kernel in ("auto", "sdpa"):
        model = make_model(shape, seed=2, attention=kernel)
        model(tokens, tokens.roll(-1, 1), documents=documents_of(tokens, 0))[0].backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    ours, dense = found
    assert not torch.equal(ours, dense)  # computed in another way
    assert (ours - dense).norm() < 1e-6 * dense.norm()


@pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
def test_compiled_blocks_keep_documents_apart(tiny, make_model):
    # Traced but not made into machine code, which takes a minute.
    tokens = tokens_of(tiny["llama"])
    documents, losses, gradients = documents_of(tokens, 3), [], []
    for compiled in (False, True):
        model = make_model(dataclasses.replace(tiny["llama"], layers=1), recompute=True)
        if compiled:
            model.blocks[0].compile(backend="aot_eager")
        loss, _ = model(tokens, tokens.roll(-1, 1), documents=documents)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
