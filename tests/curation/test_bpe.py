"""Our encoder against the `tokenizers` library: the same ids, whatever the text, the merges and the pattern."""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.bpe import classes, encoder, model
from curation.bpe.encoder import encode_own, encode_texts, make_encoder, open_encoder, open_or_reason
from curation.bpe.model import NotReproducedError, byte_alphabet
from curation.bpe.parts import empty_cache

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", "/nonexistent")) / "text"
ALPHABET = {byte: character for character, byte in byte_alphabet().items()}
OWN = r" ?[\p{L}\p{M}&&[^\p{Han}]]+|\p{Han}+|DIGITS| ?[^\s\p{L}\p{M}\p{N}]+|[\r\n]+|[^\S\r\n]+(?=[^\S\r\n])|\s"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
SAMPLE = (
    "Die Straße heißt Übergröße, don't! 12345 中文分词的方法 def f(x):\n        return x[0]  # naïve\r\n\r\n"
    "the the then them Überraschung 中文 中国 的方 123 1234 __init__ == != --- ... \t\t x  y   z カタカナ 한국어"
)


def splits(*patterns: str) -> list[dict]:
    return [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns]


def byte_level(*before: dict, regex: bool = False, prefix: bool = False) -> dict:
    last = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
    return {"type": "Sequence", "pretokenizers": [*before, last]}


def metaspace(*before: dict, scheme: str = "never") -> dict:
    last = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    return {"type": "Sequence", "pretokenizers": [*before, last]}


BYTE_LEVEL = {
    "own single": byte_level(*splits(OWN.replace("DIGITS", r"\p{N}"))),
    "own three": byte_level(*splits(OWN.replace("DIGITS", r"\p{N}{1,3}"))),
    "own free": byte_level(*splits(OWN.replace("DIGITS", r" ?\p{N}+"))),
    "gpt2": byte_level(regex=True),
    "gpt2 with a space before": byte_level(regex=True, prefix=True),
    "digits, then gpt2": byte_level({"type": "Digits", "individual_digits": True}, regex=True),
    "llama 3": byte_level(*splits(CL100K.replace("DIGITS", r"\p{N}{1,3}"))),
    "qwen 2": byte_level(*splits(CL100K.replace("DIGITS", r"\p{N}"))),
    "deepseek": byte_level(*splits(*DEEPSEEK)),
    "whole text": byte_level(),
}
CHARACTERS = {
    "own": metaspace(*splits(OWN.replace("DIGITS", r"\p{N}"))),
    "whole text": metaspace(),
    "mistral": metaspace(scheme="first"),
    "always": metaspace(scheme="always"),
}
LLAMA_2 = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def stored_of(alphabet: list[str], words: list[str], number: int, seed: int = 1, **changes: object) -> dict:
    """A tokenizer.json whose merges join symbols that stand beside each other in words, in random order."""
    chance = random.Random(seed)
    known, merges = list(alphabet), []
    spelt = [[character for character in word if character in set(alphabet)] for word in words]
    for _ in range(number):
        pairs = sorted({pair for word in spelt for pair in pairwise(word)} - set(merges))
        if not pairs:
            break
        pair = chance.choice(pairs)
        merges.append(pair)
        if "".join(pair) not in known:
            known.append("".join(pair))
        if chance.random() < 0.7:  # the others stay, so that sides of merges overlap
            spelt = [joined(word, pair) for word in spelt]
    bpe = {"type": "BPE", "vocab": {token: i for i, token in enumerate(known)}, "merges": [list(m) for m in merges]}
    fixed = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    bpe |= fixed | {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    stored = {"version": "1.0", "added_tokens": [], "normalizer": None, "model": bpe}
    for name, value in changes.items():
        (stored if name in ("added_tokens", "normalizer", "pre_tokenizer") else bpe)[name] = value
    return stored


def joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    made: list[str] = []
    for symbol in word:
        if made and (made[-1], symbol) == pair:
            made[-1] += symbol
        else:
            made.append(symbol)
    return made


def bytes_of(text: str) -> list[str]:
    return ["".join(ALPHABET[byte] for byte in word.encode()) for word in text.split()] + ["ĠtheĠ", "ĊĊ", "ĠĠĠ"]


def byte_model(**changes: object) -> dict:
    return stored_of(sorted(byte_alphabet()), bytes_of(SAMPLE), 250, **changes)


def character_model(*, fallback: bool = True, **changes: object) -> dict:
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    changes = {"byte_fallback": fallback, "unk_token": "<unk>", "fuse_unk": True} | changes
    alphabet = ["<unk>", *tokens, *"▁abcdefghijklmnopqrstuvwxyzÜüßDS中文的方0123456789.,!'\n"]
    return stored_of(alphabet, [SAMPLE.replace(" ", "▁")], 200, **changes)


def library_of(stored: dict) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer.from_str(json.dumps(stored))
    library.encode_special_tokens = True
    return library


def text_of(documents: list[str]) -> pa.Array:
    return pa.array(documents, pa.large_string())


def check(ours: encoder.BpeEncoder, library: tokenizers.Tokenizer, documents: list[str]) -> int:
    """Ids and lengths are the library's, document by document; gives how many the library encoded itself."""
    ids, lengths, left = encode_texts(ours, library, text_of(documents))
    wanted = [library.encode(document, add_special_tokens=False).ids for document in documents]
    assert lengths.tolist() == [len(each) for each in wanted]
    assert ids.tolist() == [token for each in wanted for token in each]
    return left


@pytest.fixture(scope="module")
def opened():
    """Encoder and library of every pattern, opened once."""
    found = {}
    for name, pattern in BYTE_LEVEL.items():
        found[f"bytes, {name}"] = byte_model(pre_tokenizer=pattern)
    for name, pattern in CHARACTERS.items():
        found[f"characters, {name}"] = character_model(pre_tokenizer=pattern)
        found[f"characters, unknown, {name}"] = character_model(fallback=False, pre_tokenizer=pattern)
    found["characters, unknown one by one"] = character_model(
        fallback=False, fuse_unk=False, pre_tokenizer=CHARACTERS["own"]
    )
    found["characters, llama 2"] = character_model(normalizer=LLAMA_2, pre_tokenizer=None)
    unreachable = byte_model(pre_tokenizer=BYTE_LEVEL["llama 3"], ignore_merges=True)
    unreachable["model"]["merges"] = unreachable["model"]["merges"][:60]
    found["bytes, words that are tokens"] = unreachable
    libraries = {name: library_of(stored) for name, stored in found.items()}
    return {name: (make_encoder(library), library) for name, library in libraries.items()}


WORDS = st.sampled_from([*SAMPLE.split(), " ", "  ", "\n", "'s", "'LL", "\r\n", "1", "中文", "é", "▁", "\u3000", "🏳️‍🌈"])
DOCUMENTS = st.lists(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=30).map("".join)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS)
@example(
    ["", "\x00", "\x00\x00a", " ", "  ", "\n" * 50, "a" * 33, "中" * 40, "-" * 65, "a", "a" * 500, "'", "' s", " '"]
)
@example(
    ["12 345" * 20, " 1", "  1", "\t1", "\n 1", "1 \n", "x\u0301y", "\u0301", " \u0301", "〇一2", "(\u0301a", "\u200da"]
)
def test_encode_any_text_every_pattern_gets_the_library_s_ids(opened, documents) -> None:
    for name, (ours, library) in opened.items():
        try:
            assert check(ours, library, documents) == 0
        except AssertionError as error:
            error.add_note(name)
            raise


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 60),
    st.lists(st.text("ab 中é文", max_size=150), min_size=1, max_size=5),
    st.booleans(),
)
def test_encode_random_merges_long_words_get_the_library_s_ids(seed, number, documents, characters) -> None:
    words = ["abbaabab", "aab中ba", "文中文é", "中文ab文中", "éab", "b▁a" if characters else "bĠa"]
    if characters:
        alphabet = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"ab▁中文"]
        stored = stored_of(alphabet, words, number, seed, byte_fallback=True, pre_tokenizer=CHARACTERS["whole text"])
    else:
        spelt = ["".join(ALPHABET[byte] for byte in word.replace("Ġ", " ").encode()) for word in words]
        stored = stored_of(sorted(byte_alphabet()), spelt, number, seed, pre_tokenizer=BYTE_LEVEL["whole text"])
    library = library_of(stored)
    assert check(make_encoder(library), library, documents) == 0  # the library itself would always agree


def test_encode_same_ids_with_any_cache_and_after_other_text(opened) -> None:
    ours, library = opened["bytes, own single"]
    documents = [SAMPLE, SAMPLE[::-1], "".join(chr(0x4E00 + i) for i in range(3000))]
    small = encoder.BpeEncoder(ours.model, ours.pattern, empty_cache(2))
    for each in (small, ours, small):
        for order in (documents, documents[::-1]):
            assert check(each, library, order) == 0


def test_encode_slices_and_other_arrow_types_are_read_where_they_begin(opened) -> None:
    ours, library = opened["bytes, gpt2"]
    whole = text_of(["first", "", "zweite ß", "third", "中文"])
    for array in (whole.slice(1, 3), whole.cast(pa.string()).slice(2), whole.slice(5), text_of([])):
        ids, lengths = encode_own(ours, array)
        wanted = [library.encode(each, add_special_tokens=False).ids for each in array.to_pylist()]
        assert ids.tolist() == [token for each in wanted for token in each]
        assert lengths.tolist() == [len(each) for each in wanted]


def test_encode_invalid_utf8_is_refused(opened) -> None:
    broken = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, 3], np.int64)), pa.py_buffer(b"a\xed\xa0")]
    )
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        encode_own(opened["bytes, gpt2"][0], broken)


def test_encode_added_tokens_in_text_are_left_to_the_library_and_counted() -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": 900, "content": "<tool>", "special": False} | flags,
        {"id": 901, "content": "<end>", "special": True} | flags,
    ]
    library = library_of(byte_model(pre_tokenizer=BYTE_LEVEL["gpt2"], added_tokens=added))
    documents = ["no marker", "a <tool> call", "the <end> is text", "", "<tool>"]
    assert check(make_encoder(library), library, documents) == 2
    library.encode_special_tokens = False
    assert check(make_encoder(library), library, documents) == 3


def test_encode_nfc_leaves_only_text_that_it_changes_to_the_library() -> None:
    library = library_of(byte_model(pre_tokenizer=BYTE_LEVEL["qwen 2"], normalizer={"type": "NFC"}))
    documents = [
        "ascii",
        "é composed",
        "e\u0301 not",
        "\u212b",
        "\u0915\u093c",
        "\uac01",
        "x\u0323\u0301",
        "\U0001fae9?",
    ]
    assert check(make_encoder(library), library, documents) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer"),
        ({"pre_tokenizer": byte_level(*splits(r"\w+|\s"))}, "pattern"),
        ({"pre_tokenizer": byte_level(*splits(OWN.replace("DIGITS", r"\p{N}")), prefix=True)}, "space"),
        ({"pre_tokenizer": None}, "pre_tokenizer"),
    ],
)
def test_open_what_is_not_reproduced_is_refused_with_the_reason(changes, reason) -> None:
    stored = byte_model(**({"pre_tokenizer": BYTE_LEVEL["gpt2"]} | changes))
    with pytest.raises(NotReproducedError, match=reason):
        model.read_model(stored)


def test_open_truncation_is_refused() -> None:
    library = library_of(byte_model(pre_tokenizer=BYTE_LEVEL["gpt2"]))
    library.enable_truncation(5)
    assert open_or_reason(library) == (None, "its truncation is on")


def test_open_missing_byte_is_refused() -> None:
    stored = byte_model(pre_tokenizer=BYTE_LEVEL["gpt2"])
    del stored["model"]["vocab"]["Ā"]
    with pytest.raises(NotReproducedError, match="1 of the 256 bytes"):
        model.read_model(stored)


def test_open_wrong_table_of_characters_is_found_by_the_check(monkeypatch) -> None:
    table = classes.class_table().copy()
    table[0x1E4D0] ^= classes.LETTER  # one letter of a recent script
    monkeypatch.setattr("curation.bpe.words.class_table", lambda: table)
    with pytest.raises(NotReproducedError, match="other words"):
        open_encoder(library_of(byte_model(pre_tokenizer=BYTE_LEVEL["gpt2"])))


@pytest.mark.parametrize("name", ["bytes, own single", "characters, own"])
def test_open_own_patterns_pass_the_check(opened, name) -> None:
    assert open_or_reason(opened[name][1])[1] == ""


@pytest.mark.slow
def test_open_all_patterns_pass_the_check(opened) -> None:
    assert {name: open_or_reason(library)[1] for name, (_, library) in opened.items()} == dict.fromkeys(opened, "")


def test_classes_runs_come_back_as_the_table() -> None:
    table = classes.class_table()
    assert np.array_equal(classes.from_runs(*classes.to_runs(table)), table)


@pytest.mark.slow
def test_classes_stored_table_is_the_library_s() -> None:
    assert np.array_equal(classes.ask_library(), classes.class_table())


@pytest.mark.slow
def test_encode_one_huge_word_and_many_short_lines_get_the_library_s_ids(opened) -> None:
    chance = random.Random(3)
    huge = "".join(chance.choices("abeht", k=2_000_000))
    for name in ("bytes, own single", "bytes, whole text", "characters, mistral"):
        assert not check(*opened[name], [huge, "a\n" * 1_000_000, "a" * 300_000, " " * 100_000, "中文的" * 100_000])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="GRISTMILL_TEST_DATA names no folder with text")
@pytest.mark.parametrize("name", ["bytes, own single", "bytes, llama 3", "bytes, deepseek", "characters, mistral"])
def test_encode_real_documents_of_all_files_get_the_library_s_ids(opened, name) -> None:
    files = sorted(DATA.glob("*.parquet"))
    assert files
    for file in files:
        documents, size = [], 0
        for document in pq.read_table(file, columns=["text"])["text"].to_pylist():
            if size < 1_000_000:
                documents.append(document)
                size += len(document.encode())
        assert check(*opened[name], documents) == 0
