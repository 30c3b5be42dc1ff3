"""The chained index: matching against what is there, equality with a run from scratch, and what is refused."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.dedup import exact, index, index_entries
from curation.dedup.index_entries import entries_schema
from curation.dedup.inputs import MatchInput
from curation.dedup.keep import read_keep
from curation.dedup.match import MatchOptions
from curation.dedup.minhash import Options, SignatureError
from curation.dedup.publish import check_publishable, publish
from curation.dedup.verify import SKETCH_SIZE, ShingleSets, sketches
from curation.passes import ShardInputs, make_rows
from curation.source import Reader
from curation.stages.dedup import DuplicateOptions, SignatureOptions, make_duplicates, make_signatures
from curation.stages.index import ABOUT, ENTRIES, REMOVALS, IndexOptions, make_index
from curation.stages.inputs import GlobalInputs

SMALL = Options(shingle=3, bands=12, rows=2)
CHECKED = MatchOptions(SMALL, verify=0.5, suffix="@near")
UNCHECKED = MatchOptions(SMALL, suffix="@near")
RAW = exact.match_options(None, suffix="@near")
FIRST = [
    "eins zwei drei vier fünf sechs sieben acht",
    "ganz anderer Text mit vielen Worten",
    "eins zwei drei vier fünf sechs sieben acht",
]
SECOND = [
    "Eins, zwei, drei, vier, fünf, sechs, sieben, acht!",
    "das hier ist wirklich neuer Text",
    "eins zwei drei vier fünf sechs sieben neun",
]


class Files:
    """Where a stage writes, in a test."""

    def __init__(self, folder, task="all"):
        self.folder, self.task = Path(folder), task
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, suffix):
        return self.folder / f"{self.task}{suffix}"


def dedup(folder, shards, options=CHECKED, *, keep=(), against=(), name=None, indexes=None):
    """One run of a dedup step by its stages: {(source, shard): texts} -> its layers; publishes where it has a name."""
    indexes = indexes or folder.parent / "indexes"
    made = [_shard(folder, source, shard, texts, options) for (source, shard), texts in sorted(shards.items())]
    tasks = tuple(f"{number}" for number in range(len(made)))
    artifacts = {f"signatures.{source}.s": str(folder / source) for source, _ in shards}
    for label in against:
        artifacts[f"index.{label}"] = str(index.open_chain([indexes], label)[-1].path)
    inputs = GlobalInputs(tuple(made), tuple(shard.task for shard in made), tuple(sorted(artifacts.items())))
    of_rows = options.exact_column == "content_id"
    step = DuplicateOptions("near", options, read_keep(keep), of_rows, tuple(against))
    make_duplicates(inputs, step, Files(folder))
    layers = [str(folder / f"all.{shard.source}.{shard.task}.parquet") for shard in made]
    if name is not None:
        parent = next((label for label in against if label.startswith(f"{name}@")), None)
        with_layers = [_with(shard, layers=(*shard.layers, layer)) for shard, layer in zip(made, layers)]
        inputs = GlobalInputs(tuple(with_layers), inputs.tasks, inputs.artifacts)
        told = IndexOptions("near", options.signatures, options.exact_column, (), parent)
        told = _with(told, licences=tuple((source, "CC0") for source, _ in shards))
        make_index(inputs, told, Files(folder))
        facts = json.loads((folder / f"all{ABOUT}").read_text())
        facts |= {"config": index.config_of(options.signatures, options.exact_column), "made_by": folder.name}
        chain = index.open_chain([indexes], parent) if parent else [None]
        publish(indexes, name, chain[-1], folder / f"all{ENTRIES}", folder / f"all{REMOVALS}", facts)
    assert len(tasks) == len(layers)
    return {key: pq.read_table(layer) for key, layer in zip(sorted(shards), layers)}


def _with(value, **changes):
    from dataclasses import replace

    return replace(value, **changes)


def _shard(folder, source, shard, texts, options):
    path = folder / "raw" / source / shard
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = ShardInputs(source, shard, str(path), "de", Reader("jsonl"), task=shard)
    make_rows(made, None, Files(folder / source, f"{shard}.rows"))
    if options.exact_column == "exact":
        make_signatures(made, SignatureOptions(options.signatures), Files(folder / source, shard))
    return _with(made, layers=(str(folder / source / f"{shard}.rows.parquet"),))


def test_containment_is_not_asked_of_an_index_which_has_sketches_alone(tmp_path):
    dedup(tmp_path / "one", {("web", "a"): FIRST}, name="web")
    part = _with(CHECKED, measure="containment")
    with pytest.raises(SignatureError, match="containment cannot be told"):
        dedup(tmp_path / "two", {("new", "a"): SECOND}, part, against=["web@1"])


def duplicates(layers):
    """Row of each dropped document -> where the one that stays stands, in this run or in an index."""
    return {
        (*name, row): tuple(line[f"duplicate_{part}@near"] for part in ("source", "shard", "row"))
        for name, table in layers.items()
        for row, line in enumerate(table.to_pylist())
        if line["drop@near"]
    }


def entries_of(folder, label):
    """(source, shard, row) of everything that a version holds."""
    return {
        tuple(entry[name] for name in ("source", "shard", "row"))
        for one in index.chain_inputs(index.open_chain([folder], label))
        for entry, alive in zip(
            pq.read_table(one.signatures).to_pylist(),
            one.alive if one.alive is not None else [True] * pq.read_metadata(one.signatures).num_rows,
        )
        if alive
    }


# ---------------------------------------------------------------- what it finds


def test_new_dump_against_an_index_names_version_document_and_similarity(tmp_path):
    dedup(tmp_path / "one", {("web_2025", "a"): FIRST}, name="web")
    layers = dedup(tmp_path / "two", {("web_2026", "a"): SECOND}, against=["web@1"], name="web")
    copy, new, near = layers["web_2026", "a"].to_pylist()
    assert [copy["drop@near"], new["drop@near"], near["drop@near"]] == [2, 0, 2]
    assert [copy["duplicate_index@near"], new["duplicate_index@near"]] == ["web@1", None]
    assert [copy[f"duplicate_{part}@near"] for part in ("source", "shard", "row")] == ["web_2025", "a", 0]
    assert (copy["similarity@near"], copy["kept_by@near"]) == (1.0, "index")
    # 6 shingles each, of which 5 are common: 5 / 7, from the index's sketch alone
    assert near["similarity@near"] == pytest.approx(5 / 7)
    assert entries_of(tmp_path / "indexes", "web@2") == {
        ("web_2025", "a", 0),
        ("web_2025", "a", 1),
        ("web_2026", "a", 1),
    }
    third = dedup(tmp_path / "three", {("web_2027", "a"): [*FIRST, *SECOND]}, against=["web@2"])
    assert all(third["web_2027", "a"].column("drop@near").to_pylist())


def test_similarity_to_an_index_stands_also_where_nothing_is_checked(tmp_path):
    dedup(tmp_path / "one", {("old", "a"): FIRST}, UNCHECKED, name="web")
    layers = dedup(tmp_path / "two", {("new", "a"): SECOND}, UNCHECKED, against=["web@1"])
    assert layers["new", "a"].to_pylist()[2]["similarity@near"] == pytest.approx(5 / 7)


def test_raw_text_is_found_in_an_index_of_shingles_and_in_one_of_raw_text(tmp_path):
    dedup(tmp_path / "one", {("old", "a"): FIRST}, UNCHECKED, name="near")
    dedup(tmp_path / "two", {("old", "a"): FIRST}, RAW, name="raw")
    for number, label in enumerate(["near@1", "raw@1"]):
        layers = dedup(tmp_path / f"three{number}", {("new", "a"): [SECOND[0], FIRST[2]]}, RAW, against=[label])
        assert duplicates(layers) == {("new", "a", 1): ("old", "a", 0)}


def test_sketch_gives_the_exact_similarity_of_short_texts_and_an_estimate_of_long_ones(tmp_path):
    words = [f"w{number}" for number in range(6000)]
    texts = [" ".join(words[:100]), " ".join(words[:90]), " ".join(words), " ".join(words[:5000] + words[:1000])]
    found = pa.array(texts, pa.large_string())
    sets = ShingleSets(tmp_path / "sets", 8)
    sets.add(np.arange(4), [found], SMALL)
    sets.add_sketches(np.arange(4, 8), sketches(found, SMALL))
    assert max(len(one) for one in sketches(found, SMALL).to_pylist()) == SKETCH_SIZE
    pairs = np.array([0, 2]), np.array([1, 3])
    whole, sketched = (sets.similarity(pairs[0] + shift, pairs[1], "jaccard") for shift in (0, 4))
    assert sketched[0] == whole[0]
    assert abs(sketched[1] - whole[1]) < 4 * (whole[1] * (1 - whole[1]) / SKETCH_SIZE) ** 0.5


# ---------------------------------------------------------------- as from scratch

WORDS = st.integers(0, 30).map(lambda number: f"w{number}")
TEXTS = st.lists(WORDS, min_size=0, max_size=14).map(" ".join)


@st.composite
def corpora(draw):
    """Texts of three shards, of which many are near-copies of another."""
    texts = draw(st.lists(TEXTS, min_size=3, max_size=12))
    for _ in range(draw(st.integers(0, 8))):
        words = draw(st.sampled_from(texts)).split()
        if words:
            words[draw(st.integers(0, len(words) - 1))] = draw(WORDS)
        texts.append(" ".join(words))
    cuts = sorted(draw(st.lists(st.integers(0, len(texts)), min_size=2, max_size=2)))
    return [texts[: cuts[0]], texts[cuts[0] : cuts[1]], texts[cuts[1] :]]


IDS = st.binary(min_size=2, max_size=2).map(lambda tail: b"\0" * 13 + tail + b"\0")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indexed=st.lists(st.tuples(st.sampled_from("abc"), IDS), max_size=20),
    read=st.dictionaries(st.sampled_from("ab"), st.lists(IDS, max_size=8)),
)
def test_entries_that_stand_in_the_run_are_found_with_each_shard_read_once(tmp_path, monkeypatch, indexed, read):
    indexed = sorted(indexed, key=lambda entry: entry[0])
    columns = {"source": ["s"] * len(indexed), "shard": [shard for shard, _ in indexed]}
    ids = pa.array([content_id for _, content_id in indexed], pa.binary(16))
    pq.write_table(pa.table(columns | {"content_id": ids}), tmp_path / "entries")
    pieces = list(index_entries.by_shard(tmp_path / "entries"))
    cut = [(name, held[n : n + 2], first + n) for name, held, first in pieces for n in range(0, len(held), 2)]
    opened = []

    def content_ids(one):
        opened.append(one.shard)
        return index_entries.as_ids(pa.array(read[one.shard], pa.binary(16)))

    monkeypatch.setattr(index_entries, "by_shard", lambda _: iter(cut))
    monkeypatch.setattr(index_entries, "content_ids", content_ids)
    found = index_entries.standing_in(tmp_path / "entries", [MatchInput("s", shard, "") for shard in read])
    monkeypatch.undo()
    assert found.tolist() == [content_id in read.get(shard, []) for shard, content_id in indexed]
    assert len(opened) == len(set(opened))


AS_SCRATCH = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHARED = ("duplicate_source@near", "duplicate_shard@near", "duplicate_row@near", "cluster@near")


@AS_SCRATCH
@given(corpora(), st.sampled_from([CHECKED, UNCHECKED, RAW]))
def test_new_shard_after_the_old_ones_is_decided_as_from_scratch(tmp_path_factory, texts, options):
    """Where the policy prefers what is there (here the canonical first), old texts are not needed."""
    folder = tmp_path_factory.mktemp("chain")
    shards = {("web", f"part-{number}"): some for number, some in enumerate(texts)}
    scratch = dedup(folder / "scratch", shards, options)
    against = []
    for number, (name, some) in enumerate(shards.items()):
        found = dedup(folder / f"run{number}", {name: some}, options, against=against, name="web")[name]
        against = [f"web@{number + 1}"]
        assert [bool(drop) for drop in found.column("drop@near").to_pylist()] == scratch[name].column("drop@near").cast(
            pa.bool_()
        ).to_pylist()
        for column in SHARED[:3]:
            assert found.column(column).equals(scratch[name].column(column))
        dropped = scratch[name].filter(pa.compute.greater(scratch[name].column("drop@near"), 0))
        mine = found.filter(pa.compute.greater(found.column("drop@near"), 0))
        assert mine.column("cluster@near").equals(dropped.column("cluster@near"))
        if options is not UNCHECKED:
            assert mine.column("similarity@near").equals(dropped.column("similarity@near"))
    kept = {(*name, row) for name, some in shards.items() for row in range(len(some))} - duplicates(scratch).keys()
    assert entries_of(folder / "indexes", against[0]) == kept


@AS_SCRATCH
@given(corpora(), st.sampled_from([(), ("longest",), ({"source": "b"},)]), st.sampled_from([CHECKED, UNCHECKED, RAW]))
def test_old_source_with_a_new_shard_is_the_same_bytes_as_from_scratch(tmp_path_factory, texts, keep, options):
    """Where the old shards are read again, any policy gives the layers of a run without an index."""
    folder = tmp_path_factory.mktemp("grown")
    shards = {(source, "part"): some for source, some in zip("abc", texts)}
    old = dict(list(shards.items())[1:])
    scratch = dedup(folder / "scratch", shards, options, keep=keep)
    dedup(folder / "old", old, options, keep=keep, name="web")
    grown = dedup(folder / "grown", shards, options, keep=keep, against=["web@1"], name="web")
    for name, layer in scratch.items():
        mine = grown[name]
        assert mine.column("duplicate_index@near").null_count == mine.num_rows
        assert mine.drop_columns(["duplicate_index@near"]).equals(layer)
    kept = {(*name, row) for name, some in shards.items() for row in range(len(some))} - duplicates(scratch).keys()
    assert entries_of(folder / "indexes", "web@2") == kept


def test_policy_that_would_prefer_the_new_document_is_not_as_from_scratch(tmp_path):
    """What the documentation says: an index is never rewritten by a new dump, so its shorter document stays."""
    short, long = "a b c d e f g h i j k l", "a b c d e f g h i j k l m"
    scratch = dedup(tmp_path / "s", {("old", "x"): [short], ("new", "x"): [long]}, keep=["longest"])
    assert duplicates(scratch) == {("old", "x", 0): ("new", "x", 0)}
    dedup(tmp_path / "old", {("old", "x"): [short]}, keep=["longest"], name="web")
    layers = dedup(tmp_path / "new", {("new", "x"): [long]}, keep=["longest"], against=["web@1"])
    assert duplicates(layers) == {("new", "x", 0): ("old", "x", 0)}


# ---------------------------------------------------------------- what is refused


def test_index_of_another_config_is_refused_with_both_shown(tmp_path):
    dedup(tmp_path / "one", {("old", "a"): FIRST}, name="web")
    (version,) = index.open_chain([tmp_path / "indexes"], "web@1")
    with pytest.raises(index.PublishedIndexError) as raised:
        index.check_config(version, index.config_of(Options(shingle=3, bands=4, rows=6)))
    assert '"bands": 12' in str(raised.value)
    assert '"bands": 4' in str(raised.value)
    assert "bands, rows differ" in str(raised.value)


@pytest.mark.parametrize(("damage", "said"), [("flip", "corrupt"), ("cut", "cut off"), ("remove", "is missing")])
def test_broken_file_is_refused_by_name(tmp_path, damage, said):
    dedup(tmp_path / "one", {("old", "a"): FIRST}, name="web")
    (version,) = index.open_chain([tmp_path / "indexes"], "web@1")
    content = bytearray(version.entries.read_bytes())
    version.entries.unlink()
    if damage != "remove":
        content[len(content) // 2] ^= 1
        version.entries.write_bytes(content[: len(content) - 7] if damage == "cut" else content)
    with pytest.raises(index.PublishedIndexError, match=said) as raised:
        dedup(tmp_path / "two", {("new", "a"): SECOND}, against=["web@1"])
    assert version.entries.name in str(raised.value)


def test_changed_manifest_and_broken_chain_are_refused(tmp_path):
    dedup(tmp_path / "one", {("old", "a"): FIRST}, name="web")
    dedup(tmp_path / "two", {("new", "a"): SECOND}, against=["web@1"], name="web")
    first = tmp_path / "indexes" / "web" / "000001.json"
    told = json.loads(first.read_text())
    first.write_text(json.dumps({**told, "documents": 7}))
    with pytest.raises(index.PublishedIndexError, match="was changed"):
        index.open_chain([tmp_path / "indexes"], "web@2")
    told["documents"] = 7
    first.write_text(json.dumps({**told, "hash": index.manifest_hash(told)}))
    with pytest.raises(index.PublishedIndexError, match="the chain is broken"):
        index.open_chain([tmp_path / "indexes"], "web@2")


@pytest.mark.parametrize(
    ("label", "said"),
    [("web@7", "web has version 1"), ("wbe@1", "did you mean web@1"), ("web", "NAME@NUMBER"), ("a/b@1", "NAME@NUMBER")],
)
def test_version_that_is_not_there_is_answered(tmp_path, label, said):
    _publish_nothing(tmp_path, "web", "first")
    with pytest.raises(index.PublishedIndexError, match=said):
        index.open_chain([tmp_path], label)


# ---------------------------------------------------------------- publishing


def _publish_nothing(folder, name, made_by, parent=None):
    entries = folder / f"{made_by}.entries.parquet"
    pq.write_table(entries_schema(SMALL).empty_table(), entries)
    facts = {"made_by": made_by, "config": {}, "documents": 0}
    return publish(folder, name, parent, entries, None, facts)


def test_same_work_is_published_once_and_other_work_never_over_it(tmp_path):
    first = _publish_nothing(tmp_path, "web", "first")
    before = {path.name: path.read_bytes() for path in (tmp_path / "web").iterdir()}
    assert _publish_nothing(tmp_path, "web", "first").hash == first.hash
    with pytest.raises(index.PublishedIndexError, match="web@1 is there and was made from something else"):
        _publish_nothing(tmp_path, "web", "other")
    assert {path.name: path.read_bytes() for path in (tmp_path / "web").iterdir()} == before
    second = _publish_nothing(tmp_path, "web", "second", parent=first)
    assert (second.label, second.manifest["parent"], second.manifest["parent_hash"]) == ("web@2", "web@1", first.hash)
    assert check_publishable(tmp_path, "web", None, "first").hash == first.hash


def test_publishing_killed_before_its_manifest_leaves_no_version(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("curation.dedup.publish.manifest_hash", killed)
        with pytest.raises(KeyboardInterrupt):
            _publish_nothing(tmp_path, "web", "killed")
    assert index.numbers_of(tmp_path, "web") == []
    assert len(list((tmp_path / "web").glob("000001-*"))) == 1
    (tmp_path / "web" / "000001-feedc0ffee00.parquet").write_bytes(b"entries of another killed publishing")
    version = _publish_nothing(tmp_path, "web", "first")
    assert sorted(p.name for p in (tmp_path / "web").glob("0*")) == sorted([version.entries.name, "000001.json"])


def _race(folder, number, barrier):
    barrier.wait()
    try:
        _publish_nothing(folder, "web", f"run{number}")
    except index.PublishedIndexError:
        raise SystemExit(3) from None


def test_of_publishers_at_once_one_wins_and_the_others_are_told(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_race, args=(tmp_path, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) == [0, 3, 3]
    (version,) = index.open_chain([tmp_path], "web@1")
    index.check_files([version])
