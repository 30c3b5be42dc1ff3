import pytest

torch = pytest.importorskip("torch")

from training import loss  # noqa: E402


def plain_loss(hidden, weight, targets, weights, z_loss):
    """The definition, with all logits at once."""
    logits = hidden @ weight.T
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    log_z = logits.logsumexp(-1).flatten()
    return (weights.flatten() * (nats + z_loss * log_z**2)).sum(), nats.view(targets.shape)


@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_cross_entropy_chunks_give_the_plain_loss_and_gradients(monkeypatch, rows, z_loss):
    monkeypatch.setitem(loss.CHUNK_ELEMENTS, "cpu", rows * 11)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 5, 8, generator=draw, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(11, 8, generator=draw).requires_grad_()
    targets = torch.randint(0, 11, (3, 5), generator=draw)
    weights = torch.rand(3, 5, generator=draw)
    ours, our_nats = loss.cross_entropy(hidden, weight, targets, weights, z_loss)
    (3 * ours).backward()
    our_gradients = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    plain, plain_nats = plain_loss(hidden, weight, targets, weights, z_loss)
    (3 * plain).backward()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(our_nats, plain_nats)
    torch.testing.assert_close(our_gradients[0], hidden.grad)
    torch.testing.assert_close(our_gradients[1], weight.grad)


@pytest.mark.parametrize("factor", [1, 3])
def test_cross_entropy_over_frozen_weights_computes_only_what_is_asked(monkeypatch, factor):
    draw = torch.Generator().manual_seed(4)
    hidden, weight = torch.randn(2, 5, 8, generator=draw), torch.randn(11, 8, generator=draw)
    targets, found = torch.randint(0, 11, (2, 5), generator=draw), []
    for frozen in (False, True):
        leaf = hidden.clone().requires_grad_()
        if frozen:  # what is frozen costs no product
            monkeypatch.setattr(loss, "_OutputGradient", None)
        value, _ = loss.cross_entropy(leaf, weight.clone().requires_grad_(not frozen), targets, z_loss=0.1)
        (factor * value).backward()
        found.append((value.detach(), leaf.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_cross_entropy_huge_logits_stay_finite():
    hidden = torch.tensor([[[1000.0]]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    value, _ = loss.cross_entropy(hidden, weight, torch.tensor([[1]]))
    value.backward()
    assert value.item() == 2000.0
    assert hidden.grad.item() == pytest.approx(2.0)


def test_cross_entropy_without_gradients_keeps_none():
    weight = torch.ones(4, 2, requires_grad=True)
    with torch.no_grad():
        value, nats = loss.cross_entropy(torch.ones(1, 3, 2), weight, torch.zeros(1, 3, dtype=torch.int64))
    assert not value.requires_grad
    torch.testing.assert_close(nats, torch.full((1, 3), 4.0).log())


def test_cross_entropy_gradient_in_bf16_follows_fp32():
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(50, 16, generator=draw)
    hidden = torch.randn(1, 8, 16, generator=draw)
    targets = torch.randint(0, 50, (1, 8), generator=draw)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = weight.clone().requires_grad_()
        value, _ = loss.cross_entropy(hidden.to(dtype), leaf, targets)
        value.backward()
        gradients.append(leaf.grad)
    assert gradients[1].dtype == torch.float32
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 0.02


def test_cross_entropy_in_parts_of_any_size_is_the_same(monkeypatch):
    draw = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(1, 40, 16, generator=draw).bfloat16(), torch.randn(150, 16, generator=draw)
    targets = torch.randint(0, 150, (1, 40), generator=draw)
    found = []
    for part in (1 << 19, 50, 350):  # pieces at once: all, three, and 21 (the last part is shorter)
        monkeypatch.setattr(loss, "CPU_PART_ELEMENTS", part)
        leaf = weight.clone().requires_grad_()
        value, nats = loss.cross_entropy(hidden, leaf, targets, z_loss=1e-3)
        value.backward()
        found.append((value.detach(), nats, leaf.grad))
    for value, nats, gradient in found[1:]:
        assert torch.equal(value, found[0][0])
        assert torch.equal(nats, found[0][1])
        torch.testing.assert_close(gradient, found[0][2], rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_cross_entropy_by_kernel_is_as_exact_as_by_torch(monkeypatch, kind):
    draw = torch.Generator().manual_seed(4)
    hidden, weight = 3 * torch.randn(1, 30, 16, generator=draw).to(kind), torch.randn(1001, 16, generator=draw).to(kind)
    targets, weights = torch.randint(0, 1001, (1, 30), generator=draw), torch.rand(1, 30, generator=draw)
    found = []
    for serves, exact in ((True, False), (False, False), (False, True)):
        monkeypatch.setattr(loss.fused, "serves", lambda _, serves=serves: serves)
        leaves = [(x.double() if exact else x).detach().clone().requires_grad_() for x in (hidden, weight)]
        value, nats = loss.cross_entropy(*leaves, targets, weights, z_loss=1e-2)
        value.backward()
        found.append([nats, *(leaf.grad for leaf in leaves)])
    for ours, plain, exact in zip(*found, strict=True):
        ours_off, plain_off = ((x.double() - exact).norm().item() for x in (ours, plain))
        assert ours_off <= 1.5 * plain_off
    assert found[0][0].dtype == torch.float32


def test_cross_entropy_of_nan_and_infinite_logits_is_no_number():
    weight = torch.ones(70, 2, requires_grad=True)
    for bad in (float("nan"), float("inf")):
        hidden = torch.ones(1, 3, 2)
        hidden[0, 1, 0] = bad
        _, nats = loss.cross_entropy(hidden, weight, torch.zeros(1, 3, dtype=torch.int64))
        assert nats.isfinite().tolist() == [[True, False, True]]
