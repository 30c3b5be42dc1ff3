"""Extend a BPE tokenizer by new ids: what it knew keeps its id, and new tokens are joined from old ones.

Byte-pair encoding is simply trained on: text is encoded by the base tokenizer, each of its tokens becomes one symbol,
and further merges are learnt over those. They rank behind all merges of the base, so encoding gives the base's tokens,
some of them joined: no token boundary appears that was not there, and every learnt token can be reached. A base of
characters with byte fallback first gets the frequent characters it lacks.

This is how an English model learns Chinese without losing its embeddings (MindLLM-1.3B from GPT-Neo, arXiv:2310.15777).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from mixing.text_passes import TextPasses, count_characters
from mixing.tokenizer import Tokenizer, TokenizerError, load_tokenizer
from mixing.tokenizer_files import SETTINGS, TEMPLATES, copy_whole, files_beside

EXTENSION_FILE = "extension.json"
"""Beside an extended tokenizer: `base_vocabulary`, `base` (identity), `vocabulary`, and `base_ids`, which tells for
each new id the base's ids that spelt it before. A model of the base keeps its embeddings of ids below `base_vocabulary`
and begins the new ones from the mean of those of `base_ids`; special tokens that were added are not in it."""

_FIRST_SYMBOL = 0x10000  # code points from here on are none of the white space that words are cut at
_LONGEST = 16  # base tokens joined in one token
_CALL_DOCUMENTS = 64


def extend_tokenizer(
    base: str | Path,
    text: Iterable[pa.Array],
    vocabulary: int,
    path: str | Path,
    *,
    special: tuple[str, ...] = (),
    coverage: float = 0.9995,
) -> dict[str, int]:
    """Train new tokens on text, append them to a base tokenizer and write the result as a folder.

    Memory grows with the number of different words of the text.

    Args:
        base: BPE tokenizer, a folder or a `tokenizer.json`.
        text: large_string arrays; nulls are left out.
        vocabulary: ids in all, those of the base and of `special` included; fewer if the text has too few pairs.
        path: folder, made if missing.
        special: names of new special tokens; they get the first new ids.
        coverage: share of the text's characters that have a token afterwards, where the base is not one of bytes.

    Returns:
        base_vocabulary, vocabulary, num_new_tokens (num_new_characters among them), num_new_merges. `EXTENSION_FILE` in
        the folder tells which base ids spelt each new one.

    Raises:
        TokenizerError: if the base is not BPE or has as many ids already.
    """
    tokenizer = load_tokenizer(base)
    stored = _base_model(tokenizer, base)
    first_new = tokenizer.vocabulary + len(special)
    if vocabulary <= first_new:
        raise TokenizerError(
            f"vocabulary {vocabulary}: {base} and special tokens have {first_new} ids already; raise it"
        )
    # Added tokens keep their ids only where the model has them too: the library numbers the others anew.
    known = tokenizer.encoder.get_vocab(with_added_tokens=True)
    known |= {name: tokenizer.vocabulary + number for number, name in enumerate(special)}
    stored["model"]["vocab"] = known
    stored["added_tokens"] += [_added(name, known[name]) for name in special]
    with tempfile.TemporaryDirectory() as spool:
        passes = TextPasses(text, Path(spool))
        characters = _lacking_characters(stored, passes.documents(), coverage)[: vocabulary - first_new]
        known |= {character: first_new + number for number, character in enumerate(characters)}
        room = vocabulary - first_new - len(characters)
        learnt = _learnt_merges(_encoder(stored), passes.documents(), room) if room else []
    merges, names = _named(learnt, {token: name for name, token in known.items()}, room)
    first = first_new + len(characters)
    known |= {name: first + number for number, name in enumerate(names)}
    stored["model"]["merges"] = [*_pairs(stored["model"]["merges"]), *merges]
    _write(stored, Path(base), Path(path))
    spelt = _base_ids(merges, known, {name: _bytes_of(name, known) for name in characters})
    record = {"base_vocabulary": tokenizer.vocabulary, "base": tokenizer.identity, "vocabulary": first + len(names)}
    record["base_ids"] = {known[name]: spelt[name] for name in [*characters, *names]}
    (Path(path) / EXTENSION_FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return {
        "base_vocabulary": tokenizer.vocabulary,
        "vocabulary": first + len(names),
        "num_new_tokens": len(characters) + len(names),
        "num_new_characters": len(characters),
        "num_new_merges": len(merges),
    }


def _base_model(tokenizer: Tokenizer, base: str | Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(tokenizer.encoder.to_str())
    if stored["model"]["type"] != "BPE":
        raise TokenizerError(f"{base}: a {stored['model']['type']} tokenizer; only BPE can be trained on")
    return stored


def _encoder(stored: dict[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a stored form; the ids it was given must be those it uses."""
    encoder = tokenizers.Tokenizer.from_str(json.dumps(stored))
    found = encoder.get_vocab(with_added_tokens=True)
    moved = [name for name, token in stored["model"]["vocab"].items() if found.get(name) != token]
    if moved:
        raise TokenizerError(
            f"{len(moved)} tokens would change their ids, such as {moved[0]!r}: the base is inconsistent"
        )
    encoder.encode_special_tokens = True
    return encoder


def _lacking_characters(stored: dict[str, Any], documents: Iterable[str], coverage: float) -> list[str]:
    """Characters without a token that are needed to cover the text; none where the base spells in bytes."""
    if '"ByteLevel"' in json.dumps(stored["pre_tokenizer"]):
        return []
    counts = count_characters(documents)
    reached, lacking, enough = 0, [], coverage * sum(counts.values())
    for character, count in counts.items():
        if reached >= enough:
            break
        reached += count
        if character not in stored["model"]["vocab"] and not character.isspace():
            lacking.append(character)
    return lacking


def _learnt_merges(encoder: tokenizers.Tokenizer, documents: Iterable[str], number: int) -> list[list[str]]:
    """Merges over symbols of base tokens, in the order they were learnt."""
    vocabulary = max(encoder.get_vocab(with_added_tokens=True).values()) + 1
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary + number,
        min_frequency=2,
        initial_alphabet=[chr(_FIRST_SYMBOL + token) for token in range(vocabulary)],
        max_token_length=_LONGEST,
        show_progress=False,
    )
    trained.train_from_iterator(_symbols(encoder, documents), trainer)
    return _pairs(json.loads(trained.to_str())["model"]["merges"])


def _symbols(encoder: tokenizers.Tokenizer, documents: Iterable[str]) -> Iterator[str]:
    """Documents as base tokens, a symbol each; a space where a word of the base ends, and in place of fixed tokens."""
    fixed = set(encoder.get_added_tokens_decoder())
    fixed |= {token for name, token in encoder.get_vocab().items() if name.startswith("<0x") and len(name) == 6}
    remaining = iter(documents)
    while batch := list(islice(remaining, _CALL_DOCUMENTS)):
        for encoding in encoder.encode_batch(batch, add_special_tokens=False):
            yield _spelt(encoding, fixed)


def _spelt(encoding: tokenizers.Encoding, fixed: set[int]) -> str:
    symbols, before = [], None
    for token, word in zip(encoding.ids, encoding.word_ids):
        if word != before:
            symbols.append(" ")
            before = word
        symbols.append(" " if token in fixed else chr(_FIRST_SYMBOL + token))
    return "".join(symbols)


def _named(learnt: list[list[str]], names: dict[int, str], number: int) -> tuple[list[list[str]], list[str]]:
    """Learnt merges in the base's spelling, each once, and the new names in order.

    Two base tokens may join to the spelling of a third: the merge then leads to that one's id.
    """
    known, new_names = set(names.values()), list[str]()
    merges: dict[tuple[str, str], bool] = {}
    for pair in learnt:
        left, right = ("".join(names[ord(symbol) - _FIRST_SYMBOL] for symbol in side) for side in pair)
        if left not in known or right not in known:
            continue
        if left + right not in known:
            if len(new_names) == number:
                break
            known.add(left + right)
            new_names.append(left + right)
        merges[left, right] = True
    return [list(pair) for pair in merges], new_names


def _base_ids(merges: list[list[str]], known: dict[str, int], characters: dict[str, list[int]]) -> dict[str, list[int]]:
    """Base ids that spell each new name: those of the two sides of the merge that first led to it."""
    spelt = dict(characters)
    for left, right in merges:
        if left + right not in spelt:
            spelt[left + right] = [token for side in (left, right) for token in spelt.get(side, [known[side]])]
    return spelt


def _bytes_of(character: str, known: dict[str, int]) -> list[int]:
    """Byte tokens of a character, those that the base has."""
    return [known[name] for name in (f"<0x{byte:02X}>" for byte in character.encode()) if name in known]


def _pairs(merges: list[Any]) -> list[list[str]]:
    """Merges as pairs; older files write `left right`."""
    return [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in merges]


def _added(name: str, token: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": name, "special": True} | flags


def _write(stored: dict[str, Any], base: Path, folder: Path) -> None:
    """Write the tokenizer, and the base's special tokens and templates beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_encoder(stored).to_str(pretty=True), encoding="utf-8")
    for path, name in files_beside(base, (*SETTINGS, *TEMPLATES)):  # other files list the base's tokens alone
        copy_whole(path, folder / name)
