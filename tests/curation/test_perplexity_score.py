import math
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.perplexity.model import ModelError, open_model
from curation.perplexity.normalize import ccnet_plain
from curation.perplexity.pieces import PiecesError, SentencePieces, load_pieces, sample_lines, train_pieces
from curation.perplexity.score import line_perplexity, load_scorer, share_above
from curation.perplexity.training import Training, train_model

DATA = os.environ.get("GRISTMILL_TEST_DATA")
NOUNS = ["haus", "baum", "garten", "straße", "mühle", "wasser", "brot", "könig", "kind", "katze", "hund", "fenster"]
VERBS = ["steht", "liegt", "sieht", "findet", "sucht", "trägt"]


def made_up_texts(count, seed=0):
    """German-like documents of several lines."""
    draw = random.Random(seed)

    def sentence():
        return f"Das {draw.choice(NOUNS)} {draw.choice(VERBS)} den alten {draw.choice(NOUNS)} {draw.randint(1, 99)}."

    return ["\n".join(sentence() for _ in range(draw.randint(1, 6))) for _ in range(count)]


def texts(*values):
    return pa.array(values, pa.large_string())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_model([texts(*made_up_texts(200))], Training(order=4, pieces=400, arpa=True, language="de"), folder)
    return folder


def kenlm_perplexity(folder, text):
    """CCNet's formula with the packages' own functions."""
    import kenlm
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    line = " ".join(pieces.encode_as_pieces(ccnet_plain(text)))
    score = kenlm.Model(str(folder / "model.arpa")).score(line)
    return round(10.0 ** (-score / (len(line.split()) + 1)), 1)


def test_score_ccnet_equals_the_packages_for_both_kinds_of_model(folder):
    documents = [*made_up_texts(20, seed=1), "Völlig andere Wörter: Xylophon!", "漢字だけ", "ⅷ ½ ﬁ x\u0301 각"]
    own = load_scorer(folder, scoring="ccnet").score(texts(*documents)).to_pylist()
    foreign = load_scorer(folder / "model.arpa", folder / "pieces.model", "ccnet").score(texts(*documents)).to_pylist()
    assert own == foreign == [kenlm_perplexity(folder, text) for text in documents]


def plain_log10(grams, tokens, order):
    """Sum of log10 P of tokens with <s> and </s> by the definition of backing off, no n-gram longer than order."""

    def probability(context, token):
        if (*context, token) in grams:
            return grams[*context, token][0]
        return grams.get(context, (0, 0.0))[1] + probability(context[1:], token)

    line = ["<s>", *tokens, "</s>"]
    return sum(probability(tuple(line[max(0, i - order + 1) : i]), line[i]) for i in range(1, len(line)))


@pytest.mark.parametrize("longest", [1, 2, 3, 4])
def test_score_shorter_n_grams_equal_the_definition(folder, longest):
    grams = {}
    for line in (folder / "model.arpa").read_text("utf-8").split("\n"):
        if line.count("\t"):
            probability, words, *backoff = line.split("\t")
            grams[tuple(words.split(" "))] = (float(probability), float(backoff[0]) if backoff else 0.0)
    scorer = load_scorer(folder, scoring="lines", longest=longest)
    lines = [*" ".join(made_up_texts(30, seed=4)).lower().split("."), "xylophon", "das " * 200]
    pieces = load_pieces(folder / "pieces.model").processor
    found = scorer.score_lines(texts("\n".join(lines))).log10_probability
    normal = [line.strip() for line in lines if line.strip()]
    expected = [
        plain_log10(grams, [p if (p,) in grams else "<unk>" for p in pieces.encode_as_pieces(line)], longest)
        for line in ("".join("0" if c.isdigit() else c for c in line) for line in normal)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_score_lines_weighs_lines_by_their_tokens(folder):
    scorer = load_scorer(folder, scoring="lines")
    document = "Das Haus steht den alten Baum 7.\n\nxq"
    both = scorer.score_lines(texts(document))
    expected = 10 ** (-both.log10_probability.sum() / both.num_tokens.sum())
    assert scorer.score(texts(document)).to_pylist() == pytest.approx([expected])
    assert len(both.num_tokens) == 2
    one, other = line_perplexity(both)
    assert one < expected < other
    assert share_above(both, expected).to_pylist() == [0.5]
    assert share_above(scorer.score_lines(texts(None, "")), 1.0).to_pylist() == [None, None]


@pytest.mark.parametrize("scoring", ["ccnet", "lines"])
def test_score_nothing_to_score_is_null(folder, scoring):
    documents = texts(None, "", " \n\t\u3000", "\x07", "a")
    for model, pieces in ((folder, None), (folder / "model.arpa", folder / "pieces.model")):
        scored = load_scorer(model, pieces, scoring).score(documents)
        assert scored.to_pylist()[:4] == [None] * 4
        assert 1 <= scored[4].as_py() < 1e9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=4))
def test_score_any_text_is_finite_or_null(folder, values):
    for scoring in ("ccnet", "lines"):
        scored = load_scorer(folder, scoring=scoring).score(texts(*values)).to_pylist()
        assert len(scored) == len(values)
        assert all(value is None or (math.isfinite(value) and value >= 1) for value in scored)


def test_score_unseen_script_is_worse_than_the_models_language(folder):
    german, thai, chinese = (
        load_scorer(folder, scoring="lines")
        .score(texts("Das Kind sucht den alten Hund 4.", "สวัสดีชาวโลก ไทย", "今天天气很好。我们去公园。"))
        .to_pylist()
    )
    assert german < 20 < thai
    assert german < 20 < chinese


@pytest.mark.parametrize("pieces", [60, "words"])
def test_train_model_on_one_word_scores_every_text(tmp_path, pieces):
    card = train_model([texts("wort")], Training(order=5, pieces=pieces), tmp_path)
    assert card["training_text"]["documents"] == card["sentences"] == 1
    known, other, script = load_scorer(tmp_path, scoring="lines").score(texts("wort", "something", "漢字")).to_pylist()
    assert 1 <= known < min(other, script)
    assert max(other, script) <= 1e9


def test_score_damaged_arrays_of_the_right_size_give_no_nan_and_fail_the_check(folder, tmp_path):
    damaged = damage(folder, tmp_path / "m", "unigrams.bin", lambda raw: b"\xff" * len(raw))
    scorer = load_scorer(damaged, scoring="lines")
    assert scorer.score(texts("Das Haus steht.", "xyz")).to_pylist() == [1e9, 1e9]
    with pytest.raises(ModelError, match="do not match the hash"):
        open_model(damaged, verify=True)


def test_score_line_of_ten_megabytes_is_scored(folder):
    line = "Das Haus steht den alten Baum 7. " * 310_000
    short = load_scorer(folder, scoring="lines").score(texts(line[:33_000])).to_pylist()[0]
    long = load_scorer(folder, scoring="lines").score(texts(line)).to_pylist()[0]
    assert len(line) > 10_000_000
    assert long == pytest.approx(short, rel=0.01)


def test_scorer_pickled_scores_the_same_and_slices_are_read_rightly(folder):
    scorer = load_scorer(folder, scoring="lines")
    documents = texts(*made_up_texts(10, seed=2))
    again = pickle.loads(pickle.dumps(scorer))
    assert again._opened == []
    assert again.score(documents[3:7]).to_pylist() == scorer.score(documents).to_pylist()[3:7]


def damage(source, target, name, change):
    shutil.copytree(source, target)
    (target / name).write_bytes(change((target / name).read_bytes()))
    return target


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("nodes.bin", lambda raw: raw[:-5], "nodes.bin: .* bytes, .* expected"),
        ("model.json", lambda raw: raw[:40], "not JSON"),
        ("model.json", lambda raw: raw.replace(b'"format": 2', b'"format": 99'), "format 99"),
        ("pieces.model", lambda raw: raw[:100], "not a SentencePiece model"),
    ],
)
def test_load_scorer_damaged_folder_is_named(folder, tmp_path, name, change, message):
    with pytest.raises((ModelError, PiecesError), match=message):
        load_scorer(damage(folder, tmp_path / "m", name, change))


@pytest.mark.parametrize(
    "content", [b"", b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\tx\n", b"mmap lm http://kheafield.com" * 9]
)
def test_load_scorer_corrupt_foreign_model_is_named(folder, tmp_path, content):
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="kenlm cannot read"):
        load_scorer(path, folder / "pieces.model")


def test_load_scorer_missing_things_are_named(folder, tmp_path):
    with pytest.raises(ModelError, match="no such model file"):
        load_scorer(tmp_path / "nowhere.bin", folder / "pieces.model")
    with pytest.raises(ModelError, match="needs its pieces"):
        load_scorer(folder / "model.arpa")
    with pytest.raises(ModelError, match="trained on pieces"):
        load_scorer(folder, "words")
    with pytest.raises(PiecesError, match="no such file"):
        load_pieces(tmp_path / "nothing.model")


def test_train_model_card_tells_what_was_trained(folder):
    from curation.perplexity.model import read_card

    card = read_card(folder)
    assert card["training_text"]["documents"] == 200
    assert card["training_text"]["lines"] == card["sentences"]
    assert len(card["sha256"]) == 64
    assert card["pieces"]["made"] <= 400
    assert card["language"] == "de"


def test_train_model_twice_gives_the_same_bytes(folder, tmp_path):
    parts = (texts(text) for text in made_up_texts(200))  # cut otherwise, and from an iterator
    train_model(parts, Training(order=4, pieces=400, arpa=True, language="de"), tmp_path)
    for path in sorted(folder.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_train_model_on_a_tokenizer_of_ours_scores(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(made_up_texts(50), trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    options = Training(order=3, pieces=str(tmp_path / "tokenizer.json"), arpa=True)
    train_model([texts(*made_up_texts(200))], options, tmp_path / "model")
    documents = texts("Das Haus steht den alten Baum 7.", "xyz 漢字")
    easy, hard = load_scorer(tmp_path / "model", scoring="lines").score(documents).to_pylist()
    assert easy < hard
    foreign = load_scorer(tmp_path / "model" / "model.arpa", tmp_path / "tokenizer.json", "lines").score(documents)
    assert foreign.to_pylist() == pytest.approx([easy, hard], rel=1e-5)


# ---------------------------------------------------------------- pieces


CHARACTERS = st.characters(codec="utf-8") | st.sampled_from("das haus  ▁\u0301ⅷ가각")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("das haus  ▁\u0301ⅷ가각"), max_size=80), max_size=4)
)
def test_pieces_kernel_equals_sentencepiece(folder, values):
    pieces = load_pieces(folder / "pieces.model")
    assert isinstance(pieces, SentencePieces)
    assert pieces._kernel is not None
    expected = pieces.processor.encode(values, return_type=str) if values else []
    strings, counts = pieces.sentences(texts(*values))
    assert strings == [" ".join(line) for line in expected]
    assert counts.tolist() == [len(line) for line in expected]
    ids = pieces.encode(texts(*values))
    assert np.diff(ids.offsets).tolist() == [len(pieces.processor.encode(value)) for value in values]


@pytest.mark.skipif(not DATA, reason="GRISTMILL_TEST_DATA is not set")
@pytest.mark.shared_data
def test_pieces_kernel_equals_sentencepiece_on_real_text(tmp_path):
    def lines_of(name, count):
        table = pq.read_table(Path(DATA) / "text" / f"{name}.parquet", columns=["text"])
        return pa.array([text[:12_000] for text in table.column("text").to_pylist()[:count]], pa.large_string())

    train_pieces([lines_of("de_kids", 60), lines_of("zh_wiki", 40)], 6000, tmp_path / "p.model")
    pieces = load_pieces(tmp_path / "p.model")
    for name in ("de_kids", "zh_wiki", "en_math", "code_python"):
        documents = lines_of(name, 150)
        expected = pieces.processor.encode(documents.to_pylist(), return_type=str)
        assert pieces.sentences(documents)[0] == [" ".join(line) for line in expected]


def test_pieces_long_and_short_texts_keep_their_order(folder):
    pieces = load_pieces(folder / "pieces.model")
    values = ["das haus", "katze " * 5000, "", "hund"]
    strings, counts = pieces.sentences(texts(*values))
    assert strings == [" ".join(line) for line in pieces.processor.encode(values, return_type=str)]
    assert counts[2] == 0


def test_sample_lines_does_not_depend_on_how_text_is_cut():
    lines = [f"zeile {i}" for i in range(500)]
    whole, offered = sample_lines([texts(*lines)], 1000)
    parts, _ = sample_lines([texts(line) for line in lines], 1000)
    assert whole == parts
    assert offered == sum(map(len, lines))
    assert 300 < sum(map(len, whole)) <= 1000
    assert sample_lines([texts(*lines)], 1 << 20)[0] == lines


def test_sample_lines_of_copies_alone_holds_each_content_once():
    copies = ["impressum und datenschutz", "alle rechte vorbehalten", "weiter zur startseite"]
    assert sample_lines([texts(*copies * 50)], 100)[0] == copies
    assert len(sample_lines([texts(*copies * 50)], 20)[0]) == 1


def test_train_pieces_learns_from_lines_that_sentencepiece_passes_over(tmp_path):
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(300)]
    long = " ".join(draw.choices(words, k=190_000))
    made = train_pieces([texts(long, *["zzz yyy xxx"] * 40)], 400, tmp_path / "p.model")
    letters = set("".join(SentencePieces(tmp_path / "p.model").strings()))
    assert set("abcdefghij") <= letters
    assert made["bytes_offered"] == made["bytes_used"] == len(long) + 40 * len("zzz yyy xxx")
    whole, _ = sample_lines([texts(long, "長" * 400_000)], 1 << 24)
    assert "".join(whole) == long + "長" * 400_000
    assert all(len(line.encode()) <= 1 << 19 for line in whole)
    assert set(" ".join(whole).replace("長", "").split()) == set(words)


def test_train_pieces_small_text_gets_few_pieces_and_no_text_none(tmp_path):
    made = train_pieces([texts("ein wort")], 65_536, tmp_path / "p.model")
    assert made["made"] < 300
    with pytest.raises(PiecesError, match="no text"):
        train_pieces([texts("", None)], 100, tmp_path / "q.model")


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(not DATA, reason="GRISTMILL_TEST_DATA is not set")
@pytest.mark.parametrize(("language", "source"), [("de", "de_wiki"), ("zh", "zh_wiki"), ("en", "en_books")])
@pytest.mark.parametrize("scoring", ["ccnet", "lines"])
def test_score_orders_real_text_as_a_person_would(tmp_path, language, source, scoring):
    draw = random.Random(0)
    table = pq.read_table(Path(DATA) / "text" / f"{source}.parquet").column("text").to_pylist()
    trained, held_out = [text[:8000] for text in table[:700]], [text[:2000] for text in table[1000:1060]]

    def shuffled(text):
        units = list(text) if language == "zh" else text.split(" ")
        return ("" if language == "zh" else " ").join(draw.sample(units, len(units)))

    def garbled(text, share):
        return "".join(chr(draw.randrange(0x21, 0x7F)) if draw.random() < share and c != "\n" else c for c in text)

    train_model([texts(*trained)], Training(order=4, pieces=8000, scoring=scoring), tmp_path)
    scorer = load_scorer(tmp_path, scoring=scoring)
    native, mixed, noisy, noise = (
        np.median(scorer.score(texts(*changed)).to_numpy())
        for changed in (
            held_out,
            [shuffled(text) for text in held_out],
            [garbled(text, 0.05) for text in held_out],
            [garbled(text, 0.3) for text in held_out],
        )
    )
    assert native < noisy < noise
    assert native * 1.25 < mixed
