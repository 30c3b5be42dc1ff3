import time

import pytest

from recipes.pipeline import compiling_told
from recipes.progress import Narrator, amount_of


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"rows": 1300, "drop.near.duplicate": 40, "drop.near.in_index": 3, "alarms": ""}, "1,300 rows, 43 dropped"),
        (
            {"rows": 90, "drop.near.duplicate": 0, "dates_unread": 2, "documents_unlisted": 7},
            "90 rows, 0 dropped, 2 unreadable dates taken for missing, 7 not compared with all of their band groups",
        ),
        ({"rows": 600, "kept": 550, "drop.gopher.too_few_words": 50}, "550 kept of 600 rows"),
        ({"rows": 600, "kept": 550, "bytes_before": 1000, "bytes": 989}, "550 documents, text -1.1 %"),
        ({"rows": 600, "kept": 550, "bytes_before": 1000, "bytes": 1002}, "550 documents, text +0.2 %"),
        ({"rows": 600, "kept": 550, "bytes_before": 1000, "bytes": 1000}, "550 documents, unchanged"),
        ({"rows": 600, "kept": 0, "bytes_before": 0, "bytes": 0}, "0 kept of 600 rows"),
        ({"documents": 2000, "tokens": 12_300}, "2,000 documents, 12.3k tokens"),
        (
            {"documents": 2000, "tokens": 12_300, "by_library": 2000, "by_library_because": "its model is Unigram"},
            "2,000 documents, 12.3k tokens, 2,000 documents by the tokenizers library (its model is Unigram)",
        ),
    ],
)  # fmt: skip
def test_amount_of_counts_says_what_a_stage_did(counts, said):
    assert amount_of(counts) == said


def test_compiling_is_told_while_a_stage_lasts_and_only_where_kernels_are_compiled(tmp_path, capsys):
    (tmp_path / "old.nbc").touch()
    with compiling_told(Narrator(), "a: read", tmp_path, 1, every_s=0.01):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    said = ""
    with compiling_told(Narrator(), "a: read", tmp_path, 1, every_s=0.01):
        (tmp_path / "new.nbc").touch()
        until = time.monotonic() + 10
        while "so far" not in said and time.monotonic() < until:
            said += capsys.readouterr().err
            time.sleep(0.01)
    assert said.count("compiling kernels, once per machine") == 1
    assert said.split("\n")[1].split() == ["a:", "read", "1", "kernel", "compiled", "so", "far"]
