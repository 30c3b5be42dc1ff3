from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mixing.domain_index import DomainIndexError
from mixing.domains import DomainTokens, build_domain_index
from mixing.held_out import Target, choose_held_out, read_held_out
from mixing.reader import TokenReader
from mixing.selections import Selection, count_parts, thin
from mixing.shards import TokenShardError, map_tokens, read_record
from mixing.tokenizer import load_tokenizer

SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stream_of(path, context: int = 1) -> list[int]:
    """All tokens of a contiguous index, through sequences of one predicted token."""
    domain = DomainTokens.open(path)
    number = domain.num_sequences(context)
    if not number:
        return []
    reader = TokenReader([path], context)
    windows = reader.read(np.zeros(number, np.int64), np.arange(number))
    return [*windows[:, 0].tolist(), int(windows[-1, -1])]


def test_domain_stream_is_in_canonical_order_whatever_the_order_of_shards(make_shard, tmp_path):
    shards = [make_shard("web", "b", ["6 7"]), make_shard("law", "a", ["9"]), make_shard("web", "a", ["3", "4 5"])]
    build_domain_index(shards, Selection("web"), tmp_path / "one")
    build_domain_index(shards[::-1], Selection("web"), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert stream_of(tmp_path / "one") == [3, 0, 4, 5, 0, 6, 7, 0]


def test_domain_neighbouring_documents_are_one_run(make_shard, tmp_path):
    documents = [{"text": str(3 + n), "bucket": bucket} for n, bucket in enumerate("hhthhht")]
    counts = build_domain_index([make_shard("web", "a", documents)], Selection("web", "bucket", "h"), tmp_path / "d")
    assert (counts["num_runs"], counts["num_documents"], counts["num_tokens"]) == (2, 5, 10)
    assert stream_of(tmp_path / "d") == [3, 0, 4, 0, 6, 0, 7, 0, 8, 0]


def test_domain_empty_document_behind_a_gap_does_not_hide_it(make_shard, tmp_path):
    documents = [("3 4", "h"), ("5 6", "t"), ("", "h"), ("7", "h"), ("", "t"), ("8", "h"), ("9", "t"), ("", "h")]
    rows = [{"text": text, "bucket": bucket} for text, bucket in documents]
    shards = [make_shard("web", part, rows, eos=False) for part in "ab"]
    build_domain_index(shards, Selection("web", "bucket", "h"), tmp_path / "d")
    assert stream_of(tmp_path / "d") == [3, 4, 7, 8] * 2


def test_domain_parts_divide_their_source_and_null_is_unknown(make_shard, tmp_path):
    documents = [{"text": str(3 + n), "bucket": bucket} for n, bucket in enumerate(["head", None, "tail", "head"])]
    shards = [make_shard("web", "a", documents)]
    assert count_parts(shards, "bucket") == {"head": 4, "tail": 2, "unknown": 2}
    found = {}
    for part in ("head", "tail", "unknown", "missing"):
        build_domain_index(shards, Selection("web", "bucket", part), tmp_path / part)
        found[part] = stream_of(tmp_path / part)
    assert found == {"head": [3, 0, 6, 0], "tail": [5, 0], "unknown": [4, 0], "missing": []}


def test_domain_counts_characters_and_bytes_of_its_documents(make_shard, tmp_path):
    documents = [{"text": "3 4", "bucket": "x"}, {"text": "5", "bucket": "y"}]
    build_domain_index([make_shard("web", "a", documents)], Selection("web", "bucket", "x"), tmp_path / "d")
    footer = DomainTokens.open(tmp_path / "d").footer
    assert (footer.num_characters, footer.size_bytes, footer.num_tokens, footer.num_documents) == (3, 3, 3, 1)


@pytest.mark.parametrize(
    ("num_tokens", "context", "number"), [(0, 4, 0), (1, 4, 0), (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2)]
)
def test_domain_number_of_sequences_is_all_whole_windows(
    make_shard, tmp_path, numbers_text, num_tokens, context, number
):
    documents = [numbers_text(3, 3 + num_tokens - 1)] if num_tokens else []
    build_domain_index([make_shard("web", "a", documents)], Selection("web"), tmp_path / "d")
    assert DomainTokens.open(tmp_path / "d").num_tokens == num_tokens
    assert DomainTokens.open(tmp_path / "d").num_sequences(context) == number


def test_domain_documents_in_a_sequence_are_named_with_their_places(make_shard, tmp_path):
    shards = [make_shard("web", "a", ["3 4", {"text": "5", "row": 8}]), make_shard("web", "b", ["6 7 8 9"])]
    build_domain_index(shards, Selection("web"), tmp_path / "d")
    # stream: 3 4 0 5 0 | 6 7 8 9 0; sequence 0 is tokens 0..4, sequence 1 is 4..8
    domain = DomainTokens.open(tmp_path / "d")
    assert [(s.shard, s.row, s.start, s.stop, s.offset) for s in domain.documents_in(0, 4)] == [
        ("a", 0, 0, 3, 0),
        ("a", 8, 3, 5, 3),
    ]
    assert [(s.shard, s.row, s.start, s.stop, s.offset) for s in domain.documents_in(1, 4)] == [
        ("a", 8, 0, 1, 4),
        ("b", 0, 1, 5, 0),
    ]
    assert domain.sequences_of("web", "a", 8, 4) == [0, 1]
    assert domain.sequences_of("web", "b", 0, 4) == [1]
    assert domain.sequences_of("web", "b", 7, 4) == []


DOCUMENTS = st.lists(
    st.tuples(st.lists(st.integers(3, 50), max_size=7), st.sampled_from(["x", "y", None])), max_size=12
)


@SETTINGS
@given(shards=st.lists(DOCUMENTS, min_size=1, max_size=3), context=st.integers(1, 6))
def test_domain_trace_and_reading_equal_a_list_of_tokens(make_shard, tmp_path, shards, context):
    files, stream, places = [], [], []
    for number, documents in enumerate(shards):
        rows = [{"text": " ".join(map(str, tokens)), "bucket": bucket} for tokens, bucket in documents]
        files.append(make_shard("web", f"s{number}", rows))
        for row, (tokens, bucket) in enumerate(documents):
            if bucket == "x":
                stream += [*tokens, 0]
                places += [(f"s{number}", row)] * (len(tokens) + 1)
    build_domain_index(files, Selection("web", "bucket", "x"), tmp_path / "d")
    domain = DomainTokens.open(tmp_path / "d")
    assert domain.num_sequences(context) == max(0, (len(stream) - 1) // context)
    reader = TokenReader([tmp_path / "d"], context)
    maps = {f.shard: map_tokens(f, read_record(f)) for f in files}
    found = {place: [] for place in places}
    for sequence in range(domain.num_sequences(context)):
        start = sequence * context
        window = reader.read(np.array([0]), np.array([sequence]))[0].tolist()
        assert window == stream[start : start + context + 1]
        slices = domain.documents_in(sequence, context)
        assert [(s.shard, s.row) for s in slices for _ in range(s.start, s.stop)] == places[start : start + context + 1]
        assert [t for s in slices for t in maps[s.shard][s.offset : s.offset + s.stop - s.start].tolist()] == window
        for piece in slices:
            found[piece.shard, piece.row].append(sequence)
    for (shard, row), sequences in found.items():
        assert domain.sequences_of("web", shard, row, context) == sequences


@SETTINGS
@given(kept=st.lists(st.booleans(), min_size=1, max_size=40), data=st.data())
def test_domain_runs_at_rising_positions_are_those_of_a_search_in_the_whole_table(make_shard, tmp_path, kept, data):
    rows = [{"text": "7 8 9", "bucket": "head" if keep else "tail"} for keep in kept]
    build_domain_index([make_shard("web", "a", rows)], Selection("web", "bucket", "head"), tmp_path / "head")
    domain = DomainTokens.open(tmp_path / "head")
    wanted = st.lists(st.integers(0, domain.length - 1)) if domain.length else st.just([])
    positions = np.array(sorted(data.draw(wanted)), np.int64)
    whole = np.asarray(domain.runs)[np.searchsorted(domain.runs[:, 0], positions, side="right") - 1]
    assert domain.runs_at(positions).tolist() == whole.reshape(-1, 3).tolist()
    assert len(domain.runs) == sum(keep and not before for before, keep in zip([False, *kept], kept))


def test_domain_thinned_documents_are_nested_and_copies_stay_together(make_shard, tmp_path):
    documents = [str(3 + n) for n in range(400)] + [str(3 + n) for n in range(400)]
    shards = [make_shard("web", "a", documents)]
    kept = []
    for number, share in enumerate((0.1, 0.3, 1.0)):
        build_domain_index(shards, thin(Selection("web"), share), tmp_path / f"d{number}")
        kept.append(stream_of(tmp_path / f"d{number}")[::2])
    assert set(kept[0]) < set(kept[1]) < set(kept[2])
    assert all(len(tokens) == 2 * len(set(tokens)) for tokens in kept)
    # 400 different documents: 120 expected, standard deviation 9
    assert abs(len(set(kept[1])) - 120) < 40


def test_thin_twice_multiplies_and_a_share_outside_is_refused():
    assert thin(thin(Selection("web"), 0.5), 0.5).share == 0.25
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        thin(Selection("web"), 0)


def test_domain_training_held_out_and_excluded_divide_it(make_shard, tmp_path):
    documents = [{"text": f"{3 + n} {4 + n}"} for n in range(300)]
    shards = [make_shard("web", "a", documents)]
    choose_held_out(shards, {"web": (Selection("web"), Target(60, 0.5))}, tmp_path / "held")
    held_out = read_held_out(tmp_path / "held")
    streams = {}
    for part in ("training", "held_out", "all"):
        build_domain_index(shards, Selection("web"), tmp_path / part, held_out=held_out, domain="web", part=part)
        streams[part] = set(stream_of(tmp_path / part)[::3])
    assert streams["training"] | streams["held_out"] == streams["all"]
    assert not streams["training"] & streams["held_out"]
    assert len(streams["held_out"]) == 20


def test_domain_index_that_is_cut_is_refused(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", ["3 4"])], Selection("web"), tmp_path / "d")
    (tmp_path / "d").write_bytes((tmp_path / "d").read_bytes()[:-3])
    with pytest.raises(DomainIndexError, match="not a domain index, or cut"):
        DomainTokens.open(tmp_path / "d")


def test_domain_index_with_missing_rows_in_its_tables_is_refused(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", ["3 4"])], Selection("web"), tmp_path / "d")
    (tmp_path / "d").write_bytes((tmp_path / "d").read_bytes()[8:])
    with pytest.raises(DomainIndexError, match="tables do not have the size"):
        DomainTokens.open(tmp_path / "d")


def test_domain_of_shards_by_two_tokenizers_is_refused(make_shard, tmp_path, other_tokenizer):
    shards = [make_shard("web", "a", ["3"]), make_shard("web", "b", ["3"], tokenizer=other_tokenizer)]
    with pytest.raises(DomainIndexError, match=r"web-b\.tokens: made by tokenizer"):
        build_domain_index(shards, Selection("web"), tmp_path / "d")


@pytest.fixture
def other_tokenizer(tmp_path):
    encoder = Tokenizer(models.WordLevel({"</s>": 0, "3": 1}, unk_token="</s>"))
    encoder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder.add_special_tokens(["</s>"])
    encoder.save(str(tmp_path / "other.json"))
    return load_tokenizer(tmp_path / "other.json")


def test_domain_of_a_cut_shard_is_refused(make_shard, tmp_path):
    files = make_shard("web", "a", ["3 4"])
    files.tokens_path.write_bytes(b"")
    with pytest.raises(TokenShardError, match="0 bytes"):
        build_domain_index([files], Selection("web"), tmp_path / "d")


def test_domain_index_moved_with_its_shards_still_reads(make_shard, tmp_path):
    build_domain_index([make_shard("web", "a", ["3 4"])], Selection("web"), tmp_path / "d")
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert stream_of(moved / "d") == [3, 4, 0]


def test_domain_held_out_part_of_an_unknown_domain_is_refused(make_shard, tmp_path):
    with pytest.raises(DomainIndexError, match="part 'held_out' of domain None"):
        build_domain_index([make_shard("web", "a", ["3"])], Selection("web"), tmp_path / "d", part="held_out")
