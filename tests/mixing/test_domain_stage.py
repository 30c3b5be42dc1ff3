"""Domains as a stage makes them: one file for each, whatever the parts of a source are called."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixing.domain_stage import (
    Domain,
    DomainOptions,
    TokenInputs,
    file_word,
    make_domains,
    read_domains,
)
from mixing.domains import DomainTokens
from mixing.patterns import PatternError
from mixing.plan_stage import PhaseOptions, PlanOptions, plan_of
from mixing.reader import TokenReader
from mixing.shards import ShardFiles, write_token_shard

UNIFORM = ("uniform", (), "asc")


class Written:
    """An output whose files stay where they are written, below the task's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, suffix: str) -> Path:
        return self.folder / f"all{suffix}"


@pytest.fixture
def made_domains(tmp_path, number_tokenizer):
    """The domains of a source whose documents are (text, part) pairs."""

    def made(documents, **options):
        rows = pa.record_batch(
            {
                "row": pa.array(range(len(documents)), pa.int64()),
                "text": pa.array([text for text, _ in documents], pa.large_string()),
                "content_id": pa.array([f"{n:016d}".encode() for n in range(len(documents))], pa.binary(16)),
                "part": pa.array([part for _, part in documents], pa.string()),
            }
        )
        files = ShardFiles("code", "a", tmp_path / "a.tokens", tmp_path / "a.parquet")
        write_token_shard([rows], number_tokenizer, files.tokens_path, files.documents_path)
        wanted = DomainOptions(("code",), 0, 0.0, **options)
        make_domains(TokenInputs((files,)), wanted, Written(tmp_path))
        return read_domains(tmp_path / "all.domains.json")

    return made


def test_domains_with_names_of_other_signs_keep_their_own_text(made_domains, tmp_path):
    parts = ["C", "C++", "C#", "x/y", "x.y", "新闻", "体育", "https://example.org/" + "a" * 300]
    domains = made_domains([(str(3 + n), part) for n, part in enumerate(parts)])
    first = {}
    for domain in domains:
        path = tmp_path / domain.training
        assert DomainTokens.open(path).num_sequences(1) == 1
        first[domain.name] = int(TokenReader([path], 1).read(np.zeros(1, int), np.zeros(1, int))[0, 0])
    assert first == {f"code/{part}": 3 + n for n, part in enumerate(parts)}


def test_a_split_source_of_which_nothing_is_left_is_a_domain_of_nothing(made_domains):
    (domain,) = made_domains([])
    assert (domain.name, domain.num_tokens, domain.num_documents, domain.held_out_tokens) == ("code", 0, 0, 0)


def test_file_word_of_a_plain_name_is_the_name():
    assert [file_word(name) for name in ("web_de", "web_de/head")] == ["web_de", "web_de.head"]
    assert file_word("web.de/head") != file_word("web/de.head")


def made_plan(shares: dict[str, float]):
    domains = [Domain(name, "t", "h", tokens, 9, tokens, tokens, 0, 0) for name, tokens in (("a", 900), ("gone", 0))]
    phase = PhaseOptions("main", (64, "tokens"), (0, "tokens"), ("shares", 1.0, tuple(shares.items())), UNIFORM, 8)
    return plan_of(domains, PlanOptions((phase,), ((0, 16),), 0, (("*", 9.0),), "error"))


def test_plan_domain_without_tokens_needs_no_weight():
    assert made_plan({"a": 1.0}).phases[0].weights.keys() == {"a"}
    assert made_plan({"*": 1.0}).phases[0].weights.keys() == {"a"}


def test_plan_weight_of_a_domain_without_tokens_is_refused():
    with pytest.raises(PatternError, match="'gone' has weight"):
        made_plan({"a": 0.5, "gone": 0.5})


@pytest.mark.parametrize(
    "weights", [("natural", 1.0, ()), ("natural", 0.0, ()), ("unimax", 1.0, ()), ("shares", 1.0, (("*", 1.0),))]
)
def test_plan_leaves_a_domain_of_less_than_a_sequence_out_unless_a_weight_names_it(weights):
    def made(chosen):
        domains = [
            Domain(name, "t", "h", tokens, 1, 1, 1, 0, 0) for name, tokens in (("web", 1001), ("note", 60), ("none", 0))
        ]
        phase = PhaseOptions("only", (640, "tokens"), (0, "tokens"), chosen, UNIFORM, 64)
        return plan_of(domains, PlanOptions((phase,), ((0, 64),), 0, (("*", 99.0),), "error"))

    plan = made(weights)
    assert [plan.domains[g].name for g in plan.phases[0].spans[0].domains] == ["web"]
    assert plan.warnings == ("no sequence of 64 tokens in 'note' (60 tokens): never drawn",)
    with pytest.raises(PatternError, match=r"'note' has weight 0\.5, but note hold no tokens, or less than a sequence"):
        made(("shares", 1.0, (("note", 0.5), ("web", 0.5))))


@pytest.mark.parametrize(
    ("patterns", "blocks"),
    [
        (("*", "zh_*"), (("de", "en"), ("zh_books", "zh_web"))),
        (("zh_*", "zh_web", "*"), (("zh_books",), ("zh_web",), ("de", "en"))),
    ],
)
def test_plan_blocks_are_of_the_most_specific_patterns_and_the_star_is_the_rest(patterns, blocks):
    names = ("de", "en", "zh_books", "zh_web")
    domains = [Domain(name, "t", "h", 900, 9, 900, 900, 0, 0) for name in names]
    natural, order = ("natural", 1.0, ()), ("blocked", patterns, "asc")
    phase = PhaseOptions("main", (640, "tokens"), (0, "tokens"), natural, order, 8)
    plan = plan_of(domains, PlanOptions((phase,), ((0, 16),), 0, (("*", 9.0),), "error"))
    assert plan.phases[0].order.blocks == blocks
