"""Matching against a brute-force twin, and its promises: any order, any memory, bad input."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.dedup import cluster as clustering
from curation.dedup import exact, minhash
from curation.dedup import match as matching
from curation.dedup.inputs import MatchInput
from curation.dedup.keep import KeepError, read_keep
from curation.dedup.match import MatchOptions, match
from curation.dedup.minhash import Options, SignatureError
from curation.dedup.shingle import shingle_hashes
from curation.dedup.spill import Runs

SMALL = Options(shingle=3, bands=6, rows=3)
MEMORY = 1 << 28


class Corpus:
    """Shards of texts with their signature files."""

    def __init__(self, folder, shards, options=SMALL, columns=None):
        self.folder, self.shards, self.options = folder, shards, options
        self.inputs, self.outputs = [], []
        for number, ((source, shard), texts) in enumerate(shards.items()):
            path = str(folder / f"{number}.signatures.parquet")
            batch = minhash.signatures(pa.array(texts, pa.large_string()), options)
            pq.write_table(pa.Table.from_batches([batch]), path, write_page_checksum=True)
            extra = ()
            if columns is not None:
                extra = (str(folder / f"{number}.columns.parquet"),)
                pq.write_table(pa.table(columns[source, shard]), extra[0])
            self.inputs.append(MatchInput(source, shard, path, extra))
            self.outputs.append(str(folder / f"{number}.layer.parquet"))

    def fetch(self, place, rows):
        texts = list(self.shards.values())[place]
        for start in range(0, len(rows), 7):  # in batches, as a reader gives them
            yield pa.array([texts[row] for row in rows[start : start + 7]], pa.large_string())

    def match(self, *, keep=(), memory=MEMORY, order=None, **options):
        order = list(range(len(self.inputs))) if order is None else order
        counts = match(
            [self.inputs[place] for place in order],
            MatchOptions(self.options, **options),
            read_keep(keep),
            [self.outputs[place] for place in order],
            memory,
            fetch_text=lambda place, rows: self.fetch(order[place], rows),
            scratch=str(self.folder),
        )
        return counts, {name: pq.read_table(path) for name, path in zip(self.shards, self.outputs)}


def dropped(layers):
    return {
        (*name, row): (line["duplicate_source"], line["duplicate_shard"], line["duplicate_row"])
        for name, table in layers.items()
        for row, line in enumerate(table.to_pylist())
        if line["drop"]
    }


def near_duplicates(seed, count=120):
    """Texts of which many differ from another in some words, in shuffled order."""
    draw = random.Random(seed)
    texts = []
    while len(texts) < count:
        words = [f"w{draw.randrange(2000)}" for _ in range(40)]
        for _ in range(draw.choice([1, 1, 2, 5])):
            texts.append(" ".join(words))
            words = words.copy()
            for _ in range(draw.choice([0, 1, 2, 6])):
                words[draw.randrange(40)] = "neu"
    texts += ["", "", "kurz", "KURZ", "kurz!"]
    draw.shuffle(texts)
    return texts


def sharded(texts, count=5):
    names = [("web", "a"), ("web", "b"), ("books", "a"), ("books", "c"), ("wiki", "z")][:count]
    return {name: texts[place::count] for place, name in enumerate(names)}


def similarity(one, other):
    a, b = (set(shingle_hashes(text, "words", 3).tolist()) for text in (one, other))
    return len(a & b) / len(a | b) if a or b else 0.0


def brute_force_star(shards, threshold, rank):
    """Documents from best to worst; each is dropped for the best kept one that it copies or is similar to."""
    texts = {(*name, row): text for name, rows in shards.items() for row, text in enumerate(rows)}
    signs = {
        place: minhash.signatures(pa.array([text], pa.large_string()), SMALL).to_pylist()[0]
        for place, text in texts.items()
    }
    kept, result = [], {}
    for place in sorted(texts, key=lambda place: (rank(place), place)):
        for other in kept:
            same = signs[place]["exact"] == signs[other]["exact"]
            bands = [f"band_{band:02d}" for band in range(6)]
            candidate = any(signs[place][b] is not None and signs[place][b] == signs[other][b] for b in bands)
            if same or (candidate and (threshold is None or similarity(texts[place], texts[other]) >= threshold)):
                result[place] = other
                break
        else:
            kept.append(place)
    return result


@pytest.mark.parametrize("threshold", [None, 0.6, 0.9])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_star_equals_brute_force(tmp_path, threshold, seed):
    corpus = Corpus(tmp_path, sharded(near_duplicates(seed)))
    counts, layers = corpus.match(verify=threshold)
    expected = brute_force_star(corpus.shards, threshold, lambda place: 0)
    assert dropped(layers) == expected
    assert counts["duplicates"] == len(expected) > 15


def test_keep_by_source_equals_brute_force_and_says_so(tmp_path):
    corpus = Corpus(tmp_path, sharded(near_duplicates(4)))
    _, layers = corpus.match(verify=0.6, keep=[{"source": "wi*"}, {"source": "web"}])
    order = {"wiki": 0, "web": 1, "books": 2}
    assert dropped(layers) == brute_force_star(corpus.shards, 0.6, lambda place: order[place[0]])
    said = {line["kept_by"] for table in layers.values() for line in table.to_pylist() if line["cluster_size"] > 1}
    assert said == {"source: wi*", "source: web", "first"}


@pytest.mark.parametrize("cluster", ["star", "components"])
@pytest.mark.parametrize("verify", [None, 0.7])
def test_match_is_the_same_for_any_order_of_inputs_and_any_memory(tmp_path, cluster, verify):
    corpus = Corpus(tmp_path, sharded(near_duplicates(5)))
    counts, layers = corpus.match(cluster=cluster, verify=verify)
    for order, memory in (([4, 2, 0, 3, 1], MEMORY), ([1, 3, 0, 2, 4], 14_000)):
        other_counts, other_layers = corpus.match(cluster=cluster, verify=verify, order=order, memory=memory)
        assert other_counts == counts
        assert all(other_layers[name].equals(layers[name]) for name in layers)


def test_match_of_other_shards_finds_the_same_clusters(tmp_path):
    """Clusters do not depend on how documents are cut into shards, as long as their order is the same."""
    texts = near_duplicates(6)
    results = []
    for number, cuts in enumerate(([0, 125], [0, 1, 40, 41, 125])):
        folder = tmp_path / str(number)
        folder.mkdir()
        shards = {("web", f"{place}"): texts[cuts[place] : cuts[place + 1]] for place in range(len(cuts) - 1)}
        _, layers = Corpus(folder, shards).match(verify=0.6)
        lines = pa.concat_tables(layers.values())
        results.append(lines.select(["drop", "cluster", "cluster_size", "similarity", "kept_by"]))
    assert results[0].equals(results[1])


def test_layer_tells_similarity_cluster_and_size(tmp_path):
    words = [f"w{number}" for number in range(40)]
    near = [*words[:39], "anders"]
    shards = {("web", "a"): [" ".join(near), "etwas ganz anderes hier"], ("wiki", "b"): [" ".join(words), None]}
    columns = {
        ("web", "a"): {"content_id": pa.array([b"1" * 16, b"2" * 16], pa.binary(16)), "num_characters": [10, 10]},
        ("wiki", "b"): {"content_id": pa.array([b"3" * 16, b"4" * 16], pa.binary(16)), "num_characters": [20, 20]},
    }
    _, layers = Corpus(tmp_path, shards, columns=columns).match(verify=0.5, keep=["longest"], suffix="@near")
    first, second = layers["web", "a"].to_pylist()
    assert first == {
        "drop@near": 1,
        "duplicate_source@near": "wiki",
        "duplicate_shard@near": "b",
        "duplicate_row@near": 0,
        "similarity@near": pytest.approx(37 / 39),
        "cluster@near": b"1" * 16,
        "cluster_size@near": 2,
        "kept_by@near": "longest",
    }
    assert (second["drop@near"], second["cluster@near"], second["cluster_size@near"]) == (0, None, 1)
    kept, unread = layers["wiki", "b"].to_pylist()
    assert (kept["drop@near"], kept["duplicate_row@near"], kept["cluster@near"]) == (0, None, b"1" * 16)
    assert (unread["drop@near"], unread["cluster_size@near"]) == (0, 1)


def chain(length):
    """Each text shares 34 of 40 words with the next; the ends share none."""
    words = [f"w{number}" for number in range(40 + 6 * length)]
    return [" ".join(words[6 * place : 6 * place + 40]) for place in range(length)]


def connected(similar, members):
    """Smallest document that each is connected with by similar pairs."""
    root = {one: one for one in members}
    for _ in members:
        for a, b in similar:
            root[a] = root[b] = min(root[a], root[b])
    return [root[one] for one in members]


def test_components_of_a_band_group_join_chains_in_any_order():
    """Checked pairs of random graphs: A~B~C is one cluster, whichever of the three is preferred."""
    draw = random.Random(5)
    for size in (3, 3, 3, 3, 5, 8, 30):
        similar = {pair for pair in itertools.combinations(range(size), 2) if draw.random() < 1.2 / size}
        runs = Runs(np.array([0, size]), np.arange(size, dtype=np.int32))
        known = clustering.no_pairs()
        while len((found := clustering.components(runs, size, known, 0.7)).asked):
            pairs = [(int(key) >> 32, int(key) & 0xFFFFFFFF) for key in found.asked]
            checked = np.array([0.8 if pair in similar else 0.5 for pair in pairs], np.float32)
            known = clustering.add_pairs(known, found.asked, checked)
        assert found.centre.tolist() == connected(similar, range(size))
        assert found.unlisted == 0


def test_chain_is_swallowed_by_components_but_not_by_star(tmp_path):
    texts = chain(30)
    options = Options(shingle=3, bands=40, rows=2)
    corpus = Corpus(tmp_path, {("web", "a"): texts}, options)
    counts, _ = corpus.match(cluster="components", verify=0.6)
    assert counts["duplicates"] == 29
    counts, layers = corpus.match(cluster="star", verify=0.6)
    assert counts["duplicates"] == 15  # every second one
    for (_, _, row), (_, _, centre) in dropped(layers).items():
        assert similarity(texts[row], texts[centre]) >= 0.6


@pytest.mark.parametrize("cluster", ["star", "components"])
def test_similarity_is_told_where_nothing_was_checked(tmp_path, cluster):
    corpus = Corpus(tmp_path, sharded(near_duplicates(7)))
    counts, layers = corpus.match(cluster=cluster)
    lines = {(*name, row): line for name, table in layers.items() for row, line in enumerate(table.to_pylist())}
    shards, low = corpus.shards, 0
    for place, centre in dropped(layers).items():
        text, other = (shards[one[:2]][one[2]] for one in (place, centre))
        exact_copy = minhash.signatures(pa.array([text, other], pa.large_string()), SMALL).column("exact")
        expected = 1.0 if exact_copy[0] == exact_copy[1] else similarity(text, other)
        assert lines[place]["similarity"] == pytest.approx(expected)
        low += expected < 1
    assert low > 10
    assert counts["pairs_checked"] == 0


def test_verification_rejects_what_only_shares_a_band(tmp_path):
    """One-row bands make nearly everything with a common shingle a candidate."""
    draw = random.Random(8)
    texts = [
        " ".join(["immer", "die", "gleiche", "Zeile", *(f"w{draw.randrange(10**6)}" for _ in range(8))])
        for _ in range(60)
    ]
    corpus = Corpus(tmp_path, {("web", "a"): texts}, Options(shingle=3, bands=64, rows=1))
    assert corpus.match()[0]["duplicates"] > 20
    counts, _ = corpus.match(verify=0.8)
    assert counts["duplicates"] == 0
    assert counts["pairs_rejected"] == counts["pairs_checked"] > 100


def test_containment_finds_a_part_that_jaccard_misses(tmp_path):
    words = [f"w{number}" for number in range(60)]
    corpus = Corpus(
        tmp_path, {("web", "a"): [" ".join(words), " ".join(words[:25])]}, Options(shingle=3, bands=64, rows=1)
    )
    assert corpus.match(verify=0.9)[0]["duplicates"] == 0
    _, layers = corpus.match(verify=0.9, measure="containment")
    assert dropped(layers) == {("web", "a", 1): ("web", "a", 0)}
    assert layers["web", "a"].column("similarity")[1].as_py() == 1.0


def test_dead_rows_take_no_part(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei vier"] * 3})
    dead_first = MatchInput("web", "a", corpus.inputs[0].signatures, (), np.array([False, True, True]))
    counts = match([dead_first], MatchOptions(SMALL), (), corpus.outputs, MEMORY)
    assert pq.read_table(corpus.outputs[0]).column("duplicate_row").to_pylist() == [None, None, 1]
    assert (counts["documents"], counts["duplicates"]) == (2, 1)


def test_identical_documents_in_many_shards_leave_one(tmp_path):
    shards = {
        ("web", f"{number:05d}"): ["immer wieder der gleiche Text", f"eigener Text der Nummer {number}"]
        for number in range(60)
    }
    counts, layers = Corpus(tmp_path, shards).match(verify=0.9)
    assert counts["duplicates"] == 59
    assert counts["largest_cluster"] == 60
    assert set(dropped(layers).values()) == {("web", "00000", 0)}


def test_alarms_name_the_source_and_the_cluster(tmp_path):
    shards = {("web", "a"): ["der gleiche Text"] * 9 + ["ein anderer Text"], ("wiki", "b"): ["noch ein Text"]}
    numbers = {name: {"row": pa.array(range(100, 100 + len(texts)))} for name, texts in shards.items()}
    counts, _ = Corpus(tmp_path, shards, columns=numbers).match(max_cluster=5, max_lost=0.5)
    lost, large = counts["alarms"]
    assert "source 'web' loses 8 of 10 documents (80.0%), more than 50.0%" in lost
    assert "1 clusters have more than 5 documents; the largest has 9" in large
    assert large.endswith("row 100")  # of the shard, some of whose rows were passed over
    assert Corpus(tmp_path, shards).match(max_cluster=9, max_lost=0.8)[0]["alarms"] == []


def test_counts_tell_overlap_between_sources(tmp_path):
    shards = {
        ("web", "a"): ["eins zwei drei", "vier fünf sechs"],
        ("wiki", "b"): ["Eins, zwei: drei!", "sieben acht neun"],
    }
    counts, _ = Corpus(tmp_path, shards).match(keep=[{"source": "wiki"}])
    assert counts["overlap"] == {"web": {"wiki": 1}}
    assert counts["sources"] == {"web": {"documents": 2, "duplicates": 1}, "wiki": {"documents": 2, "duplicates": 0}}


def test_exact_dedup_of_raw_text_compares_content_ids(tmp_path):
    path, layer = str(tmp_path / "rows.parquet"), str(tmp_path / "layer.parquet")
    ids = pa.array([b"a" * 16, b"b" * 16, b"a" * 16, None], pa.binary(16))
    pq.write_table(pa.table({"content_id": ids, "num_characters": [1, 2, 3, 4]}), path)
    options = exact.match_options(None)
    match([MatchInput("web", "a", path)], options, read_keep(["longest"]), [layer], MEMORY)
    assert pq.read_table(layer).column("duplicate_row").to_pylist() == [2, None, None, None]


def test_exact_dedup_of_normalised_text_ignores_case_and_punctuation(tmp_path):
    path, layer = str(tmp_path / "hashes.parquet"), str(tmp_path / "layer.parquet")
    text = pa.array(["Guten Tag!", "guten tag", "Guten Abend"], pa.large_string())
    pq.write_table(pa.Table.from_batches([exact.hashes(text, "words")]), path)
    match([MatchInput("web", "a", path)], exact.match_options("words"), (), [layer], MEMORY)
    assert pq.read_table(layer).column("drop").to_pylist() == [0, 1, 0]
    with pytest.raises(SignatureError, match="normalize differ"):
        match([MatchInput("web", "a", path)], exact.match_options("base"), (), [layer], MEMORY)


def test_signatures_of_other_options_are_refused_with_both_shown(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei vier"]})
    corpus.options = Options(shingle=3, bands=6, rows=4)
    with pytest.raises(SignatureError) as raised:
        corpus.match()
    assert '"rows": 3' in str(raised.value)
    assert '"rows": 4' in str(raised.value)
    assert "rows differ" in str(raised.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_broken_signature_file_is_named(tmp_path, damage):
    corpus = Corpus(tmp_path, {("web", "a"): near_duplicates(1), ("web", "b"): ["eins zwei drei"]})
    path = tmp_path / "0.signatures.parquet"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[200] ^= 0xFF
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(SignatureError, match=r"0\.signatures\.parquet"):
        corpus.match()


def test_shard_given_twice_is_refused(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei"]})
    with pytest.raises(SignatureError, match="given twice"):
        match(corpus.inputs * 2, MatchOptions(SMALL), (), corpus.outputs * 2, MEMORY)


def test_mask_of_another_length_is_refused(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei"]})
    wrong = MatchInput("web", "a", corpus.inputs[0].signatures, (), np.ones(3, bool))
    with pytest.raises(SignatureError, match="1 rows, but its mask has 3"):
        match([wrong], MatchOptions(SMALL), (), corpus.outputs, MEMORY)


def test_too_little_memory_is_refused_with_what_it_takes(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei"] * 100})
    with pytest.raises(SignatureError, match=r"raise execution\.memory"):
        corpus.match(memory=1000)


def test_more_copies_than_the_memory_holds_are_refused_with_what_it_takes(tmp_path):
    """81 of 126 documents have a copy or a candidate: 18 bytes for each document and 140 for each of these."""
    corpus = Corpus(tmp_path, sharded(near_duplicates(5)))
    with pytest.raises(
        SignatureError, match=r"81 of 126 documents .* 126 x 18 \+ 81 x 140 bytes = .* execution\.memory"
    ):
        corpus.match(memory=10_000)


def test_no_documents_and_no_inputs_give_empty_layers(tmp_path):
    counts, layers = Corpus(tmp_path, {("web", "a"): []}).match(verify=0.5)
    assert layers["web", "a"].num_rows == counts["documents"] == 0
    assert match([], MatchOptions(SMALL), (), [], MEMORY)["documents"] == 0


def test_verify_without_texts_is_refused(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["eins zwei drei"]})
    with pytest.raises(SignatureError, match="fetch_text"):
        match(corpus.inputs, MatchOptions(SMALL, verify=0.5), (), corpus.outputs, MEMORY)


@pytest.mark.parametrize(
    ("keep", "values", "best"),
    [
        ("newest", {"date": ["2020-01-01", None, "2021-05-01"]}, 2),
        ("longest", {"num_characters": [5, 9, 7]}, 1),
        ({"perplexity": "asc"}, {"perplexity": [3.0, float("nan"), 2.0]}, 2),
        ({"bucket": "asc"}, {"bucket": ["tail", "head", "middle"]}, 1),
        ({"licence": ["cc0", "cc-by"]}, {"licence": ["unknown", "cc-by", "cc0"]}, 2),
        ({"words": "desc"}, {"words": [None, None, None]}, 0),
    ],
)
def test_keep_chooses_the_best_copy(tmp_path, keep, values, best):
    corpus = Corpus(tmp_path, {("web", "a"): ["immer der gleiche Text"] * 3}, columns={("web", "a"): values})
    _, layers = corpus.match(keep=[keep])
    assert [row for row, drop in enumerate(layers["web", "a"].column("drop").to_pylist()) if not drop] == [best]


def test_keep_column_that_no_layer_has_is_named(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["gleich gleich gleich"] * 2})
    with pytest.raises(SignatureError, match="column 'quality' is in none of the layers"):
        corpus.match(keep=[{"quality": "desc"}])


@pytest.mark.parametrize("entry", ["biggest", {"source": 3}, {"a": "asc", "b": "desc"}, {"words": "up"}])
def test_keep_entry_that_is_not_understood_is_refused(entry):
    with pytest.raises(KeepError, match="not understood"):
        read_keep([entry])


def test_match_in_parts_of_few_members_equals_one(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path, sharded(near_duplicates(5)))
    counts, layers = corpus.match(verify=0.7)
    monkeypatch.setattr(matching, "_MOST_MEMBERS", 20)
    other_counts, other_layers = corpus.match(verify=0.7)
    assert other_counts == counts
    assert all(other_layers[name].equals(layers[name]) for name in layers)


@pytest.mark.parametrize("cluster", ["star", "components"])
def test_match_in_many_rounds_equals_one(tmp_path, monkeypatch, cluster):
    corpus = Corpus(tmp_path, sharded(near_duplicates(9)))
    counts, layers = corpus.match(verify=0.6, cluster=cluster)
    monkeypatch.setattr(clustering, "_ASKED_IN_ROUND", 3)
    other_counts, other_layers = corpus.match(verify=0.6, cluster=cluster)
    assert {**other_counts, "pairs_checked": 0, "pairs_rejected": 0} == {
        **counts,
        "pairs_checked": 0,
        "pairs_rejected": 0,
    }
    assert all(other_layers[name].equals(layers[name]) for name in layers)


@pytest.mark.slow
def test_a_million_identical_documents_leave_one(tmp_path):
    corpus = Corpus(tmp_path, {("web", "a"): ["der immer gleiche Text"] * 1_000_000})
    counts, layers = corpus.match(verify=0.9)
    assert (counts["duplicates"], counts["pairs_checked"]) == (999_999, 0)
    assert layers["web", "a"].column("drop")[0].as_py() == 0


@pytest.mark.slow
def test_a_hundred_thousand_near_copies_are_checked_once_each(tmp_path):
    texts = [f"{number} " + " ".join(f"w{place}" for place in range(30)) for number in range(100_000)]
    counts, _ = Corpus(tmp_path, {("web", "a"): texts}).match(verify=0.8)
    assert counts["duplicates"] == counts["pairs_checked"] == 99_999


@pytest.mark.slow
def test_one_document_in_ten_thousand_shards_leaves_one(tmp_path):
    shards = {("web", f"{number:05d}"): ["immer wieder der gleiche Text", f"Text {number}"] for number in range(10_000)}
    counts, layers = Corpus(tmp_path, shards).match()
    assert counts["duplicates"] == 9_999
    assert layers["web", "09999"].column("duplicate_shard").to_pylist() == ["00000", None]
