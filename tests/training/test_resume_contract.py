"""One contract for all reading: what comes after a stop is what would have come, on any number of processes."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mixing.domain_stage import DomainOptions, TokenInputs, make_domains, read_domains
from mixing.plan_stage import PhaseOptions, PlanOptions, plan_of
from mixing.shards import ShardFiles, write_token_shard
from training.batches import TrainBatches
from training.spec import Span
from training.stream import open_stream

_found = importlib.util.spec_from_file_location("mixing_fixtures", Path(__file__).parents[1] / "mixing" / "conftest.py")
made_by_hand = importlib.util.module_from_spec(_found)
_found.loader.exec_module(made_by_hand)

# Ten train steps of 8 x 4 tokens, then ten of 4 x 8; three train steps of the first phase are passed over.
SPANS = (Span(0, 0, 0, 8, 4), Span(3, 48, 192, 8, 4), Span(7, 80, 320, 4, 8))
NUM_STEPS = 17


class Written:
    """An output whose files stay where they are written, below the task's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, suffix: str) -> Path:
        return self.folder / f"all{suffix}"


@pytest.fixture(params=["contiguous", "packed"])
def folder(request, tmp_path):
    """Two domains of documents of 1 to 19 numbers."""
    tokenizer = made_by_hand.made_number_tokenizer(tmp_path / "tokenizer", 900)
    shards = []
    for place, source in enumerate(("web", "books")):
        texts = [" ".join(str(100 + 400 * place + n) for _ in range(1 + n * 7 % 19)) for n in range(60)]
        files = ShardFiles(source, "a", tmp_path / f"{source}.tokens", tmp_path / f"{source}.parquet")
        write_token_shard([made_by_hand.made_rows(texts)], tokenizer, files.tokens_path, files.documents_path)
        shards.append(files)
    packed = (4, 8) if request.param == "packed" else ()
    make_domains(TokenInputs(tuple(shards)), DomainOptions((), 40, 0.1, packed=packed), Written(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "order", [("uniform", (), "asc"), ("blocked", ("books", "web"), "asc")], ids=["uniform", "blocked"]
)
def test_what_comes_after_a_stop_is_what_would_have_come(folder, order):
    phases = tuple(
        PhaseOptions(name, (10, "train steps"), (0, "tokens"), ("natural", 1.0, ()), order, context)
        for name, context in (("short", 4), ("long", 8))
    )
    domains = str(folder / "all.domains.json")
    plan = plan_of(read_domains(domains), PlanOptions(phases, ((0, 32),), 0, (("*", 9.0),), "error"))
    (folder / "plan.json").write_text(plan.to_json())

    def read(start, rank, world):
        stream = open_stream(str(folder / "plan.json"), domains, 4)  # anew, as a process does that was started again
        return [batch.tokens for batch in TrainBatches(stream, SPANS, start, NUM_STEPS, rank, world)]

    whole = read(0, 0, 1)
    assert len({tuple(step.ravel().tolist()) for step in whole}) == NUM_STEPS
    for world in (1, 3):
        for start in range(0, NUM_STEPS, 1 if world == 1 else 4):
            parts = [read(start, rank, world) for rank in range(world)]
            for step, expected in enumerate(whole[start:]):
                assert [row for part in parts for row in part[step].tolist()] == expected.tolist()
