import numba
import pytest

from curation import kernels

WIDE = "+avx512f,+avx512fp16"


@pytest.fixture
def told(monkeypatch):
    """Start from a processor of which numba was told nothing."""
    monkeypatch.setattr(numba.config, "CPU_NAME", None)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    return monkeypatch


@pytest.mark.parametrize(
    ("found", "expected"),
    [(WIDE, WIDE + ",-prefer-256-bit"), ("+avx512f,-avx512fp16", None), ("+neon", None), ("", None)],
)
def test_vectors_are_widened_only_where_the_clock_stays(told, found, expected):
    told.setattr(kernels, "get_host_cpu_features", lambda: found)
    kernels._widen_vectors()
    assert expected == numba.config.CPU_FEATURES


@pytest.mark.parametrize(("name", "features"), [("generic", ""), (None, "+sse4.2")])
def test_what_the_user_tells_numba_of_the_processor_stands(told, name, features):
    told.setattr(kernels, "get_host_cpu_features", lambda: WIDE)
    told.setattr(numba.config, "CPU_NAME", name)
    told.setattr(numba.config, "CPU_FEATURES", features)
    kernels._widen_vectors()
    assert features == numba.config.CPU_FEATURES
