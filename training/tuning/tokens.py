"""Conversations as token ids with their answers marked, and the tokenizer that a tuned model brings along. No torch.

An id that is not to be learnt is written -2 - id (`training.step`), so that one array holds both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from mixing.tokenizer import load_tokenizer
from training.tuning.examples import ExamplesError, Turn
from training.tuning.templates import NEW_TOKENS, SOURCES, Rendered, Template, with_system

_CONFIG = "tokenizer_config.json"
_COPIED = ("tokenizer.json", _CONFIG, "special_tokens_map.json")


@dataclass(frozen=True)
class Encoded:
    """A conversation's ids, -2 - id where nothing is learnt, int32.

    Attributes:
        ids: coded ids.
        joined: answers that begin inside a token; generation would begin them otherwise.
    """

    ids: np.ndarray
    joined: int


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that knows the template's special tokens.

    Attributes:
        tokenizer: the library's object; special tokens in text are found.
        special: their texts; a conversation that says one itself is dropped.
        ids: ids of bos, eos and pad, None where there is none.
        vocabulary: rows that an embedding needs.
        new: ids that the base model did not have, with the old ids that spelt them.
    """

    tokenizer: tokenizers.Tokenizer
    special: tuple[str, ...]
    ids: dict[str, int | None]
    vocabulary: int
    new: dict[int, list[int]]


def template_of(word: str, source: Path) -> Template:
    """The template that a recipe names: a word, `own` (the start's tokenizer has it), or a Jinja file.

    Args:
        word: of the recipe.
        source: the start's tokenizer, a folder or its tokenizer.json.

    Raises:
        ExamplesError: if the file is missing, or the tokenizer brings no template.
    """
    special = _special_texts(source)
    if word in SOURCES:
        return Template(word, SOURCES[word], special, NEW_TOKENS.get(word, ()))
    if word == "own":
        text = _config(source).get("chat_template")
        beside = _folder(source) / "chat_template.jinja"
        text = beside.read_text(encoding="utf-8") if text is None and beside.exists() else text
        if not isinstance(text, str):
            raise ExamplesError(f"finetuning.template: own: {source} brings no chat template; name one, such as chatml")
        return Template("own", text, special)
    try:
        return Template(word, Path(word).read_text(encoding="utf-8"), special)
    except OSError as error:
        raise ExamplesError(f"finetuning.template: {word}: {error.strerror}") from error


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _config(source: Path) -> dict[str, object]:
    path = _folder(source) / _CONFIG
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _special_texts(source: Path) -> dict[str, str]:
    loaded = load_tokenizer(source)
    ids = {"bos": loaded.bos, "eos": loaded.eos, "pad": loaded.pad, "unk": loaded.unk}
    return {kind: str(loaded.encoder.id_to_token(at)) for kind, at in ids.items() if at is not None}


def write_tokenizer(source: Path, folder: Path, template: Template, system: str | None = None) -> Encoder:
    """Write the tokenizer of a tuned model: the start's, with the template's special tokens and the template.

    Args:
        source: the start's tokenizer, a folder or its tokenizer.json.
        folder: to write, made if missing.
        template: brings `new_tokens` and becomes `chat_template`.
        system: system turn that the template shall write where a conversation brings none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (_folder(source) / name).exists():
            shutil.copyfile(_folder(source) / name, folder / name)
    if not source.is_dir():
        shutil.copyfile(source, folder / "tokenizer.json")
    plain = load_tokenizer(source)
    known = plain.encoder.get_vocab(with_added_tokens=True)
    missing = [token for token in template.new_tokens if token not in known]
    spelt = {token: plain.encoder.encode(token, add_special_tokens=False).ids for token in missing}
    encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in missing])
    encoder.save(str(folder / "tokenizer.json"), pretty=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **_config(source)}
    config["chat_template"] = with_system(template.source, system)
    config |= {f"{kind}_token": text for kind, text in template.special.items() if kind != "unk"}
    if "pad_token" not in config and "eos_token" in config:
        config["pad_token"] = config["eos_token"]  # so that batches can be generated; what is padded is masked
    written = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / _CONFIG).write_text(written, encoding="utf-8")
    return open_encoder(folder, {token: spelt[token] for token in missing})


def open_encoder(folder: Path, spelt: dict[str, list[int]]) -> Encoder:
    """Open a tokenizer so that special tokens in text are found; `spelt`: new tokens and the old ids of their text."""
    loaded = load_tokenizer(folder)
    encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = False
    added = encoder.get_added_tokens_decoder()
    special = tuple(sorted(token.content for token in added.values() if token.special))
    new = {int(encoder.token_to_id(token)): ids for token, ids in spelt.items()}
    return Encoder(encoder, special, {"bos": loaded.bos, "eos": loaded.eos, "pad": loaded.pad}, loaded.vocabulary, new)


def encode(encoder: Encoder, rendered: Sequence[Rendered], learn_all: bool) -> list[Encoded]:
    """Encode conversations; ids outside answers are not learnt, and a conversation's first one never is.

    A token belongs to an answer if it begins inside it.
    """
    encodings = encoder.tokenizer.encode_batch([one.text for one in rendered], add_special_tokens=False)
    return [_encoded(encoding, one, learn_all) for encoding, one in zip(encodings, rendered)]


def _encoded(encoding: tokenizers.Encoding, rendered: Rendered, learn_all: bool) -> Encoded:
    ids = np.array(encoding.ids, np.int32)
    places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    learnt = np.full(len(ids), learn_all)
    joined = 0
    for start, end in rendered.spans:
        learnt |= (places[:, 0] >= start) & (places[:, 0] < end)
        joined += int(((places[:, 0] < start) & (places[:, 1] > start)).any())
    learnt[:1] = False
    return Encoded(np.where(learnt, ids, -2 - ids), joined)


def stop_id(encoder: Encoder, rendered: Rendered, last_answer: str) -> int | None:
    """The special token that ends an answer, or None where the template writes none."""
    start, end = rendered.spans[-1]
    behind = rendered.text[start:end].rpartition(last_answer.strip())[2]
    found = [(behind.find(token), token) for token in encoder.special if token in behind]
    return int(encoder.tokenizer.token_to_id(min(found)[1])) if found else None


def ask_ids(folder: Path, question: str, system: str | None = None) -> tuple[tokenizers.Tokenizer, list[int]]:
    """The ids of a question in a tuned tokenizer's template, up to where the answer begins; and the tokenizer."""
    template = template_of("own", folder)
    encoder = open_encoder(folder, {}).tokenizer
    turns = [*([Turn("system", system)] if system else []), Turn("user", question)]
    return encoder, list(encoder.encode(template.text_of(turns, ask=True), add_special_tokens=False).ids)
