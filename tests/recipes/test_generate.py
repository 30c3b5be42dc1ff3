"""What stands before a prompt, and how a continuation is written behind it."""

import pytest
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers

from mixing.config import Sequences
from mixing.tokenizer import Tokenizer
from recipes.cli.generate import _beginning, _continued


@pytest.fixture
def tokenizer():
    """Words that begin with a space, as Llama's tokenizers spell them."""
    words = ["<unk>", "<s>", "</s>", "▁Die", "▁Mühle", "▁steht"]
    encoder = Encoder(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    encoder.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder.decoder = decoders.Metaspace()
    return Tokenizer(encoder, len(words), 1, 2, None, 0, "made")


def test_continuation_keeps_the_space_that_it_begins_with(tokenizer):
    given = tokenizer.encoder.encode("Die Mühle", add_special_tokens=False).ids
    assert "Die Mühle" + _continued(tokenizer, given, [5]) == "Die Mühle steht"
    assert _continued(tokenizer, [], [3, 4]) == "Die Mühle"


@pytest.mark.parametrize(
    ("sequences", "prompted", "ids"),
    [
        ({}, True, [2]),  # the end of the document before: the begin token never stood in any sequence
        ({"bos": True}, True, [1]),
        ({"document_masks": True}, True, []),  # nothing is seen from inside a document but itself
        ({"document_masks": True}, False, [2]),
        ({"eos": False}, True, []),
    ],
)
def test_prompt_begins_with_what_began_documents_in_training(tokenizer, sequences, prompted, ids):
    assert _beginning(Sequences(**sequences), tokenizer, prompted) == ids
