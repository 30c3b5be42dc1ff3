"""MinHash deduplication as blocks of a datatrove pipeline, against the matching of a run."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from curation.dedup.inputs import MatchInput
from curation.dedup.keep import KeepError, read_keep
from curation.dedup.match import match
from curation.dedup.minhash import signatures
from curation.documents_dedup import DedupFilesError, MinhashDedup, MinhashFilter, MinhashMatch, MinhashSignatures

WORDS = [
    "der",
    "mueller",
    "mahlt",
    "das",
    "korn",
    "und",
    "baeckt",
    "daraus",
    "ein",
    "brot",
    "fuer",
    "die",
    "ganze",
    "stadt",
    "am",
    "fluss",
]


def text_of(seed):
    return " ".join(WORDS[(seed * 7 + k * k * (seed + 3)) % len(WORDS)] + str((seed * k) % 5) for k in range(60))


# tasks: a copy, a near copy (one word more) of a text in another task, and texts of their own
TASKS = [
    [text_of(1), text_of(2), text_of(1)],
    [text_of(3), text_of(2) + " ende", "", text_of(4)],
]


def documents(texts, task=0):
    return [Document(text, f"{task}-{n}", metadata={"date": f"202{n}"}) for n, text in enumerate(texts)]


def run_blocks(dedup, tasks=TASKS):
    for rank, texts in enumerate(tasks):
        passed = list(MinhashSignatures(dedup, batch_bytes=300).run(iter(documents(texts, rank)), rank, len(tasks)))
        assert [document.text for document in passed] == texts
    assert list(MinhashMatch(dedup).run(None)) == []
    return [
        list(MinhashFilter(dedup, batch_bytes=500).run(iter(documents(texts, rank)), rank, len(tasks)))
        for rank, texts in enumerate(tasks)
    ]


@pytest.mark.parametrize("verify", [None, 0.7])
def test_blocks_keep_what_a_runs_matching_keeps(tmp_path, verify):
    dedup = MinhashDedup(str(tmp_path / "files"), threshold=0.7, verify=verify, keep=("longest",))
    kept = [[document.id for document in task] for task in run_blocks(dedup)]
    options = dedup.match_options()
    given, paths = [], []
    for rank, texts in enumerate(TASKS):
        array = pa.array(texts, pa.large_string())
        made = tmp_path / f"{rank}.parquet"
        pq.write_table(pa.Table.from_batches([signatures(array, options.signatures)]), made)
        beside = tmp_path / f"{rank}.length.parquet"
        pq.write_table(pa.table({"num_characters": [len(text) for text in texts]}), beside)
        given.append(MatchInput("documents", f"{rank:05d}", str(made), (str(beside),)))
        paths.append(str(tmp_path / f"{rank}.out.parquet"))
    match(
        given, options, read_keep(["longest"]), paths, 1 << 30,
        fetch_text=lambda place, rows: iter([pa.array([TASKS[place][row] for row in rows], pa.large_string())]),
    )  # fmt: skip
    expected = [
        [f"{rank}-{n}" for n, drop in enumerate(pq.read_table(path)["drop"].to_pylist()) if not drop]
        for rank, path in enumerate(paths)
    ]
    assert kept == expected == [["0-0"], ["1-0", "1-1", "1-2", "1-3"]]


def test_filter_tells_a_writer_what_is_duplicated(tmp_path):
    written = []

    class Writer:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def write(self, document, rank):
            written.append((document.id, document.metadata["duplicate_of"], document.metadata["filter_reason"]))

    dedup = MinhashDedup(str(tmp_path))
    run_blocks(dedup)
    list(MinhashFilter(dedup, exclusion_writer=Writer()).run(iter(documents(TASKS[0])), 0, 2))
    assert written == [("0-2", "00000/0", "duplicate")]


def test_other_documents_or_tasks_than_those_that_were_hashed_are_errors(tmp_path):
    dedup = MinhashDedup(str(tmp_path))
    with pytest.raises(DedupFilesError, match="run MinhashSignatures first"):
        list(MinhashMatch(dedup).run(None))
    list(MinhashSignatures(dedup).run(iter(documents(TASKS[0])), 0, 2))
    with pytest.raises(DedupFilesError, match="1 tasks, written by pipelines of 2"):
        list(MinhashMatch(dedup).run(None))
    run_blocks(dedup)
    with pytest.raises(DedupFilesError, match="other documents"):
        list(MinhashFilter(dedup).run(iter(documents(["y", *TASKS[0][1:]])), 0, 2))
    with pytest.raises(DedupFilesError, match="this pipeline has 3"):
        list(MinhashFilter(dedup).run(iter(documents(TASKS[0])), 0, 3))
    with pytest.raises(DedupFilesError, match="3 documents were hashed, 2 came"):
        list(MinhashFilter(dedup).run(iter(documents(TASKS[0][:2])), 0, 2))
    with pytest.raises(DedupFilesError, match="fewer documents than those that come"):
        list(MinhashFilter(dedup).run(iter(documents([*TASKS[0], "y"])), 0, 2))


@pytest.mark.parametrize(
    ("keep", "stays"),
    [
        ({"licence": ["cc0", "cc-by"]}, "1"),
        ({"quality": "desc"}, "2"),
        ({"quality": "asc"}, "0"),
        ({"checked": ["true"]}, "2"),
        ({"rank": ["2", "1"]}, "1"),
    ],
)
def test_blocks_keep_the_copy_whose_metadata_come_first(tmp_path, keep, stays):
    described = [
        {"licence": None, "quality": 1, "rank": 1},
        {"licence": "cc0", "quality": None, "checked": False, "rank": 2},
        {"licence": "cc-by", "quality": 2.5, "checked": True},
    ]
    given = [Document(text_of(1), str(n), metadata=one) for n, one in enumerate(described)]
    dedup = MinhashDedup(str(tmp_path), keep=(keep,))
    list(MinhashSignatures(dedup, batch_bytes=1).run(iter(given), 0, 1))
    list(MinhashMatch(dedup).run(None))
    assert [document.id for document in MinhashFilter(dedup).run(iter(given), 0, 1)] == [stays]


def test_keep_orders_words_only_where_they_are_listed(tmp_path):
    given = [Document(text_of(1), "0", metadata={"licence": "cc0"})]
    with pytest.raises(KeepError, match="'licence' as numbers, but a document has 'cc0'; list its words"):
        list(MinhashSignatures(MinhashDedup(str(tmp_path), keep=({"licence": "asc"},))).run(iter(given), 0, 1))


def test_blocks_run_in_datatroves_executor(tmp_path):
    (tmp_path / "in").mkdir()
    for rank, texts in enumerate(TASKS):
        lines = [json.dumps({"id": f"{rank}-{n}", "text": text}) for n, text in enumerate(texts) if text]
        (tmp_path / "in" / f"{rank}.jsonl").write_text("\n".join(lines))
    dedup = MinhashDedup(str(tmp_path / "files"), keep=("longest",))
    reader = JsonlReader(str(tmp_path / "in"))
    writer = JsonlWriter(str(tmp_path / "out"), compression=None)
    pipelines = [([reader, MinhashSignatures(dedup)], 2), ([MinhashMatch(dedup)], 1)]
    for number, (pipeline, tasks) in enumerate([*pipelines, ([reader, MinhashFilter(dedup), writer], 2)]):
        LocalPipelineExecutor(pipeline, tasks=tasks, logging_dir=str(tmp_path / f"logs{number}")).run()
    found = [
        json.loads(line)["id"]
        for path in sorted((tmp_path / "out").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert found == ["0-0", "1-0", "1-1", "1-3"]
