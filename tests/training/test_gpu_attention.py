import dataclasses
import inspect
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn.attention import flex_attention, varlen  # noqa: E402

from training import gpu_attention  # noqa: E402
from training.attention import chosen, dense_mask  # noqa: E402
from training.documents import documents_of  # noqa: E402

PLACES = st.lists(st.integers(0, 339), max_size=12)


def separated(places, T, B=2):
    """Sequences of T tokens with the separator 0 at some places, counted over all of them."""
    tokens = torch.ones(B * T, dtype=torch.int64)
    tokens[[place % (B * T) for place in places]] = 0
    return tokens.view(B, T)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 128, 129, 340]), st.none() | PLACES, st.none() | st.integers(1, 300))
def test_block_mask_is_what_torch_finds_by_looking_at_all_pairs(T, places, window):
    documents = None if places is None else documents_of(separated(places, T), 0)
    found = gpu_attention.block_mask(torch.empty(2, T, 1), documents, window)
    mask = dense_mask(T, documents, window, torch.device("cpu"))
    mask = torch.ones(T, T, dtype=torch.bool).tril() if mask is None else mask
    mask = mask.expand(found.shape[0], 1, T, T)
    exact = flex_attention.create_block_mask(
        lambda b, h, q, k: mask[b, 0, q, k], found.shape[0], None, T, T, device="cpu"
    )
    for ours, theirs in zip(found.as_tuple(), exact.as_tuple(), strict=True):
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs)
    every = [torch.arange(size) for size in (found.shape[0], 1, T, T)]
    b, h, q, k = torch.meshgrid(*every, indexing="ij")
    assert torch.equal(found.mask_mod(b, h, q, k).expand_as(mask), mask)


def run(model, tokens, documents):
    """The loss and all gradients."""
    loss, _ = model(tokens, tokens.roll(-1, 1), documents=documents)
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def assert_close(*sides):
    for dense, other in zip(*sides, strict=True):
        assert (other - dense).norm() <= 1e-6 * dense.norm()


@pytest.mark.filterwarnings("ignore")  # that flex_attention is slow without compilation
@pytest.mark.parametrize("family", ["llama", "gpt_neo"])
@pytest.mark.parametrize("apart", [True, False])
def test_flex_has_the_loss_and_gradients_of_the_dense_mask(monkeypatch, tiny, make_model, family, apart):
    # torch has no fused backward on a CPU, and so refuses; its plain one is there.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    shape = dataclasses.replace(tiny[family], context=140, layers=2 if family == "gpt_neo" else 1)
    tokens = torch.randint(0, 64, (2, 140), generator=torch.Generator().manual_seed(0))
    documents = documents_of(tokens, 3) if apart else None
    found = [run(make_model(shape, attention=kernel), tokens, documents) for kernel in ("sdpa", "flex")]
    assert_close(*found)


def plain_varlen(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    """What varlen_attn is documented to compute, document by document: i sees j where i - left <= j <= i + right."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (cu_seq_q[0], cu_seq_q[-1], cu_seq_k[-1]) == (0, len(query), len(key))
    assert query.is_contiguous() or query.stride(-1) == 1
    left, right = window_size
    out = torch.empty_like(query)
    for start, end in zip(cu_seq_q.tolist(), cu_seq_q.tolist()[1:]):
        assert 0 < end - start <= min(max_q, max_k)
        back = torch.arange(end - start)[:, None] - torch.arange(end - start)[None, :]
        seen = torch.ones_like(back, dtype=torch.bool)
        seen = seen & (back <= left) if left >= 0 else seen
        seen = seen & (-back <= right) if right >= 0 else seen
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        assert enable_gqa or q.shape[0] == k.shape[0]
        k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
        scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        out[start:end] = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1)
    return out


def test_plain_twin_takes_what_varlen_attn_takes():
    ours, theirs = (inspect.signature(one).parameters.values() for one in (plain_varlen, varlen.varlen_attn))
    for mine, real in zip(ours, theirs, strict=True):
        assert (mine.name, mine.kind, mine.default) == (real.name, real.kind, real.default)


@pytest.mark.parametrize("apart", [True, False])
def test_varlen_is_given_what_the_dense_mask_has(monkeypatch, shape, make_model, apart):
    monkeypatch.setattr(gpu_attention, "varlen_attn", plain_varlen)
    tokens = torch.randint(0, 12, (3, 16), generator=torch.Generator().manual_seed(1))
    tokens[0, 0] = tokens[1, -1] = 3
    documents = documents_of(tokens, 3) if apart else None
    found = [run(make_model(shape, attention=kernel), tokens, documents) for kernel in ("sdpa", "varlen")]
    assert_close(*found)


@pytest.mark.parametrize(
    ("device", "dtype", "bounded", "capability", "kernel"),
    [
        ("cpu", torch.float32, True, (0, 0), "ours"),
        ("cpu", torch.float64, True, (0, 0), "sdpa"),
        ("cuda", torch.bfloat16, False, (9, 0), "sdpa"),
        ("cuda", torch.bfloat16, True, (9, 0), "varlen"),
        ("cuda", torch.bfloat16, True, (7, 5), "flex"),
        ("cuda", torch.float32, True, (9, 0), "flex"),
    ],
)
def test_auto_takes_the_kernel_that_serves(monkeypatch, device, dtype, bounded, capability, kernel):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    x = SimpleNamespace(device=torch.device(device), dtype=dtype)
    assert chosen("auto", x, bounded) == kernel
    assert chosen("sdpa", x, bounded) == "sdpa"
