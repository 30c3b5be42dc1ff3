"""The text of a training over packed domains: what a plan draws, and what is held out."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mixing.domain_stage import DomainOptions, TokenInputs, make_domains, read_domains
from mixing.plan_stage import PhaseOptions, PlanOptions, plan_of
from mixing.shards import ShardFiles, write_token_shard
from training.stream import open_stream

_found = importlib.util.spec_from_file_location("mixing_fixtures", Path(__file__).parents[1] / "mixing" / "conftest.py")
made_by_hand = importlib.util.module_from_spec(_found)
_found.loader.exec_module(made_by_hand)


class Written:
    """An output whose files stay where they are written, below the task's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, suffix: str) -> Path:
        return self.folder / f"all{suffix}"


@pytest.fixture
def packed(tmp_path):
    """Documents of 1 to 19 numbers, packed for contexts 4 and 8, a fifth of them held out."""
    tokenizer = made_by_hand.made_number_tokenizer(tmp_path / "tokenizer", 900)
    texts = [" ".join(str(100 + number) for _ in range(1 + number * 7 % 19)) for number in range(60)]
    files = ShardFiles("web", "a", tmp_path / "a.tokens", tmp_path / "a.parquet")
    write_token_shard([made_by_hand.made_rows(texts)], tokenizer, files.tokens_path, files.documents_path)
    make_domains(TokenInputs((files,)), DomainOptions((), 1000, 0.2, packed=(4, 8)), Written(tmp_path))
    domains = read_domains(tmp_path / "all.domains.json")
    phases = tuple(
        PhaseOptions(name, (10, "train steps"), (0, "tokens"), ("natural", 1.0, ()), ("uniform", (), "asc"), context)
        for name, context in (("short", 4), ("long", 8))
    )
    plan = plan_of(domains, PlanOptions(phases, ((0, 32),), 0, (("*", 9.0),), "error"))
    (tmp_path / "plan.json").write_text(plan.to_json())
    return open_stream(str(tmp_path / "plan.json"), str(tmp_path / "all.domains.json"), 4), plan, domains[0], texts


def test_open_stream_of_packed_domains_predicts_each_token_of_an_epoch_once(packed):
    stream, plan, domain, texts = packed
    for phase, packing in zip(plan.phases, domain.packed):
        sequences = np.arange(packing.num_sequences)
        read = stream.reader.read(np.zeros_like(sequences), sequences, phase.context)
        assert (np.diff((read == -1).astype(int), axis=1) >= 0).all()  # padding stands behind all text
        predicted = {int(token): 0 for token in np.unique(read) if token >= 100}
        for token in read[:, 1:].ravel().tolist():
            predicted[token] = predicted.get(token, 0) + 1
        starting = {int(token) for token in read[:, 0] if token >= 100}
        for token in (token for token in predicted if token >= 100):
            length = len(texts[token - 100].split())
            assert predicted[token] in ({length - 1, length} if token in starting else {length})


def test_open_stream_of_packed_domains_measures_held_out_text_shorter_than_a_window(packed):
    stream, _, domain, _ = packed
    held_out = stream.held_out
    assert held_out.num_sequences == [domain.packed[0].held_out_sequences] == [domain.num_held_out(4)]
    sequences = np.arange(held_out.num_sequences[0])
    read = held_out.reader.read(np.zeros_like(sequences), sequences, 4)
    everything = np.concatenate([read.ravel(), -2 - read.ravel()])
    number = domain.packed[0].num_sequences
    trained = stream.reader.read(np.zeros(number, int), np.arange(number), 4)
    assert not {t for t in everything.tolist() if t >= 100} & {t for t in trained.ravel().tolist() if t >= 100}


def test_open_stream_of_a_plan_reads_what_the_order_says(packed):
    stream, plan, domain, _ = packed
    positions = np.arange(plan.num_positions)
    domains, _, _, sequences = stream.order.locate(positions)
    for phase, packing in zip(plan.phases, domain.packed):
        here = sequences[phase.start : phase.stop]
        assert here.max() < packing.num_sequences
        assert stream.reader.read(domains[phase.start : phase.stop], here, phase.context).shape[1] == phase.context + 1
