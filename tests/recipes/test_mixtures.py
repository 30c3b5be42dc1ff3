"""Supply of domains as an ablation counts it: like the plan, by the sequences that are drawn."""

from types import SimpleNamespace

import pytest

from mixing.domain_stage import Domain, Packed
from recipes.ablation.mixtures import natural_weights, supply_of


def domain(name, tokens, *sequences):
    packed = tuple(Packed(context, "t", "h", number, 0, 0, 0, 0) for context, number in sequences)
    return Domain(name, "t", "h", tokens, 9, tokens, tokens, 0, 0, packed)


def run_of(model, proxy):
    sizes = [None if context is None else SimpleNamespace(context=context) for context in (model, proxy)]
    return SimpleNamespace(
        recipe=SimpleNamespace(model=sizes[0], ablation=sizes[1] and SimpleNamespace(proxy=sizes[1]))
    )


@pytest.mark.parametrize(("model", "proxy", "share"), [(128, 64, 1 / 6), (None, 64, 1 / 4), (64, None, 1 / 4)])
def test_natural_weights_of_packed_domains_are_those_of_a_pass_of_the_target(model, proxy, share):
    listed = [domain("big", 1290, (64, 18), (128, 10)), domain("small", 129, (64, 6), (128, 2))]
    assert natural_weights(run_of(model, proxy), listed)["small"] == pytest.approx(share)


def test_supply_of_domains_that_are_not_packed_is_their_tokens():
    listed = [domain("big", 1290), domain("small", 129)]
    assert supply_of(run_of(128, 64), listed) == supply_of(run_of(None, None), listed) == {"big": 1290, "small": 129}
