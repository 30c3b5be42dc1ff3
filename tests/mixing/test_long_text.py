from __future__ import annotations

import random

import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mixing.long_text import Cut, encode_long
from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer

WORDS = [
    "das",
    "Haus",
    "Straße",
    "最低生活",
    "保障。",
    "return x",
    "1950",
    "\n\n",
    "  ",
    "👩‍🌾",
    "don't",
    "aaaaaaaaaaaaaaaa",
    "\t",
]
CUT = Cut(piece=150, context=60, agreed=20)


def made_text(seed: int, number: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(WORDS) + chance.choice(["", " ", " ", "\n"]) for _ in range(number))


def made_llama() -> tokenizers.Tokenizer:
    """As Llama 2: a space is put before the text, and words are not cut."""
    encoder = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    encoder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    encoder.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    encoder.train_from_iterator(
        [made_text(1, 500)], trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    )
    encoder.pre_tokenizer = None
    encoder.decoder = decoders.Fuse()
    return encoder


def made_gpt2() -> tokenizers.Tokenizer:
    """As GPT-2: the post-processor trims spaces from offsets."""
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    encoder.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    encoder.train_from_iterator(
        [made_text(1, 500)], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return encoder


@pytest.fixture(scope="module", params=["byte_bpe", "bpe", "unigram", "llama", "gpt2"])
def encoder(request, tmp_path_factory):
    if request.param == "llama":
        return made_llama()
    if request.param == "gpt2":
        return made_gpt2()
    folder = tmp_path_factory.mktemp(request.param)
    text = [pa.array([made_text(1, 500)] * 3, pa.large_string())]
    train_tokenizer(text, TokenizerOptions(request.param, 330), folder)
    return load_tokenizer(folder).encoder


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 300))
def test_long_text_in_pieces_equals_at_once(encoder, seed, number):
    document = made_text(seed, number)
    assert encode_long(encoder, document, CUT).tolist() == encoder.encode(document, add_special_tokens=False).ids


def test_long_text_is_really_cut(encoder):
    class Counting:
        longest = 0

        def encode(self, text, **options):
            self.longest = max(self.longest, len(text))
            return encoder.encode(text, **options)

    counting = Counting()
    encode_long(counting, made_text(5, 2000), CUT)
    assert counting.longest <= CUT.piece + 2 * CUT.context


@pytest.mark.parametrize("document", ["a" * 5000, "中" * 5000, " " * 5000, "\n" * 5000])
def test_long_text_without_boundaries_equals_at_once(encoder, document):
    assert encode_long(encoder, document, CUT).tolist() == encoder.encode(document, add_special_tokens=False).ids
