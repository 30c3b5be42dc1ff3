"""Substring dedup against plain twins: every repeated span, the policy of which copy stays, any memory and order."""

import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import substring
from curation.dedup.fold import EXPANDS, MARK, SINGLE, fold_character
from curation.dedup.minhash import SignatureError
from curation.dedup.substring import LEAST_MEMORY, SubstringInput, SubstringOptions
from curation.dedup.units import unit_hashes
from curation.dedup.windows import MIN_MEMORY, find_repeats

WORDS = SubstringOptions(size=3)
CHARACTERS = SubstringOptions(size=4, unit="characters")


def split(text, options):
    """The units of a text, written down from their description: words with what follows, or code points."""
    if options.unit == "characters":
        return list(text)
    units, state = [], "before"
    for character in text:
        folded = fold_character(character, "words" if options.normalize == "raw" else options.normalize)
        kind = folded[0] & ~EXPANDS if folded else 0
        starts = (kind & SINGLE and state != "before") or (kind and not kind & MARK and state == "after")
        if not units or starts:
            units.append("")
        units[-1] += character
        if kind & SINGLE:
            state = "after"
        elif kind and not kind & MARK:
            state = "inside"
        elif kind:
            state = "inside" if state == "before" else state
        elif state == "inside":
            state = "after"
    return units if state != "before" else []


def compared(unit, options):
    """What two units must have in common to be equal."""
    if options.unit == "characters":
        return unit
    if options.normalize == "raw":
        return "".join(character for character in unit if character.encode()[0] > 0x20)
    return tuple(part & 0x1FFFFF for character in unit for part in fold_character(character, options.normalize))


def twin(documents, options):
    """Texts without every unit that lies in a window that stands earlier, and what each one lost."""
    seen, kept, lost = set(), [], []
    for text in documents:
        units = split(text or "", options)
        names = [compared(unit, options) for unit in units]
        removed = [False] * len(units)
        for start in range(len(units) - options.size + 1):
            window = tuple(names[start : start + options.size])
            if window in seen:
                removed[start : start + options.size] = [True] * options.size
            seen.add(window)
        left = "".join(unit for unit, gone in zip(units, removed) if not gone) if units else text
        if any(removed) and len(split(left, SubstringOptions())) < options.min_words:
            left = ""
        kept.append(left)
        lost.append(len(text or "") - len(left or ""))
    return kept, lost


def dedup(folder, shards, options, *, order=None, memory=1 << 28, alive=None, preference=None):
    """Texts after substring dedup by (source, shard), counts, lost characters and span tables."""
    given_, outputs, texts = [], [], []
    for number, ((source, shard), rows) in enumerate(shards.items()):
        text = pa.array(rows, pa.large_string())
        path = str(folder / f"{number}.units.parquet")
        batches = [substring.units(text.slice(at, 3), options) for at in range(0, max(len(text), 1), 3)]
        pq.write_table(pa.Table.from_batches(batches), path, write_page_checksum=True)
        mask = None if alive is None else np.array(alive[source, shard])
        given_.append(SubstringInput(source, shard, path, mask, (preference or {}).get(source, 0)))
        outputs.append(str(folder / f"{number}.spans.parquet"))
        texts.append(text)
    order = range(len(given_)) if order is None else order
    counts = substring.find(
        [given_[i] for i in order], options, [outputs[i] for i in order], memory, scratch=str(folder)
    )
    tables = [pq.read_table(path) for path in outputs]
    edited = [
        substring.edit(text, table.column("spans").combine_chunks(), options) for text, table in zip(texts, tables)
    ]
    left = {name: batch.column("text").to_pylist() for name, batch in zip(shards, edited)}
    lost = {name: batch.column("characters_removed").to_pylist() for name, batch in zip(shards, edited)}
    return left, counts, lost, tables


LETTERS = st.text(st.sampled_from("ab ,\nß法律é́﷽ "), max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(LETTERS | st.none(), max_size=6),
    options=st.sampled_from(
        [WORDS, CHARACTERS, SubstringOptions(size=2, normalize="words"), SubstringOptions(size=3, min_words=2)]
    ),
)
def test_substrings_of_any_texts_equal_the_plain_twin(tmp_path_factory, documents, options):
    folder = tmp_path_factory.mktemp("any")
    left, _, lost, _ = dedup(folder, {("web", "a"): documents[:3], ("web", "b"): documents[3:]}, options)
    kept, removed = twin(documents, options)
    assert [text for rows in left.values() for text in rows] == kept
    assert list(itertools.chain(*lost.values())) == removed


@settings(max_examples=200, deadline=None)
@given(text=LETTERS | st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_units_cut_a_text_without_rest(text):
    hashes, ends = unit_hashes(pa.array([text], pa.large_string()), "words", "raw")
    expected = [compared(unit, WORDS) for unit in split(text, WORDS)]
    assert ends.tolist() == [len(hashes)] == [len(expected)]
    for one, other in itertools.combinations(range(len(expected)), 2):
        assert (hashes[one] == hashes[other]) == (expected[one] == expected[other])


def many_texts(seed, count):
    """Texts made of sentences of which some come again and again, inside and at the ends."""
    draw = np.random.default_rng(seed)
    sentences = [" ".join(f"w{draw.integers(500)}" for _ in range(draw.integers(3, 30))) + ". " for _ in range(80)]
    return [
        "".join(
            sentences[draw.zipf(1.4) % 80] if draw.random() < 0.5 else f"nur {draw.integers(10**9)} hier, "
            for _ in range(draw.integers(1, 25))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("options", [SubstringOptions(size=10), SubstringOptions(size=60, unit="characters")])
def test_substrings_are_the_same_for_any_order_and_memory(tmp_path, monkeypatch, options):
    shards = {("s", f"{number}"): many_texts(number, 25) for number in range(5)}
    left, counts, lost, tables = dedup(tmp_path, shards, options)
    kept, removed = twin([text for rows in shards.values() for text in rows], options)
    assert [text for rows in left.values() for text in rows] == kept
    assert list(itertools.chain(*lost.values())) == removed
    assert sum(removed) > 5000
    assert counts["passes"] == 1
    monkeypatch.setattr(substring, "LEAST_MEMORY", 0)
    again = dedup(tmp_path, shards, options, order=[3, 0, 4, 1, 2], memory=20_000)
    assert again[0] == left
    assert all(one.equals(other) for one, other in zip(tables, again[3]))
    assert again[1]["passes"] >= 8


def test_tables_that_outgrow_the_memory_are_done_in_halves(monkeypatch):
    """Every window stands twice, so the table of first windows is what grows."""
    draw = np.random.default_rng(1)
    units = np.tile(draw.integers(0, 2**63, 60_000).astype(np.uint64), 2)
    ends = np.array([60_000, 120_000])
    whole, small = np.zeros(len(units), np.int64), np.zeros(len(units), np.int64)
    assert find_repeats(units, ends, 50, 1 << 30, whole) == 1
    assert whole[60_000:119_951].tolist() == list(range(1, 59_952))
    assert not whole[:60_000].any()
    assert not whole[119_951:].any()
    assert find_repeats(units, ends, 50, MIN_MEMORY + 1, small) > 8
    assert (small == whole).all()


def test_windows_with_the_same_hash_are_told_apart():
    """(x, y) and (x + 1, y - factor) have one polynomial, so one hash."""
    factor = 0x9E3779B97F4A7C15
    one, other = (7, 2**63), (8, (2**63 - factor) % 2**64)
    units = np.array([*one, *other, *other, *one, *one], np.uint64)
    origin = np.zeros(10, np.int64)
    find_repeats(units, np.arange(2, 11, 2), 2, 1 << 26, origin)
    assert origin.tolist() == [0, 0, 0, 0, 3, 0, 1, 0, 1, 0]


def test_boilerplate_goes_from_all_but_the_preferred_document(tmp_path):
    notice = " ".join(f"Hinweis{number}" for number in range(12))
    shards = {
        ("law", "b"): [f"Eins zwei drei.\n{notice}\nVier fünf sechs."],
        ("web", "a"): [f"{notice}. Ein Ende mit Worten", "ganz anderer Text"],
        ("wiki", "c"): [f"Vorher steht das, {notice}", None],
    }
    options = SubstringOptions(size=10)
    left, counts, lost, tables = dedup(tmp_path, shards, options)
    assert left["law", "b"] == shards["law", "b"]
    assert left["web", "a"] == ["Hinweis11. Ein Ende mit Worten", "ganz anderer Text"]  # "Hinweis11." has a full stop
    assert left["wiki", "c"] == ["Vorher steht das, ", None]
    assert lost["wiki", "c"] == [len(notice), 0]
    assert (counts["spans"], counts["units_removed"]) == (2, 23)
    assert tables[2].to_pylist()[0] == {
        "spans": [3, 15], "duplicate_source": "law", "duplicate_shard": "b", "duplicate_row": 0,
    }  # fmt: skip
    assert tables[1].column("duplicate_row").to_pylist() == [0, None]
    left, *_ = dedup(tmp_path, shards, options, preference={"wiki": 0, "law": 1, "web": 1})
    assert left["wiki", "c"] == shards["wiki", "c"]
    assert left["law", "b"] == ["Eins zwei drei.\nVier fünf sechs."]


def test_every_removed_window_still_stands_in_what_is_left(tmp_path):
    """What a cut takes is nowhere lost: where documents do not overlap themselves, each 10-gram of the corpus stays."""
    texts = [text for number in range(4) for text in many_texts(number, 30)]
    options = SubstringOptions(size=10)
    left, *_ = dedup(tmp_path, {("web", "a"): texts}, options)
    words = {word for text in texts for word in text.split()}
    assert {word for text in left["web", "a"] for word in text.split()} == words


def test_copy_is_named_by_its_row_in_the_shard_where_some_rows_were_not_read(tmp_path):
    text, path = " ".join(f"w{number}" for number in range(12)), str(tmp_path / "0.units.parquet")
    dedup(tmp_path, {("web", "a"): ["kurz", text, text]}, WORDS)
    pq.write_table(pa.table({"row": [4, 17, 30]}), tmp_path / "rows")
    found = SubstringInput("web", "a", path, rows=str(tmp_path / "rows"))
    substring.find([found], WORDS, [str(tmp_path / "out")], 1 << 28)
    assert pq.read_table(tmp_path / "out").column("duplicate_row").to_pylist() == [None, None, 17]


def test_repeated_text_within_a_document_keeps_its_first_copy(tmp_path):
    verse = "Der Mond ist aufgegangen, die goldnen Sternlein prangen "
    left, *_ = dedup(tmp_path, {("web", "a"): [verse * 5 + "am Himmel hell und klar"]}, SubstringOptions(size=8))
    assert left["web", "a"] == [verse + "am Himmel hell und klar"]


def test_short_leftovers_go_with_the_cut_and_short_texts_stay(tmp_path):
    text = " ".join(f"w{number}" for number in range(20))
    shards = {("web", "a"): [text, f"Seite 3: {text}", "nur kurz", f"{text} Das hier ist aber ein eigener Satz"]}
    left, _, lost, _ = dedup(tmp_path, shards, SubstringOptions(size=10, min_words=3))
    assert left["web", "a"] == [text, "", "nur kurz", "Das hier ist aber ein eigener Satz"]
    assert lost["web", "a"] == [0, len(text) + 9, 0, len(text) + 1]


def test_chinese_span_is_cut_between_characters(tmp_path):
    clause = "本法自公布之日起施行，原法同时废止。"
    shards = {("law", "a"): [f"第一条。{clause}"], ("law", "b"): [f"第九条：见附件。{clause}完"]}
    left, *_ = dedup(tmp_path, shards, SubstringOptions(size=10))
    assert left["law", "b"] == ["第九条：见附件。完"]
    assert unicodedata.is_normalized("NFC", left["law", "b"][0])


def test_dead_rows_are_neither_cut_nor_a_reason_to_cut(tmp_path):
    text = " ".join(f"w{number}" for number in range(12))
    left, *_ = dedup(
        tmp_path,
        {("web", "a"): [text, text, text]},
        SubstringOptions(size=10),
        alive={("web", "a"): [False, True, True]},
    )
    assert left["web", "a"] == [text, text, ""]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_broken_unit_file_is_named(tmp_path, damage):
    dedup(tmp_path, {("web", "a"): many_texts(1, 50)}, WORDS)
    path = tmp_path / "0.units.parquet"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[200] ^= 0xFF
    path.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with pytest.raises(SignatureError, match=r"0\.units\.parquet"):
        substring.find([SubstringInput("web", "a", str(path))], WORDS, [str(tmp_path / "out")], 1 << 28)


def test_other_units_are_refused_with_both_shown(tmp_path):
    dedup(tmp_path, {("web", "a"): ["eins zwei drei"]}, WORDS)
    with pytest.raises(SignatureError, match=r'"unit": "words"(.|\n)*wanted(.|\n)*"unit": "characters"'):
        substring.find(
            [SubstringInput("web", "a", str(tmp_path / "0.units.parquet"))],
            CHARACTERS,
            [str(tmp_path / "out")],
            1 << 28,
        )


def test_too_little_memory_or_disk_is_refused_with_what_it_takes(tmp_path, monkeypatch):
    shards = {("web", "a"): ["eins zwei drei vier"] * 100}
    with pytest.raises(SignatureError, match=r"needs 64 MiB or more; memory is 1 MiB; raise execution\.memory"):
        dedup(tmp_path, shards, WORDS, memory=1 << 20)
    monkeypatch.setattr(substring, "_BYTES_PER_DOCUMENT", LEAST_MEMORY // 20)
    with pytest.raises(SignatureError, match=r"raise execution\.memory by 0\.5"):
        dedup(tmp_path, shards, WORDS, memory=LEAST_MEMORY)
    monkeypatch.setattr(substring, "_BYTES_PER_DOCUMENT", 24)
    monkeypatch.setattr(substring, "_BYTES_PER_UNIT", 1 << 50)
    with pytest.raises(SignatureError, match=r"400 units needs .* are free; make room or set execution\.workdir"):
        dedup(tmp_path, shards, WORDS)


def test_spans_of_another_text_are_refused():
    with pytest.raises(SignatureError, match="row 1: its spans lie beyond its text"):
        substring.edit(
            pa.array(["eins zwei", "drei"], pa.large_string()),
            pa.array([None, [0, 3]], pa.large_list(pa.int32())),
            WORDS,
        )


def test_no_documents_and_no_inputs_give_empty_tables(tmp_path):
    _, counts, _, tables = dedup(tmp_path, {("web", "a"): [], ("web", "b"): [None, ""]}, WORDS)
    assert [table.num_rows for table in tables] == [0, 2]
    assert counts["units_removed"] == 0
    assert substring.find([], WORDS, [], 1 << 28)["spans"] == 0


@pytest.mark.slow
def test_many_identical_documents_take_one_entry_each_window(tmp_path):
    """The tables grow with distinct windows: these 10 million words have 151."""
    text = " ".join(f"w{number}" for number in range(200))
    options, count = SubstringOptions(), 50_000
    batch = substring.units(pa.array([text] * 1000, pa.large_string()), options)
    pq.write_table(pa.Table.from_batches([batch] * (count // 1000)), tmp_path / "units")
    given_ = [SubstringInput("web", "a", str(tmp_path / "units"))]
    counts = substring.find(given_, options, [str(tmp_path / "spans")], LEAST_MEMORY, scratch=str(tmp_path))
    assert counts["units_removed"] == 200 * (count - 1)
    assert set(pq.read_table(tmp_path / "spans").column("duplicate_row").to_pylist()) == {None, 0}
