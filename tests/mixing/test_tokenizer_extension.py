from __future__ import annotations

import json

import pyarrow as pa
import pytest
import tokenizers

from mixing.tokenizer import TokenizerError, decode, load_tokenizer
from mixing.tokenizer_extension import EXTENSION_FILE, extend_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer

ENGLISH = ["the cat sat on the mat and the dog sat by the door of the house 1950"] * 30
CHINESE = [
    "最低生活保障边缘家庭的人均月收入认定标准最高不得超过当地执行的月最低工资标准",
    "家庭的最低生活保障标准",
] * 15


def text_of(documents) -> pa.Array:
    return pa.array(documents, pa.large_string())


@pytest.fixture(scope="module", params=["byte_bpe", "bpe"])
def extended(request, tmp_path_factory):
    """Base and extended tokenizer, and the counts."""
    folder = tmp_path_factory.mktemp(request.param)
    train_tokenizer([text_of(ENGLISH)], TokenizerOptions(request.param, 320), folder / "base")
    counts = extend_tokenizer(folder / "base", iter([text_of(CHINESE)]), 450, folder / "new", special=("<|user|>",))
    return load_tokenizer(folder / "base"), load_tokenizer(folder / "new"), counts


def ids_of(tokenizer, document: str) -> list[int]:
    return tokenizer.encoder.encode(document, add_special_tokens=False).ids


def test_extension_keeps_every_id_of_the_base(extended):
    base, new, counts = extended
    known = base.encoder.get_vocab(with_added_tokens=True)
    assert {name: new.encoder.token_to_id(name) for name in known} == known
    assert new.encoder.token_to_id("<|user|>") == base.vocabulary
    assert (new.bos, new.eos, new.pad) == (base.bos, base.eos, base.pad)
    assert counts["vocabulary"] == new.vocabulary > base.vocabulary + 40
    assert counts["num_new_tokens"] == new.vocabulary - base.vocabulary - 1


@pytest.mark.parametrize("document", [CHINESE[0], CHINESE[1], "the cat 家庭 sat 的", "工资 the <|user|> \n x", "新字"])
def test_extension_only_joins_tokens_of_the_base(extended, document):
    base, new, _ = extended
    ends = [{end for _, end in each.encoder.encode(document, add_special_tokens=False).offsets} for each in (base, new)]
    assert ends[1] <= ends[0]
    assert decode(new, ids_of(new, document), keep_special=True) == document
    assert base.vocabulary not in ids_of(new, document)


def test_extension_shortens_new_text_and_leaves_old_text_as_it_was(extended):
    base, new, _ = extended
    assert ids_of(new, ENGLISH[0]) == ids_of(base, ENGLISH[0])
    assert len(ids_of(new, CHINESE[0])) < len(ids_of(base, CHINESE[0])) / 3


def test_extension_every_learnt_token_can_be_reached(extended):
    base, new, _ = extended
    used = {token for document in CHINESE for token in ids_of(new, document)}
    learnt = set(range(base.vocabulary + 1, new.vocabulary))
    reachable = {token for token in learnt if ids_of(new, new.encoder.decode([token])) == [token]}
    # what is not the whole text of a token (part of a character) cannot be spelt alone
    whole = {token for token in learnt if "\ufffd" not in new.encoder.decode([token])}
    assert whole <= reachable
    assert used & learnt


def test_extension_twice_is_the_same_bytes(tmp_path):
    train_tokenizer([text_of(ENGLISH)], TokenizerOptions("byte_bpe", 320), tmp_path / "base")
    for name in "ab":
        extend_tokenizer(tmp_path / "base", [text_of(CHINESE)], 400, tmp_path / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_extension_of_a_base_whose_added_tokens_lie_behind_its_model_keeps_their_ids(tmp_path):
    train_tokenizer([text_of(ENGLISH)], TokenizerOptions("byte_bpe", 320), tmp_path)
    encoder = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    encoder.add_special_tokens(["<|late|>"])
    encoder.save(str(tmp_path / "tokenizer.json"))
    late = encoder.token_to_id("<|late|>")
    extend_tokenizer(tmp_path, [text_of(CHINESE)], 400, tmp_path / "new")
    new = load_tokenizer(tmp_path / "new")
    assert new.encoder.token_to_id("<|late|>") == late
    assert late not in ids_of(new, CHINESE[0])


def test_extension_of_unigram_or_without_room_is_refused(tmp_path, number_tokenizer):
    number_tokenizer.encoder.save(str(tmp_path / "words.json"))
    with pytest.raises(TokenizerError, match="WordLevel tokenizer; only BPE"):
        extend_tokenizer(tmp_path / "words.json", [text_of(CHINESE)], 9000, tmp_path / "new")
    train_tokenizer([text_of(ENGLISH)], TokenizerOptions("byte_bpe", 320), tmp_path / "base")
    with pytest.raises(TokenizerError, match="raise it"):
        extend_tokenizer(tmp_path / "base", [text_of(CHINESE)], 280, tmp_path / "new")


@pytest.mark.parametrize("algorithm", ["byte_bpe", "bpe"])
def test_extension_file_tells_which_base_ids_spelt_each_new_token(tmp_path, algorithm):
    train_tokenizer([text_of(ENGLISH)], TokenizerOptions(algorithm, 320), tmp_path / "base")
    extend_tokenizer(tmp_path / "base", [text_of(CHINESE)], 450, tmp_path / "new", special=("<|user|>",))
    base, new = load_tokenizer(tmp_path / "base"), load_tokenizer(tmp_path / "new")
    record = json.loads((tmp_path / "new" / EXTENSION_FILE).read_text())
    assert (record["base"], record["base_vocabulary"]) == (base.identity, base.vocabulary)
    assert sorted(map(int, record["base_ids"])) == list(range(base.vocabulary + 1, new.vocabulary))
    for token, spelt in record["base_ids"].items():
        assert base.encoder.decode(spelt) == new.encoder.decode([int(token)])
        text = new.encoder.decode([int(token)])
        if "\ufffd" not in text:
            assert ids_of(base, text) == spelt
