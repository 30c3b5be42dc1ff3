"""Paragraph dedup against plain twins of CCNet's and Dolma's semantics."""

import collections
import hashlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import config
from curation.dedup import bloom, paragraph, paragraph_edit
from curation.dedup.minhash import SignatureError
from curation.dedup.paragraph import CCNET, DOLMA, ParagraphInput, ParagraphOptions
from curation.dedup.paragraph_hash import line_hashes, normalize_line
from curation.dedup.spill import HashFile
from curation.stages.paragraphs import stage_options

PUNCTUATION = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"
DELETED = re.compile("[" + PUNCTUATION + "".join(map(chr, (*range(32), *range(127, 160)))) + "]")


def ccnet_line(line):
    """The published normaliser, written down from its description."""
    return DELETED.sub("", re.sub(r"\d", "0", line.strip().lower()))


def ccnet_hash(line):
    return int.from_bytes(hashlib.sha1(ccnet_line(line).encode()).digest()[:8], "little")


LINE = st.text(
    st.one_of(st.sampled_from("aÄß １٣\t\x00\x1f\x85\xa0„ΣσİΑ.,"), st.characters(exclude_categories=["Cs"])),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(text=LINE.map(lambda line: line.replace("\n", "")) | st.text(st.sampled_from("ab \nΣ"), max_size=200))
def test_ccnet_hashes_of_any_line_equal_the_published_normaliser(text):
    lines = text.split("\n") if text else []
    found, ends = line_hashes(pa.array([text], pa.large_string()), "ccnet", 0)
    assert found.tolist() == [ccnet_hash(line) if line.strip() else 0 for line in lines]
    assert ends.tolist() == [len(lines)]


def test_ccnet_line_equals_the_published_example():
    line = "Größe: 12 € „Haus“, (Cookie)!\tEnde"
    assert normalize_line(line) == ccnet_line(line) == "größe: 00 € haus, (cookie)!ende"


def test_ccnet_hash_equals_the_published_example():
    found, _ = line_hashes(pa.array(["Impressum"], pa.large_string()), "ccnet", 0)
    assert found.tolist() == [964099985794908844]


@pytest.mark.parametrize("length", [1, 55, 56, 63, 64, 65, 119, 120, 128, 1000])
def test_sha1_of_any_length_equals_hashlibs(length):
    line = "x" * length
    found, _ = line_hashes(pa.array([line + "\n"], pa.large_string()), "ccnet", 0)
    assert found[0] == ccnet_hash(line)


@pytest.mark.parametrize(
    ("line", "exempt"),
    [
        ("Impressum", True),
        ("Über uns", True),
        ("– Seite 3 –", True),
        ("Alle Rechte vorbehalten", False),
        ("版权所有", False),
    ],
)
def test_paragraph_with_fewer_than_three_words_is_exempt(line, exempt):
    found, _ = line_hashes(pa.array([line], pa.large_string()), "raw", 3)
    assert (found[0] == 0) == exempt


def dedup(folder, shards, options, order=None, alive=None):
    """Texts after paragraph dedup by (source, shard), counts, and the edited batches."""
    given_, outputs, texts = [], [], []
    for number, ((source, shard), rows) in enumerate(shards.items()):
        text = pa.array(rows, pa.large_string())
        path = str(folder / f"{number}.hashes.parquet")
        batches = [paragraph.hashes(text.slice(at, 3), options) for at in range(0, max(len(text), 1), 3)]
        pq.write_table(pa.Table.from_batches(batches), path, write_page_checksum=True)
        given_.append(ParagraphInput(source, shard, path, None if alive is None else alive[source, shard]))
        outputs.append(str(folder / f"{number}.remove.parquet"))
        texts.append(text)
    order = range(len(given_)) if order is None else order
    counts = paragraph.find(
        [given_[i] for i in order], options, [outputs[i] for i in order], 1 << 28, scratch=str(folder)
    )
    edited = [
        paragraph_edit.edit(text, pq.read_table(path).column(0).combine_chunks()) for text, path in zip(texts, outputs)
    ]
    return {name: batch.column("text").to_pylist() for name, batch in zip(shards, edited)}, counts, edited


SHARDS = {
    ("web", "a"): [
        "Alle Rechte vorbehalten hier\nEin eigener langer Satz",
        "kurz\nkurz\nnur hier steht dieser\nnur hier steht dieser",
    ],
    ("web", "b"): ["alle rechte vorbehalten hier!\nkurz", None, "", "Alle Rechte vorbehalten hier"],
    ("books", "z"): ["Alle Rechte vorbehalten hier\n\nEin neuer langer Satz", "kurz"],
}


def test_keep_first_keeps_the_canonical_first_and_short_paragraphs(tmp_path):
    texts, counts, edited = dedup(tmp_path, SHARDS, DOLMA)
    assert texts["books", "z"] == ["Alle Rechte vorbehalten hier\n\nEin neuer langer Satz", "kurz"]
    assert texts["web", "a"] == ["Ein eigener langer Satz", "kurz\nkurz\nnur hier steht dieser"]
    assert texts["web", "b"] == ["alle rechte vorbehalten hier!\nkurz", None, "", ""]
    assert counts == {"paragraphs": 13, "exempt": 5, "removed": 3}
    assert edited[1].column("emptied").to_pylist() == [False, None, False, True]
    assert edited[0].column("removed").to_pylist() == [1, 1]
    assert edited[0].column("removed_bytes").to_pylist() == [29, 22]


@pytest.mark.parametrize("options", [CCNET, ParagraphOptions(min_words=0), ParagraphOptions(min_words=3)])
def test_blank_lines_are_no_copies_of_each_other(tmp_path, options):
    rows = [f"Titel des Artikels {name}\n\nEin Satz über {name}.\n \u3000\nEnde von {name}." for name in "abc"]
    texts, counts, _ = dedup(tmp_path, {("s", "a"): rows}, options)
    assert texts["s", "a"] == rows
    assert counts["removed"] == 0


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["A", "", "-x", "", "B"], "A\n\nB"),
        (["A", "-x", "", "B"], "A\n\nB"),
        (["-x", "", " ", "B"], "B"),
        (["A", "", "-x"], "A"),
        (["A", "", "-x", "-y", ""], "A"),
        (["A", "-x", ""], "A\n"),
        (["", "-x", "", "B"], "\nB"),
        (["A", "", "", "B", "-x", "C"], "A\n\n\nB\nC"),
        (["-x", "", "-y", "\u00a0", "-z"], ""),
    ],
)
def test_edit_takes_blank_lines_that_a_removal_leaves_over(lines, left):
    marks = pa.array([[line.startswith("-") for line in lines]], pa.large_list(pa.bool_()))
    made = paragraph_edit.edit(pa.array(["\n".join(lines)], pa.large_string()), marks)
    assert made.column("text").to_pylist() == [left]
    assert made.column("emptied").to_pylist() == [not left]


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("paragraphs_keep_first", DOLMA),
        ("paragraphs_keep_none", ParagraphOptions(keep="none", normalize="ccnet", min_words=0, false_positives=None)),
        ({"preset": "paragraphs_keep_none", "group": "50 shards"}, ParagraphOptions("none", "ccnet", 0, None, 50)),
        ({"preset": "paragraphs_keep_first", "false_positives": None}, ParagraphOptions(false_positives=None)),
    ],
)
def test_preset_is_what_the_documentation_says(written, options):
    """The table of docs/dedup.md: keep-first is Dolma's and LLäMmlein's, keep-none CCNet's over all shards."""
    assert stage_options(config.Dedup.model_validate(written)).paragraphs == options


@pytest.mark.parametrize("normalize", ["words", "numbers", "base"])
def test_folding_that_paragraphs_do_not_have_is_refused(normalize):
    with pytest.raises(ValueError, match="compared raw"):
        config.Dedup.model_validate({"preset": "paragraphs_keep_first", "normalize": normalize})


def test_hashes_are_read_in_bounded_pieces(tmp_path, monkeypatch):
    """Row groups of few rows are not joined, and one of many long rows is cut."""
    text = pa.array(["\n".join(["Zeile"] * 10)] * 40, pa.large_string())
    path = str(tmp_path / "h.parquet")
    pq.write_table(pa.Table.from_batches([paragraph.hashes(text, DOLMA)]), path, row_group_size=20)
    monkeypatch.setattr(paragraph, "_VALUES_AT_ONCE", 50)
    assert [len(lists) for lists in paragraph.read_lists(path, "paragraphs")] == [5] * 8


def test_keep_none_removes_all_copies_and_keeps_what_one_document_repeats(tmp_path):
    texts, counts, _ = dedup(tmp_path, SHARDS, CCNET)
    assert texts["books", "z"] == ["Ein neuer langer Satz", ""]
    assert texts["web", "a"] == ["Ein eigener langer Satz", "nur hier steht dieser"]
    # CCNet's normaliser keeps an ASCII exclamation mark: that line is no copy
    assert texts["web", "b"] == ["alle rechte vorbehalten hier!", None, "", ""]
    assert counts["removed"] == 8


def test_keep_none_in_groups_of_one_shard_looks_no_further(tmp_path):
    texts, _, _ = dedup(tmp_path, SHARDS, ParagraphOptions(keep="none", normalize="ccnet", min_words=0, group=1))
    assert texts["books", "z"] == SHARDS["books", "z"]
    assert texts["web", "b"][0] == SHARDS["web", "b"][0]


runs = HashFile.runs


def many_lines(seed, documents):
    draw = np.random.default_rng(seed)
    return [
        "\n".join(f"Zeile mit der Nummer {draw.zipf(1.3) % 5000}" for _ in range(draw.integers(1, 30)))
        for _ in range(documents)
    ]


@pytest.mark.parametrize("options", [CCNET, DOLMA, ParagraphOptions(false_positives=None)])
def test_paragraphs_equal_the_plain_twin_in_any_order(tmp_path, options):
    shards = {("s", f"{number}"): many_lines(number, 40) for number in range(6)}
    texts, counts, _ = dedup(tmp_path, shards, options)
    documents = [text for rows in shards.values() for text in rows]
    found = [text for rows in texts.values() for text in rows]
    if options.keep == "none":
        spread = collections.Counter(key for text in documents for key in set(map(ccnet_line, text.split("\n"))))
        expected = [keep_none(text, spread) for text in documents]
    else:
        seen = set()
        expected = [keep_first(text, seen) for text in documents]
    assert found == expected
    assert dedup(tmp_path, shards, options, order=[3, 5, 0, 1, 4, 2])[:2] == (texts, counts)


def keep_none(text, spread):
    lines = dict.fromkeys(line for line in text.split("\n") if spread[ccnet_line(line)] < 2)
    return "\n".join(lines)


def keep_first(text, seen):
    kept = []
    for line in text.split("\n"):
        if line not in seen:
            kept.append(line)
            seen.add(line)
    return "\n".join(kept)


@pytest.mark.parametrize("options", [CCNET, DOLMA, ParagraphOptions(false_positives=None)])
def test_paragraphs_in_many_parts_equal_those_in_one(tmp_path, monkeypatch, options):
    """One line stands in most documents: its records fill a part many times over, which is read in pieces."""
    footer = "\nAlle Rechte bei der Redaktion"
    shards = {("s", f"{number}"): [text + footer for text in many_lines(number, 200)] for number in range(3)}
    whole = dedup(tmp_path, shards, options)[:2]
    largest, read = [], HashFile.pieces
    monkeypatch.setattr(HashFile, "runs", lambda self, part: largest.append(self.size(part)) or runs(self, part))
    monkeypatch.setattr(
        HashFile, "pieces", lambda self, part, most: (largest.append(len(x[0])) or x for x in read(self, part, most))
    )
    monkeypatch.setattr(paragraph, "_PART_RECORDS", 400)
    assert dedup(tmp_path, shards, options)[:2] == whole
    assert max(largest) <= 425


def test_dead_rows_neither_lose_paragraphs_nor_count_as_copies(tmp_path):
    shards = {("s", "a"): ["eine Zeile mit Text", "eine Zeile mit Text", "eine Zeile mit Text"]}
    texts, counts, _ = dedup(tmp_path, shards, DOLMA, alive={("s", "a"): np.array([False, True, True])})
    assert texts["s", "a"] == ["eine Zeile mit Text", "eine Zeile mit Text", ""]
    assert counts["removed"] == 1


@pytest.mark.parametrize(("rate", "keys"), [(1e-2, 20_000), (1e-3, 100_000)])
def test_bloom_filter_errs_at_the_stated_rate(rate, keys):
    draw = np.random.default_rng(3)
    bits, probes = bloom.bits_and_probes(keys, rate)
    field = np.zeros(bits // 64, np.uint64)
    found = np.zeros(keys, bool)
    bloom.seen_before(draw.integers(0, 2**64, keys, np.uint64), field, probes, found)
    others = np.zeros(1, bool)
    wrong = 0
    for key in draw.integers(0, 2**64, 20_000, np.uint64):  # one at a time, into a full filter that is put back
        bloom.seen_before(np.array([key]), field.copy() if keys < 50_000 else field, probes, others)
        wrong += int(others[0])
    expected = rate * 20_000
    assert wrong < expected + 5 * expected**0.5 + 1
    assert wrong > expected / 2


def test_bloom_filter_never_misses_a_repeated_key():
    keys = np.arange(5000, dtype=np.uint64)
    bits, probes = bloom.bits_and_probes(10_000, 1e-6)
    found = np.zeros(10_000, bool)
    bloom.seen_before(np.concatenate([keys, keys]), np.zeros(bits // 64, np.uint64), probes, found)
    assert not found[:5000].any()
    assert found[5000:].all()


def test_bloom_filter_for_one_in_a_million_has_twenty_probes():
    assert bloom.bits_and_probes(1_000_000, 1e-6) == (28_755_200, 20)


def test_edit_of_another_text_is_refused():
    marks = pa.array([[True, False]], pa.large_list(pa.bool_()))
    for text in ("eine Zeile", "drei\nZeilen\nText"):
        with pytest.raises(SignatureError, match="row 0"):
            paragraph_edit.edit(pa.array([text], pa.large_string()), marks)


def test_hashes_of_other_options_are_refused_with_both_shown(tmp_path):
    path = str(tmp_path / "h.parquet")
    pq.write_table(pa.Table.from_batches([paragraph.hashes(pa.array(["a"], pa.large_string()), CCNET)]), path)
    with pytest.raises(SignatureError, match=r'"ccnet"[^\n]*\n[^\n]*"raw"'):
        paragraph.find([ParagraphInput("s", "a", path)], DOLMA, [str(tmp_path / "o")], 1 << 28)


def test_truncated_hash_file_is_named(tmp_path):
    path = tmp_path / "h.parquet"
    pq.write_table(pa.Table.from_batches([paragraph.hashes(pa.array(["a"], pa.large_string()), CCNET)]), path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SignatureError, match=r"h\.parquet is corrupt"):
        paragraph.find([ParagraphInput("s", "a", str(path))], CCNET, [str(tmp_path / "o")], 1 << 28)


@pytest.mark.parametrize("values", [{"keep": "last"}, {"normalize": "upper"}, {"false_positives": 0.0}, {"group": 0}])
def test_paragraph_options_that_make_no_sense_are_refused(values):
    with pytest.raises(SignatureError):
        ParagraphOptions(**values)


def test_text_that_is_masked_out_is_passed_over(tmp_path):
    """A null row may still have its bytes in the buffer."""
    rows = ["eins zwei drei\nvier", "eins zwei drei\nfünf"]
    masked = pa.LargeStringArray.from_buffers(
        2, *pa.array(rows, pa.large_string()).buffers()[1:], pa.py_buffer(b"\x01")
    )
    made = paragraph_edit.edit(masked, pa.array([[False, True], None], pa.large_list(pa.bool_())))
    assert made.column("text").to_pylist() == ["eins zwei drei", None]
    assert made.column("removed_bytes").to_pylist() == [5, None]
