"""How fast documents become token shards, against the tokenizer library alone and against datatrove's tokenizer step.

    python -m benchmarks.tokenize [--quick] [--json]

Text: German, English, Chinese and Python from $GRISTMILL_TEST_DATA, else words made by a seeded generator. Ratios are
medians of paired rounds on one thread, each way in turn: our `write_token_shard` (encode, end tokens, write, checksum,
document rows) divided by `Tokenizer.encode_batch` (ids thrown away), and by datatrove's `DocumentTokenizer` writing to
the same disk. `library` is the same stage with the library in place of our encoder; `encode` is our encoder alone.
`cut` only finds where words end (one table look for each character, some branches for each word), the least that our
way of encoding takes; `hash` is xxh3 over the same bytes, the physical limit of anything that looks words up. The ids
of both ways are compared before anything is timed. `--clock process` times processor time instead of wall time, which
a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
import xxhash

from curation.bpe.encoder import encode_own, laid_out
from curation.bpe.words import cut_words
from mixing.shards import write_token_shard
from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer


def texts(num_bytes: int) -> dict[str, list[str]]:
    """Documents by language, about `num_bytes` each."""
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    if not folder:
        chance = random.Random(1)
        words = [
            "".join(chance.choices("eeennniisrratdhulcgmobwfkzpvüä", k=chance.randint(2, 12))) for _ in range(20_000)
        ]
        return {"made": [" ".join(chance.choices(words, k=300)) + "." for _ in range(num_bytes // 2400)]}
    found = {}
    for name in ("de_wiki", "en_books", "zh_law", "code_python"):
        documents, size = [], 0
        for text in pq.read_table(Path(folder) / "text" / f"{name}.parquet", columns=["text"])["text"].to_pylist():
            if size > num_bytes:
                break
            documents.append(text)
            size += len(text.encode())
        found[name] = documents
    return found


def rows(documents: list[str]) -> list[pa.RecordBatch]:
    """Row batches of 200 documents, as the token stage gets them."""
    ids = pa.array([xxhash.xxh3_128_digest(text) for text in documents], pa.binary(16))
    batch = pa.record_batch(
        {"row": np.arange(len(documents)), "text": pa.array(documents, pa.large_string()), "content_id": ids}
    )
    return [batch.slice(start, 200) for start in range(0, len(documents), 200)]


def measure(documents: list[str], folder: Path, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """MB of text a second of each way, and the ratios."""
    tokenizer = load_tokenizer(folder)
    own, reason = tokenizer.own
    assert own is not None, reason
    by_library = load_tokenizer(folder)
    by_library.__dict__["own"] = None, "measured"  # the cached property
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    batches = rows(documents)
    size = sum(len(text.encode()) for text in documents)

    def datatrove() -> None:
        with tempfile.TemporaryDirectory() as output:
            step = DocumentTokenizer(
                output,
                tokenizer_name_or_path=str(folder / "tokenizer.json"),
                eos_token="<|endoftext|>",
                shuffle_documents=False,
            )
            step.run((Document(text=text, id=str(i)) for i, text in enumerate(documents)), rank=0, world_size=1)

    def ours() -> None:
        write_token_shard(batches, tokenizer, folder / "tokens", folder / "documents")

    def library() -> None:
        write_token_shard(batches, by_library, folder / "tokens", folder / "documents")

    text = pa.array(documents, pa.large_string())
    content, ends = laid_out(own, text)
    words = np.empty(len(content), np.int64)
    wanted = raw.encode_batch(documents, add_special_tokens=False)
    assert encode_own(own, text)[0].tolist() == [token for each in wanted for token in each.ids]
    ways: dict[str, Callable[[], object]] = {
        "encode": lambda: encode_own(own, text),
        "cut": lambda: cut_words(content, ends, own.model.kinds, own.model.family, own.model.digits, words),
        "hash": lambda: xxhash.xxh3_128_digest(content),
        "library": library,
        "raw": lambda: [
            raw.encode_batch(documents[i : i + 200], add_special_tokens=False) for i in range(0, len(documents), 200)
        ],
        "gristmill": ours,
    }
    try:
        from datatrove.data import Document
        from datatrove.pipeline.tokens import DocumentTokenizer

        ways["datatrove"] = datatrove
    except ImportError:
        pass
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        # forwards and backwards in turn: a machine that slows down or warms up favours nobody
        for name, way in list(ways.items())[:: 1 if turn % 2 == 0 else -1]:
            start = clock()
            way()
            times[name].append(clock() - start)
    found = {f"{name}_mb_per_s": size / 1e6 / float(np.median(each)) for name, each in times.items()}
    for name in ("encode_vs_raw", "encode_vs_cut"):
        found[name] = float(np.median(np.array(times[name[10:]]) / np.array(times["encode"])))
    for name in ways:
        if name in ("raw", "library", "datatrove"):
            found[f"tokenize_vs_{name}"] = float(np.median(np.array(times[name]) / np.array(times["gristmill"])))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "process" else time.perf_counter
    found: dict[str, dict[str, float]] = {}
    by_language = texts(1_000_000 if options.quick else 6_000_000)
    with tempfile.TemporaryDirectory() as folder:
        everything = [pa.array(documents, pa.large_string()) for documents in by_language.values()]
        start = time.perf_counter()
        counts = train_tokenizer(everything, TokenizerOptions(vocabulary=16_000), folder)
        found["training"] = {"mb_per_s": counts["size_bytes"] / 1e6 / (time.perf_counter() - start)}
        for name, documents in by_language.items():
            found[name] = measure(documents, Path(folder), 4 if options.quick else 6, clock)
    for ratio in ("tokenize_vs_raw", "tokenize_vs_datatrove", "encode_vs_raw"):
        ratios = [each[ratio] for each in found.values() if ratio in each]
        if ratios:
            found.setdefault("worst", {})[ratio] = min(ratios)
    if options.json:
        print(json.dumps(found))
        return
    for name, numbers in found.items():
        print(f"{name:12}", "  ".join(f"{key} {value:.2f}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
