import collections
import gzip
import math
import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.perplexity import kneser_ney
from curation.perplexity.arpa import export_arpa, lmplz_path
from curation.perplexity.estimate import EstimationError, closed_form
from curation.perplexity.model import ModelError, open_model, read_vocabulary
from curation.perplexity.pieces import WordPieces
from curation.perplexity.score import OwnModel
from curation.perplexity.training import Training, token_stream, train_model

DATA = os.environ.get("GRISTMILL_TEST_DATA")
ORACLE = Path(DATA or ".") / "kenlm_oracle"
shared_data = pytest.mark.skipif(not DATA, reason="GRISTMILL_TEST_DATA is not set")


def train_lines(lines, folder, order, prune=(), memory=1 << 30, fallback=True):
    stream = token_stream(WordPieces())
    batches = [pa.array(lines[i : i + 1000], pa.large_string()) for i in range(0, len(lines), 1000)]
    options = kneser_ney.Options(order, prune, fallback, memory)
    return kneser_ney.train((stream.sentences(batch) for batch in batches), stream, options, folder)


def read_own(folder):
    """All n-grams of a model folder: string -> (log10 probability, log10 backoff)."""
    model, names = open_model(folder, verify=True), read_vocabulary(folder)
    num_nodes, found, strings = len(model.nodes) - 1, {}, []
    words = [*model.nodes["word"][:-1].tolist(), *model.top["word"].tolist()]
    starts = model.nodes["start"].tolist()
    parents = {child: gram for gram in range(num_nodes) for child in range(starts[gram], starts[gram + 1])}
    for gram in range(len(words)):
        word = names[words[gram]]
        strings.append(word if gram < model.num_tokens else f"{strings[parents[gram]]} {word}")
        row = model.nodes[gram] if gram < num_nodes else model.top[gram - num_nodes]
        found[strings[-1]] = (float(row["probability"]), float(row["backoff"]) if gram < num_nodes else 0.0)
    return found


def read_arpa(stream):
    found, n = {}, 0
    for line in stream.read().split("\n"):
        if line.startswith("\\"):
            n = int(line[1]) if line[1].isdigit() else 0
        elif n and line:
            probability, gram, *backoff = line.split("\t")
            found[gram] = (float(probability), float(backoff[0]) if backoff else 0.0)
    return found


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(max(abs(a[gram][0] - b[gram][0]), abs(a[gram][1] - b[gram][1])) for gram in a)


def slow_model(lines, order):
    """Interpolated modified Kneser-Ney with dictionaries, unpruned: the textbook's sums, no sorting and no tries."""
    sentences = [["<s>", *line.split(), "</s>"] for line in lines]
    counts = {order: collections.Counter(tuple(s[i : i + order]) for s in sentences for i in range(len(s) - order + 1))}
    for n in range(order - 1, 0, -1):
        counts[n] = collections.Counter(gram[1:] for gram in counts[n + 1])
        for s in sentences:
            if n > 1 and len(s) >= n:
                counts[n][tuple(s[:n])] += 1
    counts[1].pop(("<s>",), None)
    amounts = {}
    for n in range(1, order + 1):
        seen = collections.Counter(counts[n].values())
        found = closed_form([0, *(seen[k] for k in (1, 2, 3, 4))])
        amounts[n] = (0, found.one, found.two, found.more) if found else (0, 0.5, 1.0, 1.5)
    probability, backoff = {}, {}
    total, num_words = sum(counts[1].values()), len(counts[1]) + 1
    gamma = sum(amounts[1][min(c, 3)] for c in counts[1].values()) / total
    for gram, c in counts[1].items():
        probability[gram] = (c - amounts[1][min(c, 3)]) / total + gamma / num_words
    probability["<unk>",] = gamma / num_words
    for n in range(2, order + 1):
        sums, left = collections.Counter(), collections.Counter()
        for gram, c in counts[n].items():
            sums[gram[:-1]] += c
            left[gram[:-1]] += amounts[n][min(c, 3)]
        backoff.update({context: left[context] / sums[context] for context in sums})
        for gram, c in counts[n].items():
            own = (c - amounts[n][min(c, 3)]) / sums[gram[:-1]]
            probability[gram] = own + backoff[gram[:-1]] * probability[gram[1:]]
    return {
        " ".join(gram): (math.log10(p), math.log10(backoff.get(gram, 1.0)) if len(gram) < order else 0.0)
        for gram, p in probability.items()
    }


def made_up_lines(count, words=40, seed=0):
    draw = random.Random(seed)
    return [
        " ".join(f"w{int(draw.paretovariate(0.7)) % words}" for _ in range(draw.randint(1, 12))) for _ in range(count)
    ]


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_train_any_order_equals_the_slow_twin(tmp_path, order):
    lines = [
        *made_up_lines(300),
        "zuletzt",
    ]  # a last new word seen once, where lmplz's count of the last n-gram is the same
    train_lines(lines, tmp_path, order)
    expected, found = slow_model(lines, order), read_own(tmp_path)
    assert found.pop("<s>")[0] == 0.0
    expected.pop("<s>", None)
    assert largest_difference(found, expected) < 1e-5


@pytest.mark.parametrize("prune", [(), (0, 0, 2), (0, 1)])
def test_train_probabilities_of_each_context_sum_to_one(tmp_path, prune):
    import kenlm

    train_lines(made_up_lines(200, words=12), tmp_path, 3, prune)
    export_arpa(tmp_path, tmp_path / "model.arpa")
    judge = kenlm.Model(str(tmp_path / "model.arpa"))
    names = [name for name in read_vocabulary(tmp_path) if name != "<s>"]
    for context in ([], ["w1"], ["w3", "w1"], ["nie", "w2"]):
        state, after = kenlm.State(), kenlm.State()
        judge.BeginSentenceWrite(state)
        for word in context:
            judge.BaseScore(state, word, after)
            state, after = after, state
        total = sum(10 ** judge.BaseScore(state, name, kenlm.State()) for name in names)
        assert total == pytest.approx(1.0, abs=2e-5)


def test_train_runs_merged_from_files_give_the_same_bytes(tmp_path):
    lines = made_up_lines(4000, words=3000)
    cards = [train_lines(lines, tmp_path / str(memory), 5, (0, 0, 1), memory) for memory in (1 << 30, 200_000)]
    assert cards[0] == cards[1]
    for name in ("nodes.bin", "top.bin", "middle.bin", "highest.bin", "tokens.bin", "vocabulary.txt", "model.json"):
        assert (tmp_path / str(1 << 30) / name).read_bytes() == (tmp_path / "200000" / name).read_bytes()
    assert not (tmp_path / "200000" / "work").exists()


def test_train_arrays_cut_anywhere_give_the_same_bytes(tmp_path):
    lines = [*made_up_lines(50), "", "a" * 70]
    stream = token_stream(WordPieces())
    one_by_one = (stream.sentences(pa.array([line], pa.large_string())) for line in lines)
    card = kneser_ney.train(one_by_one, stream, kneser_ney.Options(3), tmp_path / "a")
    assert card == train_lines(lines, tmp_path / "b", 3)


@shared_data
@pytest.mark.shared_data
@pytest.mark.parametrize("language", ["de", "zh"])
@pytest.mark.parametrize(("name", "order", "prune"), [("3", 3, ()), ("5", 5, ()), ("4.pruned", 4, (0, 0, 1, 2))])
def test_train_oracle_texts_equal_lmplz(tmp_path, language, name, order, prune):
    lines = (ORACLE / f"{language}.train.txt").read_text("utf-8").split("\n")[:-1]
    train_lines(lines, tmp_path, order, prune)
    with gzip.open(ORACLE / f"{language}.{name}.arpa.gz", "rt", encoding="utf-8", newline="\n") as stream:
        assert largest_difference(read_own(tmp_path), read_arpa(stream)) < 1e-5


@shared_data
@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("language", "order", "prune", "expected"),
    [("de", 3, (), 170.7276), ("de", 5, (), 163.4838), ("de", 4, (0, 0, 1, 2), 173.5293), ("zh", 3, (), 235.1007),
     ("zh", 5, (), 228.9881), ("zh", 4, (0, 0, 1, 2), 233.4905)],
)  # fmt: skip
def test_score_held_out_texts_equal_query(tmp_path, language, order, prune, expected):
    train_lines((ORACLE / f"{language}.train.txt").read_text("utf-8").split("\n")[:-1], tmp_path, order, prune)
    held_out = pa.array((ORACLE / f"{language}.heldout.txt").read_text("utf-8").split("\n")[:-1], pa.large_string())
    scores, num_tokens = OwnModel(tmp_path, WordPieces(), "lines").score_lines(held_out)
    assert 10 ** (-scores.sum() / num_tokens.sum()) == pytest.approx(expected, rel=2e-6)


def test_arpa_written_here_loads_in_kenlm_and_scores_the_same(tmp_path):
    import kenlm

    train_lines(made_up_lines(200), tmp_path, 4, (0, 0, 1))
    export_arpa(tmp_path, tmp_path / "model.arpa")
    judge, own = kenlm.Model(str(tmp_path / "model.arpa")), OwnModel(tmp_path, WordPieces(), "ccnet")
    lines = [*made_up_lines(50, words=60, seed=1), "", "nie gesehen w1"]
    scores, _ = own.score_lines(pa.array(lines, pa.large_string()))
    assert np.abs(scores - [judge.score(line) for line in lines]).max() < 1e-5
    with (tmp_path / "model.arpa").open(encoding="utf-8") as stream:
        assert largest_difference(read_arpa(stream), read_own(tmp_path)) < 1e-6


def test_arpa_words_with_spaces_that_kenlm_does_not_split_at_are_written(tmp_path):
    import kenlm

    lines = ["park.\u00a0 haus", "haus\u2028tor park.\u00a0"] * 3
    train_lines(lines, tmp_path, 2)
    export_arpa(tmp_path, tmp_path / "m.arpa")
    assert "park.\u00a0" in kenlm.Model(str(tmp_path / "m.arpa"))


@pytest.mark.parametrize(
    ("lines", "order", "expected"),
    [(["wort"], 3, [4, 3, 2]), (["wort"] * 5, 2, [4, 3]), ([""], 2, [3, 1])],
)
def test_train_tiny_texts_fall_back_and_stay_finite(tmp_path, lines, order, expected):
    card = train_lines(lines, tmp_path, order)
    assert card["ngrams"][0] == expected[0]
    assert all(discount["fallback"] for discount in card["discounts"])
    scores, _ = OwnModel(tmp_path, WordPieces(), "lines").score_lines(pa.array(["wort", "x y", ""], pa.large_string()))
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()


def test_train_without_fallback_small_text_is_refused_with_its_counts(tmp_path):
    with pytest.raises(EstimationError, match=r"1-grams: .* no discounts follow"):
        train_lines(["wort"], tmp_path, 2, fallback=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"order": 7}, "order 7"), ({"order": 0}, "order 0"), ({"order": 3, "prune": (0, 2, 1)}, "never fall"),
     ({"order": 2, "prune": (0, 0, 1)}, "3 thresholds"), ({"order": 2, "prune": (-1,)}, "never fall")],
)  # fmt: skip
def test_train_options_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(EstimationError, match=message):
        train_lines(["a b"], tmp_path, **options)


def test_train_model_empty_text_is_refused(tmp_path):
    for text in ([], [pa.array([None, "", " \n "], pa.large_string())]):
        with pytest.raises(EstimationError, match="none with text"):
            train_model(text, Training(order=2), tmp_path)
    assert not (tmp_path / "lines.arrow").exists()


def test_train_model_lmplz_missing_names_the_choice(tmp_path):
    if lmplz_path():
        pytest.skip("lmplz is installed here")
    with pytest.raises(ModelError, match="lmplz is not on the PATH"):
        train_model([pa.array(["a b"], pa.large_string())], Training(pieces="words", estimator="lmplz"), tmp_path)


def test_train_model_lmplz_on_the_path_is_given_tokens_and_options(tmp_path, monkeypatch):
    program = tmp_path / "lmplz"
    program.write_text(
        "#!/bin/sh\nhead -c 200000 /dev/zero >&2\ncat > $(dirname $0)/stdin\necho $@ > $(dirname $0)/arguments\n"
        'while [ $# -gt 1 ]; do [ "$1" = --arpa ] && echo arpa > "$2"; shift; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = Training(order=3, prune=(0, 0, 1), pieces="words", estimator="lmplz", scoring="lines")
    # both pipes overflow: who talks much while it reads must not wait for who writes much
    card = train_model([pa.array(["A b\nc\n" * 40_000], pa.large_string())], options, tmp_path / "model")
    assert (tmp_path / "stdin").read_text() == "a b\nc\n" * 40_000
    arguments = (tmp_path / "arguments").read_text()
    assert "-o 3" in arguments
    assert "--prune 0 0 1" in arguments
    assert card["estimator"] == "lmplz"
