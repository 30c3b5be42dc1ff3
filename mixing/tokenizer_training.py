"""Train a tokenizer: byte-level BPE, BPE with byte fallback, or unigram; same text, same bytes.

All three cut text into words by one pattern (`word_pattern`), lose nothing on the way back (bpe and unigram write a
space as U+2581, so a U+2581 in the text comes back as a space: `mixing.tokenizer_report` counts it), and never put a
special token where text merely looks like one.

Traps closed here (tokenizers 0.23): its BPE trainer breaks ties in `limit_alphabet` by hash order and its unigram
trainer sums in hash order, so both differ from run to run; our alphabet is counted and ordered here, and unigram is
trained by SentencePiece on one thread. "byte_fallback" without the 256 byte tokens in the vocabulary silently loses
characters (the published LLaMmlein tokenizer): they are always there.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from mixing.config import SPECIAL_TOKENS
from mixing.text_passes import TextPasses, count_characters
from mixing.tokenizer import TokenizerError

Algorithm = Literal["byte_bpe", "bpe", "unigram"]
Digits = Literal["single", "three", "free"]

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_DIGITS = {"single": r"\p{N}", "three": r"\p{N}{1,3}", "free": r" ?\p{N}+"}
_NO_TEXT = "no text to train a tokenizer on; look at `tokenizer.text` and at what the steps kept"
_SPACE = "▁"
_BYTE_TOKENS = frozenset(_BYTES)
_LONGEST_WORD = 64
_LINE_OR_TAB = re.compile(r"[\r\n\t]")


@dataclass(frozen=True)
class TokenizerOptions:
    """What is trained.

    Attributes:
        algorithm: byte_bpe (GPT-2's alphabet of bytes), bpe (characters, bytes for rare ones) or unigram.
        vocabulary: tokens in all, special and byte tokens included; less only if the text has too few.
        digits: single (default: equal numbers get equal tokens), three (up to) together, or free: as learnt.
        special: names of further special tokens (chat markers …), which get the ids after bos, eos, pad and unk.
        coverage: share of the text's characters that get a token of their own (bpe, unigram); SentencePiece's default.
        longest: most characters (byte_bpe: bytes) of a token: a German compound fits, a line of boilerplate does not.
    """

    algorithm: Algorithm = "byte_bpe"
    vocabulary: int = 32_000
    digits: Digits = "single"
    special: tuple[str, ...] = ()
    coverage: float = 0.9995
    longest: int = 32

    def special_names(self) -> dict[str, str]:
        """Names of bos, eos, pad and (unless byte_bpe) unk."""
        return SPECIAL_TOKENS[self.algorithm]

    def special_tokens(self) -> list[str]:
        """All special tokens in the order of their ids."""
        return list(dict.fromkeys([*self.special_names().values(), *self.special]))

    def check(self) -> None:
        """Refuse a vocabulary that cannot hold special and byte tokens."""
        if self.algorithm not in SPECIAL_TOKENS:
            raise TokenizerError(f"algorithm {self.algorithm!r}: choose one of {', '.join(SPECIAL_TOKENS)}")
        needed = len(self.special_tokens()) + 256
        if self.vocabulary <= needed:
            raise TokenizerError(
                f"vocabulary {self.vocabulary}: {needed} special and byte tokens leave no room; raise it"
            )


def word_pattern(digits: Digits) -> str:
    """Pattern whose matches are the words that tokens never cross, in Oniguruma's syntax.

    Letters with their marks (Han apart from other scripts, so `Python写` is two words), digits by rule, runs of other
    symbols, each with one leading space (but Han and single digits); line ends; spaces, the last left to the next word.
    """
    return "|".join(
        (
            r" ?[\p{L}\p{M}&&[^\p{Han}]]+",
            r"\p{Han}+",
            _DIGITS[digits],
            r" ?[^\s\p{L}\p{M}\p{N}]+",
            r"[\r\n]+",
            r"[^\S\r\n]+(?=[^\S\r\n])",
            r"\s",
        )
    )


def train_tokenizer(text: Iterable[pa.Array], options: TokenizerOptions, path: str | Path) -> dict[str, int]:
    """Train a tokenizer and write `tokenizer.json` and `tokenizer_config.json` into the folder `path`.

    Memory grows with the number of different words of the text (byte_bpe, bpe) or with the text (unigram); choose the
    amount by `mixing.tokenizer_text.take_text`. One-shot iterators are spooled to a temporary file for bpe, which reads
    twice.

    Args:
        text: large_string arrays, already weighted by domain; nulls are left out.
        options: what is trained.
        path: folder, made if missing.

    Returns:
        num_documents, size_bytes, vocabulary, and num_dropped_characters (different ones left to bytes).

    Raises:
        TokenizerError: if there is no text or the vocabulary is too small.
    """
    options.check()
    train = {"byte_bpe": _train_byte_bpe, "bpe": _train_bpe, "unigram": _train_unigram}[options.algorithm]
    with tempfile.TemporaryDirectory() as spool:
        passes = TextPasses(text, Path(spool))
        encoder, dropped = train(passes, options)
    if not passes.num_documents:
        raise TokenizerError(_NO_TEXT)
    write_tokenizer(encoder, options.special_names(), path)
    vocabulary = encoder.get_vocab_size(with_added_tokens=True)
    return {
        "num_documents": passes.num_documents,
        "size_bytes": passes.size_bytes,
        "vocabulary": vocabulary,
        "num_dropped_characters": dropped,
    }


def write_tokenizer(encoder: tokenizers.Tokenizer, special: dict[str, str], path: str | Path) -> None:
    """Write `tokenizer.json` and a `tokenizer_config.json` that transformers loads as PreTrainedTokenizerFast."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {f"{kind}_token": name for kind, name in special.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer.json").write_text(encoder.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _train_byte_bpe(text: TextPasses, options: TokenizerOptions) -> tuple[tokenizers.Tokenizer, int]:
    encoder = tokenizers.Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(word_pattern(options.digits)), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocabulary,
        min_frequency=2,
        special_tokens=options.special_tokens(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=options.longest,
        show_progress=False,
    )
    encoder.train_from_iterator(text.documents(), trainer)
    return encoder, 0


def _train_bpe(text: TextPasses, options: TokenizerOptions) -> tuple[tokenizers.Tokenizer, int]:
    alphabet, rare = _alphabet(text.documents(), options)
    encoder = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    _spaced(encoder, options)
    special = options.special_tokens()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocabulary,
        min_frequency=2,
        special_tokens=[*special, *_BYTES],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=options.longest,
        show_progress=False,
    )
    # A rare character becomes a line end while training: its neighbours must not merge across it.
    cut = dict.fromkeys(map(ord, rare), "\n")
    encoder.train_from_iterator((document.translate(cut) for document in text.documents()), trainer)
    return _without_special_bytes(encoder), len(rare)


def _train_unigram(text: TextPasses, options: TokenizerOptions) -> tuple[tokenizers.Tokenizer, int]:
    words = _counted_words(text.documents(), options)
    if not words:
        raise TokenizerError(_NO_TEXT)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(f"{word}\t{count}" for word, count in words),
            model_writer=model,
            **_sentencepiece_options(options),
        )
    except RuntimeError as error:
        raise TokenizerError(f"SentencePiece could not train {options.vocabulary} pieces: {error}") from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(trained.id_to_piece(piece), trained.get_score(piece)) for piece in range(trained.get_piece_size())]
    encoder = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    _spaced(encoder, options)
    encoder.add_special_tokens(options.special_tokens())
    characters = {character for word, _ in words for character in word}
    return encoder, len(characters - {piece for piece, _ in pieces} - {" "})


def _sentencepiece_options(options: TokenizerOptions) -> dict[str, Any]:
    """SentencePiece on one thread, without normalisation, on words that are cut and counted already."""
    return {
        "model_type": "unigram",
        "input_format": "tsv",
        "vocab_size": options.vocabulary,
        "hard_vocab_limit": False,
        "character_coverage": options.coverage,
        "required_chars": "\t\n",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_by_unicode_script": False,
        "split_by_number": False,
        "max_sentencepiece_length": options.longest,
        "max_sentence_length": 1 << 20,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": 3,
        "unk_piece": "<unk>",
        "control_symbols": list(options.special),
        "num_threads": 1,
        "minloglevel": 2,
    }


def _counted_words(documents: Iterable[str], options: TokenizerOptions) -> list[tuple[str, int]]:
    """Different words and how often each occurs, the most frequent first, ties by word; line ends and tabs left out."""
    words = pre_tokenizers.Split(Regex(word_pattern(options.digits)), "isolated")
    counts: Counter[str] = Counter()
    for document in documents:
        for word, _ in words.pre_tokenize_str(document):
            # SentencePiece takes quadratic time in a word's length; pieces are shorter than this anyway
            counts.update(word[i : i + _LONGEST_WORD] for i in range(0, len(word), _LONGEST_WORD))
    return sorted(
        ((word, count) for word, count in counts.items() if not _LINE_OR_TAB.search(word)),
        key=lambda counted: (-counted[1], counted[0]),
    )


def _alphabet(documents: Iterable[str], options: TokenizerOptions) -> tuple[list[str], list[str]]:
    """Characters that get a token of their own (`coverage` of the text), and the rest; by count, ties by code point."""
    counts = count_characters(document.replace(" ", _SPACE) for document in documents)
    covered = np.cumsum(list(counts.values()))
    enough = 1 + int(np.searchsorted(covered, options.coverage * covered[-1])) if counts else 0
    kept = min(enough, options.vocabulary - 256 - len(options.special_tokens()))
    ranked = list(counts)
    return ranked[:kept], ranked[kept:]


def _spaced(encoder: tokenizers.Tokenizer, options: TokenizerOptions) -> None:
    """Cut words, then write a space as U+2581; nothing is put before the first word, so text comes back as it was."""
    words = pre_tokenizers.Split(Regex(word_pattern(options.digits)), "isolated")
    spaces = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never", split=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([words, spaces])
    encoder.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])


def _without_special_bytes(encoder: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Make the byte tokens ordinary again, and drop merges that would spell one.

    The trainer takes fixed tokens only as special ones; special, they would be left out when text is decoded.
    """
    stored = json.loads(encoder.to_str())
    stored["added_tokens"] = [token for token in stored["added_tokens"] if token["content"] not in _BYTE_TOKENS]
    fixed = _BYTE_TOKENS | {token["content"] for token in stored["added_tokens"]}
    stored["model"]["merges"] = [pair for pair in stored["model"]["merges"] if "".join(pair) not in fixed]
    return tokenizers.Tokenizer.from_str(json.dumps(stored))
