import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from training import fused  # noqa: E402

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
