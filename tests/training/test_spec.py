import json

import pytest

from training.spec import Span, SpecError, TrainSpec, from_json, to_json


def test_spec_round_trips_through_json(make_spec):
    spec = make_spec(separator=3, spans=(Span(0, 0, 0, 7, 16), Span(5, 35, 560, 14, 16)))
    assert from_json(TrainSpec, to_json(spec)) == spec


def test_spec_unknown_key_is_refused(make_spec):
    content = json.loads(to_json(make_spec()))
    content["shape"]["layer"] = 3
    with pytest.raises(SpecError, match="ModelShape has no field 'layer'"):
        from_json(TrainSpec, json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [{"spans": ()}, {"spans": (Span(1, 0, 0, 7, 16),)}, {"precision": "fp16"}, {"attention": "flash"}],
    ids=["none", "gap", "precision", "attention"],
)
def test_spec_impossible_is_refused(make_spec, change):
    with pytest.raises(SpecError, match=r"train step 0|precision|attention"):
        make_spec(**change)


def test_spec_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, training.spec, training.launch, training.models, training.exits; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
