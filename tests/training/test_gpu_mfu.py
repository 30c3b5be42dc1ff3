import json

import pytest

torch = pytest.importorskip("torch")

from benchmarks import gpu_mfu  # noqa: E402


def test_gpu_script_runs_its_lines_on_a_cpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_mfu, "MOST_SEQUENCES", 6)  # a machine where six sequences are the most
    asked = ["--attention", "sdpa", "--documents", "5"]
    assert gpu_mfu.main(["--device", "cpu", "--shape", "tiny", "--quick", "--json", *asked]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert (found["model"], found["micro_batch"], found["parameters"]) == ("tiny", 4, 6_224)
    assert found["tokens_per_s"] > 0
    assert found["mfu"] is None
    assert (found["attention"], found["tokens_a_document"]) == ("sdpa", 5)


def test_gpu_script_names_a_kernel_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        gpu_mfu.main(["--device", "cpu", "--shape", "tiny", "--attention", "varlen"])
    assert "no kernel for a CPU" in capsys.readouterr().err


def test_gpu_script_prints_a_share_without_a_target(capsys, monkeypatch):
    monkeypatch.setattr(gpu_mfu, "MOST_SEQUENCES", 2)
    monkeypatch.setattr(gpu_mfu, "peak_of", lambda *_: 1e12)  # as on a GPU whose peak is known
    assert gpu_mfu.main(["--device", "cpu", "--shape", "tiny", "--quick"]) == 0
    assert "%" in (told := capsys.readouterr().out)
    assert "target" not in told


def test_gpu_script_without_a_gpu_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_mfu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_gpu_script_knows_the_models_of_its_targets():
    found = gpu_mfu.shapes([], tiny=False)
    assert set(found) == set(gpu_mfu.TARGETS)
    assert [gpu_mfu.num_parameters(shape) for shape, _ in found.values()] == [15_191_712, 124_668_672, 1_100_048_384]
