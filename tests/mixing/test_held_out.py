from __future__ import annotations

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixing.document_hash import id_words, purpose_hash
from mixing.domains import build_domain_index
from mixing.held_out import Target, choose_held_out, read_held_out
from mixing.selections import Selection
from mixing.shards import read_documents

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def cluster(number: int) -> bytes:
    return b"cluster" + number.to_bytes(9, "big")


def chosen_rows(files, held_out, domain: str) -> tuple[set[int], set[int]]:
    """Rows of a shard that the domain holds out, and those that nothing trains on."""
    own, untrained = set(), set()
    for documents in read_documents(files):
        rows = documents["row"].to_pylist()
        own |= {row for row, held in zip(rows, held_out.own(documents, domain)) if held}
        untrained |= {row for row, held in zip(rows, held_out.untrained(documents)) if held}
    return own, untrained


def choose(shards, domains, path):
    counts = choose_held_out(shards, domains, path)
    return counts, read_held_out(path)


def test_held_out_takes_the_smaller_of_tokens_and_share(make_shard, tmp_path):
    shards = [make_shard("web", "a", [f"{3 + n} {4 + n} {5 + n}" for n in range(250)])]  # 1,000 tokens
    for target, wanted in (
        (Target(100, 0.5), 100),
        (Target(100, 0.05), 50),
        (Target(None, 0.2), 200),
        (Target(0, 0.2), 0),
    ):
        counts, held_out = choose(shards, {"web": (Selection("web"), target)}, tmp_path / "held")
        assert counts["web"]["target_tokens"] == wanted
        assert counts["web"]["held_out_tokens"] == wanted // 4 * 4 + (4 if wanted % 4 >= 2 else 0)
        own, untrained = chosen_rows(shards[0], held_out, "web")
        assert own == untrained
        assert len(own) * 4 == counts["web"]["held_out_tokens"]


def test_held_out_is_nested_in_the_target(make_shard, tmp_path):
    shards = [make_shard("web", "a", [f"{3 + n} 9 9 9" for n in range(500)])]
    before: set[int] = set()
    for tokens in (5, 40, 200, 1000):
        _, held_out = choose(shards, {"web": (Selection("web"), Target(tokens, 1.0))}, tmp_path / "held")
        own, _ = chosen_rows(shards[0], held_out, "web")
        assert before < own
        before = own


def test_held_out_does_not_depend_on_order_or_number_of_shards(make_shard, tmp_path):
    documents = [{"text": f"{3 + n} 7", "cluster": cluster(n // 2), "row": n} for n in range(200)]
    one = [make_shard("web", "a", documents)]
    two = [make_shard("web", "c", documents[100:]), make_shard("web", "b", documents[:100])]
    for number, shards in enumerate((one, two, two[::-1])):
        choose(shards, {"web": (Selection("web"), Target(60, 1.0))}, tmp_path / f"held{number}")
    assert (tmp_path / "held0").read_bytes() == (tmp_path / "held1").read_bytes() == (tmp_path / "held2").read_bytes()


def test_held_out_clusters_stay_whole(make_shard, tmp_path):
    documents = [{"text": f"{3 + n}", "cluster": cluster(n % 40)} for n in range(200)]
    shards = [make_shard("web", "a", documents)]
    _, held_out = choose(shards, {"web": (Selection("web"), Target(55, 1.0))}, tmp_path / "held")
    own, _ = chosen_rows(shards[0], held_out, "web")
    held_clusters = {row % 40 for row in own}
    assert own == {row for row in range(200) if row % 40 in held_clusters}
    assert len(held_clusters) in (5, 6)  # 10 tokens each, 55 wanted


def test_held_out_cluster_of_one_domain_is_trained_on_by_no_domain(make_shard, tmp_path):
    """A large domain whose own choice is small holds near-copies of what a small domain holds out."""
    small = [{"text": f"{3 + n} 9", "cluster": cluster(n)} for n in range(40)]
    large = [{"text": f"{100 + n} 8", "cluster": cluster(n)} for n in range(1000)]
    shards = [make_shard("small", "a", small), make_shard("large", "a", large)]
    domains = {"small": (Selection("small"), Target(60, 1.0)), "large": (Selection("large"), Target(30, 1.0))}
    _, held_out = choose(shards, domains, tmp_path / "held")
    own_small, _ = chosen_rows(shards[0], held_out, "small")
    own_large, untrained_large = chosen_rows(shards[1], held_out, "large")
    assert len(own_small) == 20
    assert own_small <= untrained_large  # row n of both is in cluster n
    # what only the small domain holds out is excluded: neither trained on nor measured as the large domain's
    assert own_small - own_large
    counts = build_domain_index(shards, Selection("large"), tmp_path / "large", held_out=held_out)
    assert counts["num_documents"] == 1000 - len(untrained_large)


def test_held_out_exact_copies_and_their_clusters_are_followed(make_shard, tmp_path):
    """A held-out text whose copy elsewhere has no cluster, or another cluster, takes that cluster with it."""
    eval_set = [{"text": "3 4 5"}, {"text": "6 7 8"}]
    copies = [
        {"text": "3 4 5", "cluster": cluster(1)},  # the same text as held out, in cluster 1
        {"text": "3 4 5 9", "cluster": cluster(1)},  # near-copy of it
        {"text": "20 21", "cluster": cluster(2)},
        {"text": "3 4 5 9", "cluster": cluster(3)},  # exact copy of the near-copy in another cluster
        {"text": "22 23", "cluster": cluster(3)},
        {"text": "30"},
    ]
    shards = [make_shard("eval", "a", eval_set), make_shard("web", "a", copies)]
    _, held_out = choose(
        shards,
        {"eval": (Selection("eval"), Target(None, 1.0)), "web": (Selection("web"), Target(0, 0.0))},
        tmp_path / "h",
    )
    own, untrained = chosen_rows(shards[1], held_out, "web")
    assert own == set()
    assert untrained == {0, 1, 3, 4}


def test_held_out_of_everything_leaves_nothing_to_train_on(make_shard, tmp_path):
    shards = [make_shard("eval", "a", [str(3 + n) for n in range(20)])]
    counts, held_out = choose(shards, {"eval": (Selection("eval"), Target(None, 1.0))}, tmp_path / "held")
    assert counts["eval"]["held_out_tokens"] == counts["eval"]["num_tokens"] == 40
    assert build_domain_index(shards, Selection("eval"), tmp_path / "d", held_out=held_out)["num_documents"] == 0


def test_held_out_small_domain_keeps_a_cluster_to_train_on(make_shard, tmp_path):
    two = [make_shard("two", "a", ["3 4 5", "6 7 8"])]
    one = [make_shard("one", "a", ["3 4 5"])]
    counts, _ = choose(two, {"two": (Selection("two"), Target(1, 1.0))}, tmp_path / "held")
    assert counts["two"]["held_out_units"] == 1
    counts, _ = choose(two, {"two": (Selection("two"), Target(1_000_000, 0.99))}, tmp_path / "held")
    assert counts["two"]["held_out_units"] == 1
    counts, _ = choose(one, {"one": (Selection("one"), Target(1, 1.0))}, tmp_path / "held")
    assert counts["one"]["held_out_units"] == 0


def test_held_out_parts_of_one_source_hold_out_their_own(make_shard, tmp_path):
    documents = [{"text": f"{3 + n} 4", "bucket": "head" if n % 3 else "tail"} for n in range(300)]
    shards = [make_shard("web", "a", documents)]
    domains = {f"web/{part}": (Selection("web", "bucket", part), Target(30, 1.0)) for part in ("head", "tail")}
    counts, held_out = choose(shards, domains, tmp_path / "held")
    for part in ("head", "tail"):
        made = build_domain_index(
            shards,
            Selection("web", "bucket", part),
            tmp_path / part,
            held_out=held_out,
            domain=f"web/{part}",
            part="held_out",
        )
        assert made["num_tokens"] == counts[f"web/{part}"]["held_out_tokens"] == 30


DOMAIN = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([None, *range(6)]), st.integers(3, 12)), max_size=20)


@SETTINGS
@given(documents=st.tuples(DOMAIN, DOMAIN), amounts=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_held_out_equals_a_slow_choice(make_shard, tmp_path, documents, amounts):
    """Twin in plain Python: sort the units by their hashes, follow copies by sets until nothing changes."""
    shards, rows = [], []
    for name, made in zip("ab", documents):
        texts = [
            {"text": " ".join([str(word)] * length), "cluster": None if c is None else cluster(c)}
            for length, c, word in made
        ]
        shards.append(make_shard(name, "s", texts))
        rows += [
            (name, row["row"], row["cluster"] or row["content_id"], row["content_id"], row["num_characters"])
            for batch in read_documents(shards[-1])
            for row in batch.to_pylist()
        ]
    domains = {name: (Selection(name), Target(amount, 1.0)) for name, amount in zip("ab", amounts)}
    _, held_out = choose(shards, domains, tmp_path / "held")
    tokens = {name: {} for name in "ab"}
    for (name, _, unit, _, _), length in zip(rows, [n + 1 for made in documents for n, _, _ in made]):
        tokens[name][unit] = tokens[name].get(unit, 0) + length
    held = set()
    for name, amount in zip("ab", amounts):
        held |= set(slow_choice(tokens[name], amount))
    before = None
    while held != before:
        before = set(held)
        held |= {key for _, _, unit, text, _ in rows if unit in held or text in held for key in (unit, text)}
    for name, files in zip("ab", shards):
        own, untrained = chosen_rows(files, held_out, name)
        mine = set(slow_choice(tokens[name], amounts["ab".index(name)]))
        assert own == {row for source, row, unit, _, _ in rows if source == name and unit in mine}
        assert untrained == {row for source, row, unit, _, _ in rows if source == name and unit in held}


def slow_choice(tokens: dict[bytes, int], amount: int) -> list[bytes]:
    amount = min(amount, sum(tokens.values()))
    if not amount:
        return []
    in_order = sorted(
        tokens, key=lambda unit: (int(purpose_hash(id_words(pa.array([unit], pa.binary(16))), "held out")[0]), unit)
    )
    best = min(range(len(in_order), 0, -1), key=lambda n: abs(sum(tokens[unit] for unit in in_order[:n]) - amount))
    return in_order[: min(best, len(in_order) - 1)]
