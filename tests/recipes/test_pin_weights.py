"""Weights written into a recipe's text: only the lines of the phase change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from recipes.cli.pin import pin_weights, rounded

FLOW = """# mine
sources:
  wiki: {path: w}
  qa:   {path: q}   # aligned
schedule:
  - {name: main, tokens: 400K, weights: ablation}  # by proxies
"""
BLOCK = """schedule:
    # the long one
    - name:   main
      weights: "ablation"   # by proxies
      tokens: 4K
    - {name: end, tokens: 1K, weights: natural}
"""


@pytest.mark.parametrize("text", [FLOW, BLOCK])
def test_pin_weights_changes_only_the_line_of_the_phase(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert pin_weights(path, {"wiki": 0.75, "1": 0.25}, {"wiki": (0.7, 0.8)}, "note") == ["main"]
    written = path.read_text()
    assert [line for line in text.splitlines() if "ablation" not in line] == [
        line for line in written.splitlines() if line in text.splitlines()
    ]
    assert "# note" in written
    assert "# by proxies" in written
    old, new = (YAML(typ="safe").load(one) for one in (text, written))
    assert new["schedule"][0].pop("weights") == {"wiki": 0.75, "1": 0.25}
    old["schedule"][0].pop("weights")
    assert new == old


@given(st.lists(st.floats(1e-7, 1), min_size=1, max_size=8))
def test_rounded_weights_sum_to_one_and_lose_none(drawn):
    weights = {f"d{place}": one / sum(drawn) for place, one in enumerate(drawn)}
    found = rounded(weights)
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    for name, weight in weights.items():
        assert found[name] == pytest.approx(weight, rel=0.11, abs=1e-9)
        assert found[name] > 0
