"""The plan's table and tree: values checkable by eye."""

from fractions import Fraction

import pytest

from mixing.plan import DomainSupply, make_plan
from mixing.plan_course import course, drawing
from mixing.plan_table import ALL, table, tree
from mixing.schedule import Amount, BatchLine, Blocked, Phase


def plan_of(*phases, domains=None):
    """100 books sequences of 2 tokens (10 documents), 1,000 of web (50 documents)."""
    domains = domains or [DomainSupply("books", 201, 10, 804, 402), DomainSupply("web", 2001, 50, 10_005, 9004)]
    return make_plan(domains, list(phases), [BatchLine(0, 8)], max_epochs=10)


def rows_of(plan, **options):
    return {(row.phase, row.domain): row for row in table(plan, **options)}


HALVES = {"books": 1, "web": 1}


def test_table_of_one_phase_has_a_row_for_each_domain_and_for_all():
    rows = rows_of(plan_of(Phase("only", Amount(100, "train steps"), HALVES, 2)))

    books = rows["only", "books"]
    assert list(rows) == [("only", "books"), ("only", "web"), ("only", ALL)]
    assert (books.num_sequences, books.num_tokens, books.share) == (200, 400, 0.5)
    assert books.epochs == pytest.approx(400 / 201)
    assert (books.num_documents, books.size_bytes, books.num_characters) == (20, 1600, 800)
    assert books.unique_share == 0.5
    assert rows["only", "web"].unique_share == 1
    assert rows["only", ALL].num_tokens == 800
    assert rows["only", ALL].unique_share == 0.75
    assert rows["only", ALL].epochs == pytest.approx(800 / 2202)


def test_table_of_packed_sequences_counts_passes_by_their_number():
    # 100 packed sequences hold 150 tokens, padding and overlap beside them: 200 draws are two epochs
    domains = [DomainSupply("books", 150, 10, 804, 402, sequences=((2, 100),))]
    rows = rows_of(plan_of(Phase("only", Amount(50, "train steps"), {"books": 1}, 2), domains=domains))

    assert (rows["only", "books"].epochs, rows["only", ALL].epochs) == (2, 2)
    assert (rows["only", "books"].num_documents, rows["only", "books"].unique_share) == (20, 0.5)


def test_table_of_two_phases_carries_what_was_seen_to_the_second():
    # 60 of 100 in the first phase: of the second's 60 only 40 are new
    phases = [Phase(name, Amount(30, "train steps"), HALVES, 2) for name in ("first", "second")]
    rows = rows_of(plan_of(*phases))

    assert rows["first", "books"].unique_share == 1
    assert rows["second", "books"].unique_share == pytest.approx(40 / 60)
    assert rows[ALL, "books"].unique_share == pytest.approx(100 / 120)
    assert rows[ALL, "books"].epochs == pytest.approx(240 / 201)


def test_table_over_another_context_expects_the_unseen_part_to_be_new():
    # half of books is seen in sequences of 2; half of what sequences of 4 bring is then new
    phases = [
        Phase("short", Amount(100, "sequences"), HALVES, 2),
        Phase("long", Amount(50, "sequences"), HALVES, 4),
    ]
    rows = rows_of(plan_of(*phases))

    assert rows["short", "books"].num_sequences == 50
    assert rows["long", "books"].unique_share == pytest.approx(0.5)


def test_table_of_groups_adds_their_domains():
    plan = plan_of(Phase("only", Amount(100, "train steps"), HALVES, 2))
    rows = rows_of(plan, groups={"*": ["books", "web"], "b*": ["books"]})

    assert rows["only", "*"].num_tokens == 800
    assert rows["only", "b*"].num_tokens == 400
    assert rows["only", "b*"].epochs == rows["only", "books"].epochs


def test_table_of_a_domain_without_weight_has_zeros():
    row = rows_of(plan_of(Phase("only", Amount(10, "train steps"), {"web": 1}, 2)))["only", "books"]

    assert (row.num_tokens, row.epochs, row.unique_share, row.num_documents) == (0, 0, 0, 0)


def test_tree_names_every_phase_and_drawn_domain():
    phases = [
        Phase("first", Amount(30, "train steps"), HALVES, 2),
        Phase("last", Amount(30, "train steps"), {"web": 1}, 2, Amount(10, "train steps")),
        Phase("blocks", Amount(10, "train steps"), HALVES, 2, order=Blocked((("web",), ("books",)))),
    ]
    lines = tree(plan_of(*phases)).splitlines()

    assert lines[0].endswith(": 560 tokens, 70 train steps, seed 0")
    assert lines[1] == "├─ first: 240 tokens = 30 x 4 sequences of 2, uniform, from position 0"
    assert lines[2] == "│  ├─ books 50.00%: 120 tokens, 0.60 epochs, 100% unique"
    assert "ramp over 40 sequences" in lines[4]
    assert "blocked web | books" in lines[7]


def test_tree_of_many_domains_shows_the_largest_and_the_table_adds_all_of_them_up():
    # sizes of which no two have a common divisor worth mentioning: exact sums of their shares would never end
    domains = [DomainSupply(f"d{number:04d}", 10_007 + 26 * number, 7, 90, 80) for number in range(2_000)]
    weights = {domain.name: 1 + (domain.name == "d0777") for domain in domains}
    plan = plan_of(Phase("only", Amount(40_000, "train steps"), weights, 2), domains=domains)

    lines = tree(plan).splitlines()
    rows = rows_of(plan)
    assert len(lines) == 2 + 40 + 1
    assert lines[2].startswith("   ├─ d0777 0.10%: ")
    assert lines[-1] == "   └─ and 1,960 more domains"
    assert rows["only", ALL].num_tokens == 320_000
    exact = sum(Fraction(7 * rows["only", one.name].num_tokens, one.num_tokens) for one in domains[:50])
    told = rows_of(plan, groups={"some": [one.name for one in domains[:50]]})["only", "some"]
    assert told.num_documents == round(exact)


def test_a_domain_or_phase_called_all_keeps_its_own_numbers():
    domains = [DomainSupply("all", 100_001), DomainSupply("web", 100_001)]
    phases = [
        Phase(name, Amount(1000), {"all": share, "web": 1 - share}, 10) for name, share in (("all", 0.2), ("end", 0.6))
    ]
    plan = make_plan(domains, phases, [BatchLine(0, 10)])
    assert [(row.phase, row.domain, round(row.share, 3)) for row in table(plan)] == [
        ("all", "all", 0.2), ("all", "web", 0.8), ("all", ALL, 1),
        ("end", "all", 0.6), ("end", "web", 0.4), ("end", ALL, 1),
        (ALL, "all", 0.4), (ALL, "web", 0.6), (ALL, ALL, 1),
    ]  # fmt: skip
    assert "all 20.00%" in tree(plan)
    stretches = course(plan, 2)
    assert [round(stretch.rows["all"].share, 3) for stretch in stretches] == [0.2, 0.6]
    assert any(line.startswith("all ") and "20.00%" in line for line in drawing(stretches, {}))
