"""What `whatif` and `diff` print and compare, without a run."""

from dataclasses import replace

from recipes.cli.whatif import table
from recipes.ledger.run_diff import comparable
from recipes.ledger.whatif import Change
from recipes.tokenizing.token_rate import TYPICAL

LESS = Change("qa", 1200, 1197, 393, 393, 393, 300_000, 142_000, 302_000, 143_000, {}, {"short.tiny": 804}, True, [])


def test_whatif_table_names_each_column_and_counts_documents_in_percent():
    head, qa, dropped = table([LESS])
    names = "source kept now kept then change % of documents tokens now tokens then change"
    assert " ".join(head.split()) == names
    assert qa.split() == ["qa", "1,197", "393", "-804", "-67.17%", "302k", "143k", "-159k"]
    assert dropped.split() == ["newly", "dropped", "804", "short.tiny"]
    assert list(table([replace(LESS, kept_before=0, newly_dropped={})]))[1].split()[4] == "–"


def test_diff_counts_tokens_of_both_runs_alike_unless_both_have_a_tokenizer():
    sample, ready = replace(TYPICAL, per_byte=0.2, basis="sample"), replace(TYPICAL, per_byte=0.3, basis="tokenizer")
    other = replace(ready, per_byte=0.4)
    assert comparable(ready, sample) == comparable(sample, ready) == [ready, ready]
    assert comparable(TYPICAL, sample) == [TYPICAL, TYPICAL]
    assert comparable(ready, other) == [ready, other]
