from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from mixing.config import Tokenizer as TokenizerSection
from mixing.tokenizer import TokenizerError, decode, encode, encode_counting, load_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer, word_pattern

ROOT = Path(__file__).parents[2]
SENTENCES = [
    "Die Bundesregierung hat gestern über das Bundesverfassungsgericht gesprochen. Größe und Maß der Straße.",
    "最低生活保障边缘家庭的人均月收入认定标准最高不得超过当地执行的月最低工资标准。我们用Python写代码。",
    "def read(path: str) -> list[int]:\n    with open(path) as file:\n        return [int(x) for x in file]\n",
    "The quick brown fox jumps over 1234 lazy dogs, and 56 more; it's fine.\r\n\tTabs and  spaces.",
    "Ein Käfer, zwei Käfer, drei Käfer… „Zitat“ – naïve café e\u0301 ok 👩‍🌾🇩🇪",
] * 12
TRICKY = [
    "",
    " ",
    "  führende Leerzeichen",
    "Zeile\n\n\n\tTab \r\n Ende  ",
    "<|endoftext|></s><pad><unk><0x0A>",
    "👩‍🌾🏳️‍🌈\U0010ffff\u200b\ufeff",
    "漢字かな交じり文 Python写代码",
    "e\u0301 ≠ é; ﬁ ≠ fi; \u00a0\u3000",
    "x = [1234567, 0x1F]\n    if x:\n        return x\x00\x01",
    "क्षि العربية עברית ไทย",
]


def text_of(documents) -> pa.Array:
    return pa.array(documents, pa.large_string())


def ids_of(tokenizer, document: str) -> list[int]:
    return [int(token) for ids, _ in encode(tokenizer, text_of([document])) for token in ids]


@pytest.fixture(scope="module", params=["byte_bpe", "bpe", "unigram"])
def trained(request, tmp_path_factory):
    """A tokenizer of each algorithm, with its folder and counts."""
    folder = tmp_path_factory.mktemp(request.param)
    options = TokenizerOptions(request.param, 700, special=("<|user|>",), coverage=0.98)
    counts = train_tokenizer([text_of(SENTENCES[:30]), text_of([None, *SENTENCES[30:]])], options, folder)
    return load_tokenizer(folder), folder, counts, options


@pytest.mark.parametrize("document", TRICKY)
def test_tokenizer_text_comes_back_as_it_was(trained, document):
    tokenizer = trained[0]
    assert decode(tokenizer, ids_of(tokenizer, document), keep_special=True) == document


@settings(max_examples=60, deadline=None)
@given(document=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40))
def test_tokenizer_any_text_comes_back(trained, document):
    tokenizer = trained[0]
    assert decode(tokenizer, ids_of(tokenizer, document)) == document


def test_tokenizer_counts_and_vocabulary(trained):
    tokenizer, _, counts, options = trained
    assert counts["num_documents"] == 60
    assert counts["size_bytes"] == sum(len(sentence.encode()) for sentence in SENTENCES)
    assert 300 < counts["vocabulary"] == tokenizer.vocabulary <= options.vocabulary
    assert (counts["num_dropped_characters"] > 0) == (options.algorithm != "byte_bpe")


def test_tokenizer_special_tokens_have_the_first_ids_and_are_never_found_in_text(trained):
    tokenizer, _, _, options = trained
    names = options.special_tokens()
    assert [tokenizer.encoder.token_to_id(name) for name in names] == list(range(len(names)))
    special = set(range(len(names)))
    for name in names:
        assert not special & set(ids_of(tokenizer, f"vor {name} nach"))
    if options.algorithm == "byte_bpe":
        assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk) == (0, 0, 1, None)
    else:
        assert (tokenizer.unk, tokenizer.bos, tokenizer.eos, tokenizer.pad) == (0, 1, 2, 3)


def test_tokenizer_unknown_token_is_never_needed(trained):
    tokenizer = trained[0]
    for document in TRICKY:
        assert tokenizer.unk is None or tokenizer.unk not in ids_of(tokenizer, document)


@pytest.mark.slow  # importing transformers takes seconds
def test_tokenizer_loads_in_transformers_with_the_same_ids(trained):
    transformers = pytest.importorskip("transformers")
    tokenizer, folder, _, options = trained
    other = transformers.AutoTokenizer.from_pretrained(folder)
    assert isinstance(other, transformers.PreTrainedTokenizerFast)
    assert (other.bos_token_id, other.eos_token_id, other.pad_token_id) == (tokenizer.bos, tokenizer.eos, tokenizer.pad)
    assert len(other) == tokenizer.vocabulary
    for document in (*SENTENCES[:5], "  zwei Leerzeichen", "Straße 👩‍🌾"):
        assert other.encode(document, add_special_tokens=False) == ids_of(tokenizer, document)
        assert other.decode(ids_of(tokenizer, document), clean_up_tokenization_spaces=False) == document
    assert other.encode("<|user|>", add_special_tokens=False) == [options.special_tokens().index("<|user|>")]


def test_tokenizer_trained_in_another_process_is_the_same_bytes(trained, tmp_path):
    script = (
        "import sys, json, pyarrow as pa\n"
        "from mixing.tokenizer_training import *\n"
        "text = pa.array(json.loads(sys.stdin.read()), pa.large_string())\n"
        f"options = TokenizerOptions({trained[3].algorithm!r}, 700, special=('<|user|>',), coverage=0.98)\n"
        f"train_tokenizer(iter([text]), options, {str(tmp_path)!r})\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(SENTENCES), text=True, cwd=ROOT, env=environment, check=True
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (trained[1] / name).read_bytes()


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("single", ["Im", " Jahr", " ", "1", "9", "4", "5", "0", ",", " ja"]),
        ("three", ["Im", " Jahr", " ", "194", "50", ",", " ja"]),
        ("free", ["Im", " Jahr", " 19450", ",", " ja"]),
    ],
)
def test_word_pattern_cuts_digits_by_rule(digits, words):
    assert cut("Im Jahr 19450, ja", digits) == words


def cut(text: str, digits: str = "single") -> list[str]:
    splitter = pre_tokenizers.Split(tokenizers.Regex(word_pattern(digits)), "isolated")
    return [word for word, _ in splitter.pre_tokenize_str(text)]


def test_word_pattern_scripts_line_ends_and_indents():
    assert cut("用Python写 Käse") == ["用", "Python", "写", " Käse"]
    assert cut("if x:\n\n    y") == ["if", " x", ":", "\n\n", "   ", " y"]
    assert cut("a  ") == ["a", " ", " "]
    assert cut("e\u0301t\u00e9") == ["e\u0301t\u00e9"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_word_pattern_covers_all_text_and_agrees_with_another_engine(text):
    words = cut(text)
    assert "".join(words) == text
    # the two engines know different Unicode versions: compare where no unassigned or recent character stands
    if all(unicodedata.category(c) != "Cn" and ord(c) < 0x10000 for c in text):
        assert words == regex.findall(word_pattern("single"), text, flags=regex.V1)


def test_train_rare_characters_are_spelt_in_bytes(tmp_path):
    text = [text_of(["aaaa bbbb " * 50 + "中"])]
    counts = train_tokenizer(text, TokenizerOptions("bpe", 300, coverage=0.99), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert counts["num_dropped_characters"] == 1
    assert tokenizer.encoder.encode("中").tokens == ["<0xE4>", "<0xB8>", "<0xAD>"]


def test_train_alphabet_is_decided_by_count_then_code_point(tmp_path):
    """Ties at the edge of the alphabet: of b, c, d with one place left the smallest code point wins, always."""
    text = [text_of(["a" * 96 + "dcb"])]
    train_tokenizer(text, TokenizerOptions("bpe", 400, coverage=0.97), tmp_path)
    vocabulary = load_tokenizer(tmp_path).encoder.get_vocab()
    assert ("b" in vocabulary, "c" in vocabulary, "d" in vocabulary) == (True, False, False)


def test_train_vocabulary_without_room_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match="vocabulary 258: 258 special and byte tokens leave no room"):
        train_tokenizer([text_of(["a"])], TokenizerOptions("byte_bpe", 258), tmp_path)


@pytest.mark.parametrize("algorithm", ["byte_bpe", "bpe", "unigram"])
def test_train_without_text_is_refused(tmp_path, algorithm):
    with pytest.raises(TokenizerError, match="no text to train a tokenizer on"):
        train_tokenizer(iter([text_of([None])]), TokenizerOptions(algorithm, 400), tmp_path)


def test_encode_batches_equal_one_by_one(trained):
    tokenizer = trained[0]
    documents = [*TRICKY, *SENTENCES[:5]]
    ids, lengths = zip(*encode(tokenizer, text_of(documents)))
    assert np.concatenate(ids).dtype == np.uint16
    one_by_one = [ids_of(tokenizer, document) for document in documents]
    assert np.concatenate(ids).tolist() == [token for document in one_by_one for token in document]
    assert np.concatenate(lengths).tolist() == [len(document) for document in one_by_one]


def test_encode_large_text_comes_in_pieces(number_tokenizer, monkeypatch):
    monkeypatch.setattr("mixing.tokenizer._CALL_BYTES", 1000)
    short, long, longest = "4 " * 200, "3 " * 700, "5 " * 2000
    pieces = [
        (set(ids.tolist()), n.tolist()) for ids, n in encode(number_tokenizer, text_of([short, short, long, longest]))
    ]
    assert pieces == [({4}, [200, 200]), ({3}, [700]), ({5}, [2000])]


def test_load_truncation_padding_and_templates_are_switched_off(tmp_path):
    encoder = tokenizers.Tokenizer(models.WordLevel({"[EOS]": 0, "a": 1}, unk_token="[EOS]"))
    encoder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoder.add_special_tokens(["[EOS]"])
    encoder.enable_truncation(3)
    encoder.enable_padding(length=8)
    encoder.post_processor = tokenizers.processors.TemplateProcessing("[EOS] $A", special_tokens=[("[EOS]", 0)])
    encoder.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert ids_of(tokenizer, "a a a a a") == [1] * 5
    assert tokenizer.eos == 0
    assert tokenizer.bos is None


def test_load_names_of_special_tokens_may_be_objects(tmp_path, number_tokenizer):
    number_tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}, "bos_token": None}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos, tokenizer.bos) == (0, None)


def test_load_special_token_outside_the_vocabulary_is_refused(tmp_path, number_tokenizer):
    number_tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    with pytest.raises(TokenizerError, match="eos_token '</s>' is not in the vocabulary"):
        load_tokenizer(tmp_path)


def test_load_identity_follows_the_files(tmp_path, number_tokenizer):
    number_tokenizer.encoder.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    one = load_tokenizer(tmp_path).identity
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<pad>"}))
    assert load_tokenizer(tmp_path).identity != one


def test_load_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no such tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(TokenizerError, match=r"has tokenizer\.model but no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"not a tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_own_encoder_takes_byte_and_character_bpe_and_says_why_not_others(trained):
    tokenizer = trained[0]
    own, reason = tokenizer.own
    kind = json.loads(tokenizer.encoder.to_str())["model"]["type"]
    assert (own is None) == (kind == "Unigram")
    assert reason == ("its model is Unigram, not BPE" if own is None else "")


@pytest.mark.parametrize("digits", ["single", "three", "free"])
@pytest.mark.parametrize("algorithm", ["byte_bpe", "bpe"])
def test_own_encoder_gives_the_library_s_ids_for_every_preset_s_pattern(tmp_path, algorithm, digits):
    train_tokenizer([text_of(SENTENCES)], TokenizerOptions(algorithm, 700, digits), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    documents = [*SENTENCES, "2024 Straße 中文12345的 \r\n\t x", "", "▁ ▁"]
    found = [
        (ids.tolist(), lengths.tolist(), left) for ids, lengths, left in encode_counting(tokenizer, text_of(documents))
    ]
    wanted = [tokenizer.encoder.encode(document, add_special_tokens=False).ids for document in documents]
    assert found == [([token for each in wanted for token in each], [len(each) for each in wanted], 0)]


@pytest.mark.parametrize("algorithm", ["byte_bpe", "bpe", "unigram"])
def test_recipe_refuses_the_vocabularies_that_training_refuses(algorithm):
    special = ("<|user|>", "<s>")
    least = 257 + len(TokenizerOptions(algorithm, 1000, special=special).special_tokens())
    TokenizerOptions(algorithm, least, special=special).check()
    assert TokenizerSection(algorithm=algorithm, vocabulary=least, special=special).vocabulary == least
    with pytest.raises(ValueError, match=f"{least} at least"):
        TokenizerSection(algorithm=algorithm, vocabulary=least - 1, special=special)
