import json

import pytest

torch = pytest.importorskip("torch")

from benchmarks import document_attention  # noqa: E402


def test_attention_benchmark_measures_both_sides(monkeypatch, capsys, tiny):
    monkeypatch.setattr(document_attention, "shape_of", lambda *_: tiny["llama"])
    monkeypatch.setattr(document_attention, "CONTEXT", 16)
    document_attention.main(["--quick", "--json", "--precision", "fp32"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["part"], row["tokens_a_document"]) for row in rows[:4]] == [
        ("layer", 20),
        ("train step", 20),
        ("layer", 200),
        ("train step", 200),
    ]
    assert all(row["ours"] > 0 and row["dense"] > 0 for row in rows)


def test_made_tokens_end_documents_as_often_as_asked(tiny):
    ends = (document_attention.made_tokens(tiny["llama"], 20) == document_attention.SEPARATOR).double().mean()
    assert 1 / 25 < ends < 1 / 16
    assert (document_attention.made_tokens(tiny["llama"], None) > 0).all()
