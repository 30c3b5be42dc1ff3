import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the `training` extra")

import torch

from training import checkpoint as checkpoints
from training.importing import write_weights
from training.tuning import lora
from training.tuning.adapter import Tuned
from training.tuning.prepare import Preparation, prepare
from training.tuning.tokens import template_of, write_tokenizer

WORDS = ["the", "mill", "grinds", "grain", "into", "flour", "while", "water", "turns", "a", "wheel", "and", "bread"]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A byte-level BPE of 320 ids with one special token, as the recipe's tokenizers are."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    encoder.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def make_tuned(tmp_path, make_model):
    """A model whose updates are far from zero, as a start and a checkpoint of the updates."""

    def make(shape, options):
        model = make_model(shape)
        start = write_weights(dict(model.named_parameters()), shape, tmp_path / "start", {})
        lora.adapt(model, options)
        for _, parameter in checkpoints.trained(model):
            torch.nn.init.normal_(parameter, 0.0, 0.1, generator=torch.Generator().manual_seed(2))
        told = {"step": 1, "position": 1, "tokens": 1, "prefix": {}, "state": {}}
        told["shape"] = checkpoints.shape_entry(shape)
        return Tuned(start, checkpoints.save(tmp_path / "last", model, None, told), options), model

    return make


@pytest.fixture
def write_lines(tmp_path):
    """Write rows as JSONL."""

    def write(rows, name="chat.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def prepared(tmp_path, tokenizer_folder):
    """Prepare files: what was prepared, its folder, and the encoder."""

    def make(path, context=240, template="chatml", choose=None, **options):
        folder = tmp_path / f"prepared-{len(list(tmp_path.glob('prepared-*')))}"
        chosen = template_of(template, tokenizer_folder)
        encoder = write_tokenizer(tokenizer_folder, folder / "tokenizer", chosen)
        sets = path if isinstance(path, dict) else {"chat": path}
        sets = {name: ((str(file),), {}) for name, file in sets.items()}
        return prepare(Preparation(sets, context, **options), chosen, encoder, folder, choose), folder, encoder

    return make


def sentence(generator, low=2, high=9):
    return " ".join(generator.choice(WORDS, generator.integers(low, high)).tolist())


@pytest.fixture
def conversations():
    """Make rows of conversations of a few words."""

    def make(count, seed=0, most_turns=3):
        generator = np.random.default_rng(seed)
        rows = []
        for number in range(count):
            turns = []
            for _ in range(generator.integers(1, most_turns + 1)):
                turns.append({"role": "user", "content": f"{number} {sentence(generator)}?"})
                turns.append({"role": "assistant", "content": sentence(generator)})
            rows.append({"messages": turns})
        return rows

    return make
