"""Speed and quality of deduplication, each speed as a ratio to a peer that does the same job in the same run.

    python -m benchmarks.dedup [--quick | --full] [--json]

German text from `$GRISTMILL_TEST_DATA` (else words made by a seeded generator), one thread, processor time. The peers
are datatrove's stage 1 (its spaCy splitter where spaCy can be imported, else the faster `str.split`: which, is said in
`datatrove_splitter`), its stages 2 and 3 on signatures with the same duplicates, and rensa from text where it can be
imported. `recall_at_80` is the share of pairs with a brute-force Jaccard similarity of at least 0.8 that end in one
cluster, `precision` the share of dropped documents that brute force finds at least 0.7 similar to the one that stays.
`--full` adds 10 million signatures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger

from benchmarks.dedup_growth import made_bands, measure_matching, run_match, write_signatures
from curation.dedup import minhash, paragraph, paragraph_edit, substring
from curation.dedup.inputs import MatchInput
from curation.dedup.match import MatchOptions, match
from curation.dedup.minhash import Options
from curation.dedup.shingle import shingle_hashes

OPTIONS = Options()


def german_texts(megabytes: float) -> list[str]:
    """Documents of the shared German sources, or of made-up words."""
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    texts: list[str] = []
    if folder:
        for name in ("de_wiki", "de_kids", "de_law", "de_books"):
            texts += pq.read_table(Path(folder) / "text" / f"{name}.parquet").column("text").to_pylist()
        random.Random(0).shuffle(texts)
    else:
        draw = random.Random(0)
        words = ["".join(draw.choices("enisratdhulcgmobwfkzpvüäö", k=draw.randint(2, 11))) for _ in range(30_000)]
        texts = [" ".join(draw.choices(words, k=400)) + "." for _ in range(int(megabytes * 350))]
    size, chosen = 0.0, []
    for text in texts:
        chosen.append(text)
        size += len(text.encode()) / 1e6
        if size > megabytes:
            break
    return chosen


def clock(job, *given) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    job(*given)
    return time.process_time() - start


def measure_signatures(megabytes: float) -> dict[str, object]:
    texts = german_texts(megabytes)
    array = pa.array(texts, pa.large_string())
    size = array.nbytes / 1e6
    minhash.signatures(array.slice(0, 2), OPTIONS)
    ours = size / min(clock(minhash.signatures, array, OPTIONS) for _ in range(3))
    few = texts[: max(20, len(texts) // 100)]
    few_size = sum(len(text.encode()) for text in few) / 1e6
    splitter, seconds = datatrove_signatures(few)
    figures: dict[str, object] = {
        "signature_mb_s": ours,
        "datatrove_splitter": splitter,
        "datatrove_signature_mb_s": few_size / seconds,
        "signature_vs_datatrove": ours * seconds / few_size,
        "datasketch_signature_mb_s": few_size / clock(datasketch_signatures, few),
    }
    best = float(figures["datasketch_signature_mb_s"])  # type: ignore[arg-type]
    if importlib.util.find_spec("rensa"):
        figures["rensa_signature_mb_s"] = few_size / min(clock(rensa_signatures, few) for _ in range(3))
        best = max(best, figures["rensa_signature_mb_s"])
    return figures | {"signature_vs_best_peer": ours / best}


def datatrove_signatures(texts: list[str]) -> tuple[str, float]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.word_tokenizers import WordTokenizer

    class SplitWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    if importlib.util.find_spec("spacy"):
        splitter, language = "spaCy", "deu_Latn"
    else:
        splitter, language = "str.split", SplitWords()
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, MinhashConfig(), language=language)
        step.get_shingles("Ein kurzer Text zum Aufwärmen")
        documents = [Document(text, str(place)) for place, text in enumerate(texts)]
        return splitter, clock(step.run, documents)


def datasketch_signatures(texts: list[str]) -> None:
    import datasketch

    for text in texts:
        words = text.split()
        sketch = datasketch.MinHash(112, seed=1)
        sketch.update_batch([" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)])


def rensa_signatures(texts: list[str]) -> None:
    import rensa

    for text in texts:
        words = text.split()
        sketch = rensa.RMinHash(num_perm=112, seed=1)
        sketch.update([" ".join(words[at : at + 5]) for at in range(len(words) - 4)])
        sketch.digest()


def measure_against_datatrove(num_documents: int) -> dict[str, object]:
    """Matching and clustering of the same band groups by datatrove's stages 2 and 3."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster

    bands = made_bands(num_documents, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = np.dtype([*((f"h{row}", "<u8") for row in range(8)), ("document", "<u4")])
        for band, hashes in enumerate(bands):
            (folder / "sigs" / f"bucket_{band:03d}").mkdir(parents=True)
            records = np.zeros(num_documents, record)
            for row in range(8):
                records[f"h{row}"] = (hashes >> np.uint64(3)) + np.uint64(row)
            records["document"] = np.arange(num_documents)
            records[np.argsort(hashes, kind="stable")].tofile(
                folder / "sigs" / f"bucket_{band:03d}" / "00000.minhash.sig"
            )
        config = MinhashConfig()
        seconds = 0.0
        for rank in range(14):
            step = MinhashDedupBuckets(str(folder / "sigs"), str(folder / "dups"), config=config)
            seconds += clock(step.run, None, rank, 14)
        cluster = MinhashDedupCluster(str(folder / "dups"), str(folder / "removed"), config=config)
        seconds += clock(cluster.run, None, 0, 1)
        (folder / "ours").mkdir()
        inputs = write_signatures(folder / "ours", bands, 4)
        ours = min(clock(run_match, folder / "ours", inputs, "components") for _ in range(2))
    return {"datatrove_match_seconds": seconds, "match_seconds": ours, "match_vs_datatrove": seconds / ours}


def planted(texts: list[str], seed: int) -> list[str]:
    """Texts cut to 2,000 characters, each with a copy in which a share of 0 to 10 % of the words is another."""
    draw = random.Random(seed)
    made = []
    for text in texts:
        words = text[:2000].split()
        if len(words) < 20:
            continue
        made.append(" ".join(words))
        share = draw.choice([0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1])
        made.append(" ".join(draw.choice(words) if draw.random() < share else word for word in words))
    draw.shuffle(made)
    return made


def measure_quality(num_texts: int) -> dict[str, object]:
    """Recall and precision against brute-force Jaccard on real texts with planted near-duplicates."""
    texts = planted(german_texts(num_texts / 300)[:num_texts], 7)
    pairs = true_pairs(texts, 0.5)
    with tempfile.TemporaryDirectory() as name:
        inputs = write_texts(Path(name), texts)
        found = {}
        for label, options in {
            "all": MatchOptions(OPTIONS, cluster="components"),
            "star": MatchOptions(OPTIONS),
            "verified": MatchOptions(OPTIONS, verify=0.7),
        }.items():
            match(inputs, options, (), [f"{name}/layer"], 1 << 30, fetch_text=texts_of([texts]), scratch=name)
            found[label] = pq.read_table(f"{name}/layer")
    clusters = found["all"].column("cluster").to_pylist()
    high = [pair for pair, similarity in pairs.items() if similarity >= 0.8]
    recalled = sum(clusters[a] is not None and clusters[a] == clusters[b] for a, b in high)
    figures: dict[str, object] = {"pairs_at_80": len(high), "recall_at_80": recalled / max(len(high), 1)}
    for label, name in (("verified", "precision"), ("star", "precision_unverified")):
        stays = found[label].column("duplicate_row").to_pylist()
        drops = [(min(a, b), max(a, b)) for a, b in enumerate(stays) if b is not None]
        figures[name] = sum(pairs.get(pair, 0) >= 0.7 for pair in drops) / max(len(drops), 1)
    return figures


def true_pairs(texts: list[str], least: float) -> dict[tuple[int, int], float]:
    """Every pair of texts with at least this Jaccard similarity of 5-word shingles, by counting common ones."""
    from scipy.sparse import csr_matrix

    sets = [np.unique(shingle_hashes(text, OPTIONS.normalize, 5)) for text in texts]
    sizes = np.array([len(one) for one in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    rows = np.repeat(np.arange(len(sets)), sizes)
    table = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)))
    common = (table @ table.T).tocoo()
    similarity = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    kept = (common.row < common.col) & (similarity >= least)
    chosen = zip(common.row[kept], common.col[kept], similarity[kept], strict=True)
    return {(int(a), int(b)): float(value) for a, b, value in chosen}


def write_texts(folder: Path, texts: list[str]) -> list[MatchInput]:
    path = str(folder / "texts.parquet")
    batch = minhash.signatures(pa.array(texts, pa.large_string()), OPTIONS)
    pq.write_table(pa.Table.from_batches([batch]), path)
    return [MatchInput("web", "a", path)]


def texts_of(shards: list[list[str]]):
    arrays = [pa.array(texts, pa.large_string()) for texts in shards]
    return lambda place, rows: (arrays[place].take(pa.array(rows[at : at + 2000])) for at in range(0, len(rows), 2000))


def measure_verification(num_texts: int) -> dict[str, object]:
    """Pairs checked a second, their texts' shingling included."""
    texts = planted(german_texts(num_texts / 300)[:num_texts], 9)
    with tempfile.TemporaryDirectory() as name:
        inputs = write_texts(Path(name), texts)
        given = (inputs, MatchOptions(OPTIONS, verify=0.7), (), [f"{name}/layer"], 1 << 30)
        run = lambda: match(*given, fetch_text=texts_of([texts]), scratch=name)  # noqa: E731
        checked = run()["pairs_checked"]
        plain = min(clock(match, inputs, MatchOptions(OPTIONS), (), given[3], 1 << 30) for _ in range(3))
        seconds = min(clock(run) for _ in range(3)) - plain
    return {"verify_pairs_s": checked / max(seconds, 1e-9)}


def measure_paragraphs(megabytes: float) -> dict[str, object]:
    """All three steps of paragraph dedup on lines of German text, by semantics; the slower is `paragraph_mb_s`."""
    array = pa.array(german_texts(megabytes), pa.large_string())
    size, figures = array.nbytes / 1e6, {}
    with tempfile.TemporaryDirectory() as name:

        def run(options: paragraph.ParagraphOptions) -> None:
            batch = paragraph.hashes(array, options)
            pq.write_table(pa.Table.from_batches([batch]), f"{name}/hashes")
            inputs = [paragraph.ParagraphInput("web", "a", f"{name}/hashes")]
            paragraph.find(inputs, options, [f"{name}/remove"], 1 << 30, scratch=name)
            paragraph_edit.edit(array, pq.read_table(f"{name}/remove").column(0).combine_chunks())

        for label, options in (("keep_none", paragraph.CCNET), ("keep_first", paragraph.DOLMA)):
            run(options)
            figures[f"paragraph_{label}_mb_s"] = size / min(clock(run, options) for _ in range(3))
    return {**figures, "paragraph_mb_s": min(figures.values())}


def measure_substrings(megabytes: float) -> dict[str, object]:
    """All three steps of substring dedup on spans of 50 words."""
    array, options = pa.array(german_texts(megabytes), pa.large_string()), substring.SubstringOptions()
    with tempfile.TemporaryDirectory() as name:

        def run() -> None:
            pq.write_table(pa.Table.from_batches([substring.units(array, options)]), f"{name}/units")
            inputs = [substring.SubstringInput("web", "a", f"{name}/units")]
            substring.find(inputs, options, [f"{name}/spans"], 1 << 30, scratch=name)
            substring.edit(array, pq.read_table(f"{name}/spans").column("spans").combine_chunks(), options)

        run()
        return {"substring_mb_s": array.nbytes / 1e6 / min(clock(run) for _ in range(2))}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and quality of deduplication.")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    parser.add_argument("--full", action="store_true", help="adds 10 million signatures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    logger.disable("datatrove")
    figures = measure_signatures(10 if given.quick else 60)
    figures |= measure_paragraphs(10 if given.quick else 60)
    figures |= measure_substrings(10 if given.quick else 30)
    figures |= measure_quality(1000 if given.quick else 3000)
    figures |= measure_verification(1000 if given.quick else 5000)
    figures |= measure_against_datatrove(100_000 if given.quick else 200_000)
    figures |= measure_matching(1_000_000, "1m")
    if given.full:
        figures |= measure_matching(10_000_000, "10m")
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value:,.4g}" if isinstance(value, float) else f"{name:28} {value}")


if __name__ == "__main__":
    main()
