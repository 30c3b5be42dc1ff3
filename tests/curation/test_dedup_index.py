"""The chained index: matching a new dump against what is there, and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.dedup import index, minhash
from curation.dedup.inputs import MatchInput
from curation.dedup.match import MatchOptions, match
from curation.dedup.minhash import Options

SMALL = Options(shingle=3, bands=8, rows=2)
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


def run_dump(folder, source, texts, against=None):
    """Match one dump and publish its kept documents; returns the layer and the version."""
    path, layer = str(folder / f"{source}.parquet"), str(folder / f"{source}.layer.parquet")
    text = pa.array(texts, pa.large_string())
    pq.write_table(pa.Table.from_batches([minhash.signatures(text, SMALL)]), path)
    dump = MatchInput(source, "a", path)
    known = index.open_index(str(folder / "indexes"), against, SMALL) if against else []

    def fetch(place, rows):
        return None if place < len(known) else [text.take(pa.array(rows))]

    match([*known, dump], MatchOptions(SMALL, verify=0.6), (), [None] * len(known) + [layer], 1 << 28, fetch_text=fetch)
    version = index.publish(str(folder / "indexes"), "web", [dump], [layer], SMALL, previous=against)
    return pq.read_table(layer).to_pylist(), version


def test_new_dump_is_matched_against_the_index_and_names_the_old_document(tmp_path):
    _, version = run_dump(tmp_path, "web_2025", FIRST)
    assert version == "web@1"
    lines, version = run_dump(tmp_path, "web_2026", SECOND, against="web@1")
    assert version == "web@2"
    assert [line["drop"] for line in lines] == [1, 0, 1]
    copy, _, near = lines
    assert (copy["duplicate_source"], copy["duplicate_shard"], copy["duplicate_row"]) == ("web_2025", "a", 0)
    assert copy["similarity"] == 1.0
    assert near["similarity"] is None  # the index has no text to check it with
    assert copy["kept_by"] == "index"


def test_chain_holds_what_each_run_kept(tmp_path):
    run_dump(tmp_path, "web_2025", FIRST)
    run_dump(tmp_path, "web_2026", SECOND, against="web@1")
    first, second = (
        pq.read_table(one.signatures) for one in index.open_index(str(tmp_path / "indexes"), "web@2", SMALL)
    )
    assert first.column("row").to_pylist() == [0, 1]
    assert (second.column("source").to_pylist(), second.column("row").to_pylist()) == (["web_2026"], [1])
    third, _ = run_dump(tmp_path, "web_2027", [*FIRST, *SECOND], against="web@2")
    assert all(line["drop"] for line in third)


def test_index_of_other_options_is_refused_with_both_shown(tmp_path):
    run_dump(tmp_path, "web_2025", FIRST)
    with pytest.raises(index.PublishedIndexError) as raised:
        index.open_index(str(tmp_path / "indexes"), "web@1", Options(shingle=3, bands=4, rows=4))
    assert '"bands": 8' in str(raised.value)
    assert '"bands": 4' in str(raised.value)


def test_version_is_never_rewritten(tmp_path):
    run_dump(tmp_path, "web_2025", FIRST)
    with pytest.raises(index.PublishedIndexError, match="web@1 exists"):
        run_dump(tmp_path, "web_2025", FIRST)
    run_dump(tmp_path, "web_2026", SECOND, against="web@1")
    with pytest.raises(index.PublishedIndexError, match="must follow its newest, web@2"):
        run_dump(tmp_path, "web_2027", SECOND, against="web@1")


def test_corrupt_index_is_refused(tmp_path):
    run_dump(tmp_path, "web_2025", FIRST)
    path = tmp_path / "indexes" / "web" / "000001.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(index.PublishedIndexError, match="checksum"):
        index.open_index(str(tmp_path / "indexes"), "web@1", SMALL)


@pytest.mark.parametrize(
    ("label", "said"), [("web@7", "versions there: none"), ("web", "NAME@NUMBER"), ("a/b@1", "NAME@NUMBER")]
)
def test_version_that_is_not_there_is_named(tmp_path, label, said):
    with pytest.raises(index.PublishedIndexError, match=said):
        index.open_index(str(tmp_path), label, SMALL)
