"""GPUs that a training may use: those of /dev, as CUDA_VISIBLE_DEVICES narrows them, named by the driver."""

import pytest

from recipes.pretraining.gpus import visible_gpus


@pytest.fixture
def machine(tmp_path):
    """Three GPUs of the machine, of which this container has the second and third."""
    for place, model in enumerate(["Small", "Middle", "Large"]):
        folder = tmp_path / "gpus" / f"0000:0{3 - place}:00.0"  # the bus has them the other way about
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t {model}\nIRQ: 12\nGPU UUID: \t GPU-{place}aa-bb\nDevice Minor: \t {place}\n"
        )
    (tmp_path / "dev").mkdir()
    for name in ("nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    return {"devices": tmp_path / "dev", "drivers": tmp_path / "gpus"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("0", ("Middle",)),
        ("1,0", ("Large", "Middle")),
        ("", ()),
        ("-1", ()),
        ("1,7,0", ("Large",)),
        ("0,0", ("Middle",)),
        ("GPU-2aa", ("Large",)),
        ("GPU-0aa", ()),
        ("NoDevFiles", ()),
    ],
)
def test_visible_gpus_are_those_that_are_asked_for(machine, asked, names):
    assert visible_gpus(**machine, asked=asked) == names


def test_visible_gpus_are_all_of_this_container_without_a_wish(machine, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(**machine) == ("Middle", "Large")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible_gpus(**machine) == ("Large",)


def test_visible_gpus_without_a_driver_have_no_names(machine, tmp_path):
    assert visible_gpus(machine["devices"], tmp_path / "none", "0,1") == ("", "")
    assert visible_gpus(tmp_path / "none", machine["drivers"], "0") == ()
