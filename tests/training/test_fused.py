"""Operations of a train step on a CPU beside torch's own: norm, SwiGLU, attention."""

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from training import attention, fused, fused_attention  # noqa: E402
from training.attention import attend, reach_of  # noqa: E402
from training.documents import documents_of, whole_sequences  # noqa: E402
from training.models import llama  # noqa: E402
from training.models.shape import ModelShape  # noqa: E402

KINDS = [torch.float32, torch.bfloat16]


def drawn(*shape, seed=0, kind=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def with_gradients(function, inputs, upstream):
    """The output and the inputs' gradients."""
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    out = function(*leaves)
    out.backward(upstream.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


def is_as_exact_as_torch(ours, plain, inputs, upstream, slack=1.5):
    """Against float64, ours errs no more than torch's own operations do in the same type."""
    exact = with_gradients(plain, [one.double() for one in inputs], upstream.double())
    torchs = with_gradients(plain, inputs, upstream)
    ours = with_gradients(ours, inputs, upstream)
    for place, (mine, theirs, right) in enumerate(zip(ours, torchs, exact, strict=True)):
        assert mine.dtype == theirs.dtype
        assert error(mine, right) <= slack * error(theirs, right), (place, error(mine, right), error(theirs, right))


@pytest.mark.parametrize("kind", KINDS)
def test_norm_is_as_exact_as_torch(kind):
    weight = 1 + 0.1 * drawn(37, seed=1)  # 37: neither a multiple of the lanes nor of a vector

    def plain(x, weight):
        wide = x if x.dtype == torch.float64 else x.float()
        return functional.rms_norm(wide, (37,), weight, 1e-5).to(x.dtype)

    inputs, upstream = [drawn(3, 211, 37, kind=kind), weight], drawn(3, 211, 37, seed=2, kind=kind)
    is_as_exact_as_torch(lambda x, w: fused.rms_norm(x, w, 1e-5), plain, inputs, upstream)


@pytest.mark.parametrize("kind", KINDS)
def test_swiglu_is_as_exact_as_torch(kind):
    inputs = [4 * drawn(5, 70, kind=kind), drawn(5, 70, seed=1, kind=kind)]
    is_as_exact_as_torch(fused.swiglu, lambda g, u: functional.silu(g) * u, inputs, drawn(5, 70, seed=2, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_fused_operations_let_nan_and_infinity_through(kind, bad):
    x = drawn(4, 64, kind=kind)
    x[1, 3] = bad
    assert not fused.rms_norm(x, torch.ones(64), 1e-5)[1, 3].isfinite()
    assert not fused.swiglu(x, x)[1, 3].isfinite()
    assert fused.swiglu(x, x)[0].isfinite().all()


def test_exponential_is_within_two_roundings():
    from training.kernels import exponential

    values = torch.linspace(-87, 88, 20_001)
    found = torch.tensor([exponential(one) for one in values.numpy()])
    assert ((found.double() / values.double().exp()) - 1).abs().max() < 2.4e-7


def test_fused_operations_serve_neither_other_types_nor_transforms():
    assert fused.serves(drawn(2))
    assert not fused.serves(drawn(2).double())
    assert not fused.serves(torch.empty(2, device="meta"))
    served = []
    torch.func.vmap(lambda x: served.append(fused.serves(x)) or x)(drawn(2, 3))
    assert served == [False]


def plain_attention(q, k, v, rotation):
    """Attention as its definition has it, in the type of its inputs."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.dtype == torch.float64:
        cos, sin = (table.double() for table in rotation)
        q, k = (x * cos + torch.cat([-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1) * sin for x in (q, k))
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return (scores.masked_fill(~seen, -math.inf).softmax(-1) @ v).transpose(1, 2)
    q, k = attention.rotate(q, rotation), attention.rotate(k, rotation)
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "kv_heads", "width", "length"), [(6, 6, 48, 70), (4, 2, 10, 33), (2, 1, 64, 3)])
def test_attention_is_as_exact_as_torch(monkeypatch, kind, heads, kv_heads, width, length):
    monkeypatch.setattr(fused_attention, "KEYS_AT_ONCE", 32)  # blocks of 32, 32 and 6 keys
    monkeypatch.setattr(fused_attention, "SCORES_AT_ONCE", 32 * 70 * 5)  # and pairs in fives, the last ones fewer
    shape = ModelShape("llama", 11, heads * width, 1, heads, 8, length, kv_heads=kv_heads)
    rotation = llama.rotary_tables(shape, length, torch.device("cpu"))
    inputs = [drawn(2, length, h, width, seed=s, kind=kind) for s, h in enumerate((heads, kv_heads, kv_heads))]
    upstream = drawn(2, length, heads, width, seed=3, kind=kind)
    groups = whole_sequences(2, length)
    is_as_exact_as_torch(
        lambda q, k, v: fused_attention.attention(q, k, v, groups, rotation),
        lambda q, k, v: plain_attention(q, k, v, rotation),
        inputs,
        upstream,
        slack=2,
    )


@st.composite
def packed(draw):
    """Sequences of tokens with 0 as their separator: documents of one token, cut off, without a separator."""
    B, T = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=60))
    row = [token for length in lengths for token in [*[1] * (length - 1), 0]]
    rows = torch.ones(B * T, dtype=torch.int64)
    rows[: len(row)] = torch.tensor(row[: B * T])
    return rows.view(B, T)


def attended(kind, documents, heads, kv_heads, rotated, scale):
    """Attention's output and gradients, of an input in float64, by our kernels and by torch's with the dense mask."""
    B, T = documents.numbers.shape
    shape = ModelShape("llama", 11, heads * 10, 1, heads, 8, T, kv_heads=kv_heads)
    rotation = llama.rotary_tables(shape, T, torch.device("cpu")) if rotated else None
    q, k, v = (drawn(B, T, h, 10, seed=s, kind=kind) for s, h in enumerate((heads, kv_heads, kv_heads)))
    upstream, x = drawn(B, T, heads, 10, seed=3, kind=kind), q.flatten(2)
    found = []
    for kernel in ("auto", "sdpa"):
        reach = reach_of(x, documents, kernel=kernel)
        assert reach.kernel == {"auto": "ours", "sdpa": "sdpa"}[kernel]
        found.append(with_gradients(lambda *three, r=reach: attend(*three, r, rotation, scale), (q, k, v), upstream))
    return found


@settings(max_examples=40, deadline=None)
@given(packed(), st.sampled_from([(4, 2), (2, 2), (3, 1)]), st.sampled_from([(True, None), (False, 0.5)]))
def test_attention_inside_documents_equals_the_dense_mask(tokens, heads, how):
    documents = documents_of(tokens, 0)
    assert sorted(place for one in documents.groups for place in places_of(one)) == list(range(tokens.numel()))
    for ours, dense in zip(*attended(torch.float32, documents, *heads, *how), strict=True):
        torch.testing.assert_close(ours, dense, atol=5e-6, rtol=5e-6)
    for ours, dense in zip(*attended(torch.bfloat16, documents, *heads, *how), strict=True):
        torch.testing.assert_close(ours, dense, atol=0.06, rtol=0.03)


def places_of(group):
    return [place for start, length in zip(group.starts, group.lengths) for place in range(start, start + length)]


@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_long_documents_in_blocks_equals_the_dense_mask(monkeypatch, kind):
    monkeypatch.setattr(fused_attention, "KEYS_AT_ONCE", 32)
    tokens = torch.ones(2, 200, dtype=torch.int64)
    tokens[0, 90] = tokens[1, 150] = 0  # 91, 109, 151 and 49 tokens: up to five blocks of keys, the last one short
    for ours, dense in zip(*attended(kind, documents_of(tokens, 0), 4, 2, True, None), strict=True):
        assert error(ours, dense.double()) < {torch.float32: 2e-6, torch.bfloat16: 0.02}[kind]


def test_documents_are_grouped_by_what_it_costs():
    tokens = torch.ones(1, 1024, dtype=torch.int64)
    tokens[0, [0, 1, 2, 500, 999, 1001, 1003]] = 0
    # of 1, 1, 1, 498, 499, 2, 2 and 20 tokens
    lengths = [one.lengths.tolist() for one in documents_of(tokens, 0).groups]
    assert lengths == [[499, 498], [20, 2, 2, 1, 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separated", [False, True])
def test_model_gives_the_same_bits_with_any_number_of_threads(monkeypatch, tiny, make_model, kind, separated):
    monkeypatch.setattr(fused, "VALUES_A_THREAD", 1)
    tokens = torch.arange(32).view(2, 16) % 7
    documents = documents_of(tokens, 0) if separated else None
    found = []
    for threads in (1, 3):
        model = make_model(tiny["llama"]).to(kind)
        torch.set_num_threads(threads)
        try:
            model(tokens, tokens.roll(1), documents=documents)[0].backward()
        finally:
            torch.set_num_threads(1)
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
