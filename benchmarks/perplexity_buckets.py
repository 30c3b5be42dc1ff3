"""The table of docs/perplexity.md: native, easy, shuffled and garbled text under models of German, Chinese and English.

    GRISTMILL_TEST_DATA=... python -m benchmarks.perplexity_buckets [--language de] [--scoring ccnet] [--json]

5-grams over 16,000 pieces, trained on documents of one source; other documents of it and of other sources are scored,
and cut at 30 and 60 % of all that are listed for the language.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.perplexity.buckets import assign, cutoffs, histogram
from curation.perplexity.score import load_scorer
from curation.perplexity.training import Training, train_model

DATA = os.environ.get("GRISTMILL_TEST_DATA")
NUMBER, CHARACTERS = 150, 3000
# language: (source, documents to train on), (first document of it to score), others with theirs
PLANS = {
    "de": (("de_wiki", 500), 800, {"de_kids (easy, same topics)": 200, "de_books (1774-1926)": 0}),
    "zh": (("zh_wiki", 1000), 1050, {"zh_dialogue (easy)": 0, "zh_law": 0}),
    "en": (("en_books", 700), 1500, {"en_qa (word problems)": 0, "en_math (LaTeX)": 0}),
}


def texts_of(source: str, first: int, number: int, characters: int) -> list[str]:
    column = pq.read_table(Path(DATA) / "text" / f"{source}.parquet", columns=["text"]).column("text")
    return [text[:characters] for text in column.slice(first, number).to_pylist()]


def shuffled(text: str, language: str, draw: random.Random) -> str:
    """Words (Chinese: characters) of each line in another order."""
    gap = "" if language == "zh" else " "
    lines = [list(line) if language == "zh" else line.split(" ") for line in text.split("\n")]
    return "\n".join(gap.join(draw.sample(line, len(line))) for line in lines)


def garbled(text: str, draw: random.Random, share: float = 0.15) -> str:
    """A share of the characters replaced by others of ASCII."""
    return "".join(chr(draw.randrange(0x21, 0x7F)) if draw.random() < share and not c.isspace() else c for c in text)


def rows_of(language: str, scoring: str) -> list[dict]:
    (source, number), first, others = PLANS[language]
    draw = random.Random(0)
    native = texts_of(source, first, NUMBER, CHARACTERS)
    kinds = {f"{source}, others": native}
    kinds |= {name: texts_of(name.split(" ")[0], start, NUMBER, CHARACTERS) for name, start in others.items()}
    kinds["shuffled"] = [shuffled(text, language, draw) for text in native]
    kinds["15 % of the characters replaced"] = [garbled(text, draw) for text in native]
    with tempfile.TemporaryDirectory() as folder:
        trained = pa.array(texts_of(source, 0, number, 20_000), pa.large_string())
        train_model([trained], Training(order=5, pieces=16_000, scoring=scoring), Path(folder))
        scorer = load_scorer(folder, scoring=scoring)
        scored = {name: scorer.score(pa.array(texts, pa.large_string())) for name, texts in kinds.items()}
    limits = cutoffs(histogram(pa.concat_arrays(list(scored.values()))), (0.3, 0.6))
    rows = []
    for name, perplexity in scored.items():
        levels = assign(perplexity, limits).to_pylist()
        shares = {level: levels.count(level) / len(levels) for level in ("head", "middle", "tail")}
        median = float(np.median(perplexity.drop_null().to_numpy()))
        rows.append({"language": language, "trained on": source, "documents": name, "median": median, **shares})
    return sorted(rows, key=lambda row: row["median"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=sorted(PLANS), action="append", help="only these")
    parser.add_argument("--scoring", choices=["lines", "ccnet"], default="lines")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not DATA:
        parser.error("GRISTMILL_TEST_DATA is not set; it names the folder with text/*.parquet")
    rows = [row for language in arguments.language or PLANS for row in rows_of(language, arguments.scoring)]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        shares = " | ".join(f"{100 * row[level]:.0f} %" for level in ("head", "middle", "tail"))
        model = f"{row['language']}, trained on {row['trained on']}"
        print(f"| {model} | {row['documents']} | {row['median']:,.0f} | {shares} |")


if __name__ == "__main__":
    main()
