"""Recall and precision of deduplication by similarity, beside other libraries, against brute force.

    python -m benchmarks.dedup_quality [--texts 1000] [--json]

Real German, Chinese and English texts (`$GRISTMILL_TEST_DATA`, else made words), each with a planted companion of one
kind: words replaced, sentences in another order, a common frame of boilerplate around different texts, a translation
(every word another one), and short texts. Every method makes clusters with 14 bands of 8 hashes over 5-word shingles of
the same words; the truth of a pair is the Jaccard similarity of its shingle sets by brute force (of texts shorter than
a shingle: whether they are equal). **Recall** of a band of similarity is the share of its pairs that end in one
cluster, **precision** the share of dropped documents that are at least 0.7 similar to the one that stays, **wrong**
counts dropped documents under 0.5. Texts come with their words folded and joined by one space, so that no peer is worse
for its way to split (Chinese: a character a word). Peers that cannot be imported are named as missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from loguru import logger

from benchmarks.dedup import OPTIONS, german_texts, texts_of, write_texts
from curation.dedup.match import MatchOptions, match
from curation.dedup.shingle import shingle_hashes

BANDS_OF_SIMILARITY = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0), (1.0, 1.1))
NUM_PERM, BANDS, ROWS = 112, 14, 8
_SOURCES = ("de_wiki", "de_law", "de_books", "zh_wiki", "zh_law", "zh_books", "en_books", "en_qa")


def real_words(num_texts: int) -> list[list[str]]:
    """Words of real texts, 30 to 300 of each, languages in turn."""
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    if not folder:
        return [text.lower().split()[:300] for text in german_texts(num_texts / 300)[:num_texts]]
    draw, found = random.Random(1), []
    for name in _SOURCES:
        texts = pq.read_table(Path(folder) / "text" / f"{name}.parquet").column("text").to_pylist()
        for text in draw.sample(texts, min(2 * num_texts // len(_SOURCES), len(texts))):
            words = list(text.lower()) if name.startswith("zh") else text.lower().split()
            words = [word for word in words if word.isalnum()]
            if len(words) >= 30:
                found.append(words[: draw.randint(30, 300)])
    draw.shuffle(found)
    return found[:num_texts]


def planted(texts: list[list[str]], seed: int = 7) -> Iterator[tuple[str, list[str]]]:
    """(kind, words) of every document: the texts, and a companion or two of each."""
    draw = random.Random(seed)
    frame = [f"rahmen{number}" for number in range(60)]
    for place, words in enumerate(texts):
        yield "original", words
        kind = ("edits", "edits", "reordered", "boilerplate", "translation", "short")[place % 6]
        if kind == "edits":
            share = draw.choice([0.0, 0.003, 0.01, 0.02, 0.04, 0.08])
            yield kind, [draw.choice(words) if draw.random() < share else word for word in words]
        elif kind == "reordered":
            size = draw.choice([8, 15, 40])  # sentences
            pieces = [words[at : at + size] for at in range(0, len(words), size)]
            draw.shuffle(pieces)
            yield kind, [word for piece in pieces for word in piece]
        elif kind == "boilerplate":
            yield kind, frame[:30] + words[: draw.choice([10, 40, 120])] + frame[30:]
        elif kind == "translation":
            yield kind, [f"x{word[::-1]}y" for word in words]
        else:
            few = words[: draw.randint(1, 4)]
            yield kind, few
            yield kind, few if draw.random() < 0.5 else [*few[:-1], "anders"]


def true_similarities(documents: list[str]) -> dict[tuple[int, int], float]:
    """Every pair of documents with a Jaccard similarity of 5-word shingles of 0.5 or more; equal short ones have 1."""
    from scipy.sparse import csr_matrix

    sets = [np.unique(shingle_hashes(text, OPTIONS.normalize, 5)) for text in documents]
    whole = [np.array([hash(text)], np.int64).view(np.uint64) for text in documents]
    sets = [one if len(one) else other for one, other in zip(sets, whole, strict=True)]
    sizes = np.array([len(one) for one in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(sets)), sizes)
    table = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)))
    common = (table @ table.T).tocoo()
    similarity = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    kept = (common.row < common.col) & (similarity >= BANDS_OF_SIMILARITY[0][0])
    chosen = zip(common.row[kept], common.col[kept], similarity[kept], strict=True)
    return {(int(a), int(b)): float(value) for a, b, value in chosen}


# ---------------------------------------------------------------- methods: documents -> the one that stays for each


def gristmill(**options: object) -> Callable[[list[str]], list[int]]:
    def run(documents: list[str]) -> list[int]:
        with tempfile.TemporaryDirectory() as name:
            inputs = write_texts(Path(name), documents)
            chosen = MatchOptions(OPTIONS, **options)  # type: ignore[arg-type]
            match(inputs, chosen, (), [f"{name}/layer"], 1 << 30, fetch_text=texts_of([documents]), scratch=name)
            stays = pq.read_table(f"{name}/layer").column("duplicate_row").to_pylist()
        return [place if other is None else other for place, other in enumerate(stays)]

    return run


def components(num_documents: int, pairs: Iterator[tuple[int, int]]) -> list[int]:
    """Smallest document of each one's connected component, as the peers cluster."""
    parent = list(range(num_documents))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(node) for node in range(num_documents)]


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[at : at + 5]) for at in range(len(words) - 4)]


def datasketch(documents: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(num_perm=NUM_PERM, params=(BANDS, ROWS)), []
    for place, text in enumerate(documents):
        sketch = MinHash(NUM_PERM, seed=1)
        sketch.update_batch([one.encode() for one in shingles(text)])
        pairs += [(place, other) for other in index.query(sketch)]
        index.insert(place, sketch)
    return components(len(documents), iter(pairs))


def rensa(documents: list[str]) -> list[int]:
    from rensa import RMinHash, RMinHashLSH

    index, pairs = RMinHashLSH(0.8, NUM_PERM, BANDS), []
    for place, text in enumerate(documents):
        sketch = RMinHash(num_perm=NUM_PERM, seed=1)
        sketch.update(shingles(text))
        pairs += [(place, other) for other in index.query(sketch)]
        index.insert(place, sketch)
    return components(len(documents), iter(pairs))


def text_dedup(documents: list[str]) -> list[int]:
    """Its signature function with its defaults (64 bits, sha1), and its tables of bands."""
    from text_dedup.minhash import SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import sha1_hash

    draw, prime, most = np.random.RandomState(42), np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1)
    permutations = (
        draw.randint(1, prime, size=NUM_PERM, dtype=np.uint64),
        draw.randint(0, prime, size=NUM_PERM, dtype=np.uint64),
    )
    ranges = [(band * ROWS, (band + 1) * ROWS) for band in range(BANDS)]
    tables: list[dict[bytes, int]] = [{} for _ in ranges]
    pairs = []
    for place, text in enumerate(documents):
        made = embed_func(
            text, place, num_perm=NUM_PERM, ngram_size=5, min_length=5, hashranges=ranges, permutations=permutations,
            hash_func=lambda one: sha1_hash(one, d=32), dtype=np.uint64, max_hash=most, modulo_prime=prime,
        )  # fmt: skip
        pairs += [(place, table.setdefault(key, place)) for key, table in zip(made[SIGNATURE_COLUMN], tables)]
    return components(len(documents), iter(pairs))


def datatrove(documents: list[str]) -> list[int]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.utils.word_tokenizers import WordTokenizer

    class SplitWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as name:
        given = [Document(text, str(place)) for place, text in enumerate(documents)]
        MinhashDedupSignature(f"{name}/signatures", config, language=SplitWords()).run(given)
        for rank in range(BANDS):
            MinhashDedupBuckets(f"{name}/signatures", f"{name}/pairs", config=config).run(None, rank, BANDS)
        found = [np.fromfile(path, "<u4").reshape(-1, 4) for path in sorted(Path(name, "pairs").rglob("*.dups"))]
    pairs = ((int(pair[1]), int(pair[3])) for part in found for pair in part)
    return components(len(documents), pairs)


METHODS: dict[str, tuple[str | None, Callable[[list[str]], list[int]]]] = {
    "gristmill": (None, gristmill()),
    "gristmill, verify 0.7": (None, gristmill(verify=0.7)),
    "gristmill, components": (None, gristmill(cluster="components")),
    "datatrove": ("datatrove", datatrove),
    "datasketch": ("datasketch", datasketch),
    "rensa": ("rensa", rensa),
    "text-dedup": ("text_dedup", text_dedup),
}


def measure(num_texts: int) -> dict[str, dict[str, object]]:
    """Figures of each method that can be imported."""
    made = list(planted(real_words(num_texts)))
    random.Random(3).shuffle(made)
    documents, kinds = [" ".join(words) for _, words in made], [kind for kind, _ in made]
    truth = true_similarities(documents)
    return {
        name: figures(method(documents), truth, kinds) if package is None or found(package) else {"missing": package}
        for name, (package, method) in METHODS.items()
    }


def found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def figures(stays: list[int], truth: dict[tuple[int, int], float], kinds: list[str]) -> dict[str, object]:
    """Recall by similarity, precision, and what of the kinds that are no copies was dropped."""
    made: dict[str, object] = {}
    for low, high in BANDS_OF_SIMILARITY:
        pairs = [pair for pair, similarity in truth.items() if low <= similarity < high]
        together = sum(stays[a] == stays[b] for a, b in pairs)
        made["recall_equal" if low == 1 else f"recall_{low:.1f}"] = together / max(len(pairs), 1)
        made["pairs_equal" if low == 1 else f"pairs_{low:.1f}"] = len(pairs)
    drops = [(min(a, b), max(a, b)) for a, b in enumerate(stays) if a != b]
    similar = [truth.get(pair, 0.0) for pair in drops]
    made["dropped"] = len(drops)
    made["precision"] = sum(value >= 0.7 for value in similar) / max(len(drops), 1)
    made["wrong"] = sum(value < 0.5 for value in similar)
    made["translations_dropped"] = sum(
        kinds[place] == "translation" for place, other in enumerate(stays) if place != other
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall and precision of deduplication, beside other libraries.")
    parser.add_argument("--texts", type=int, default=1000, help="real texts, each with a planted companion")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    logger.disable("datatrove")
    measured = measure(given.texts)
    if given.json:
        print(json.dumps(measured))
        return
    columns = [name for name in next(iter(measured.values())) if not name.startswith("pairs")]
    print("| method | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in measured.items():
        shown = [f"{row[one]:.3f}" if isinstance(row.get(one), float) else str(row.get(one, "–")) for one in columns]
        print(f"| {name} | {' | '.join(shown)} |")
    print({name: value for name, value in next(iter(measured.values())).items() if name.startswith("pairs")})


if __name__ == "__main__":
    main()
