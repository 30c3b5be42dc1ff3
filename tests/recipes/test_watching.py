"""What a person is told while a training runs."""

from recipes.pretraining.watching import Watching, held_out_line, progress_note


def test_progress_note_has_what_is_known_and_nothing_else():
    status = {"tokens": 12_300_000, "tokens_per_s": 2107.4, "mfu": 0.412, "loss": 3.2146, "gradient_norm": 0.5}
    held_out = {"step": 5, "loss": 3.5, "bits_per_byte": 1.25, "domains": {}}
    note = progress_note({**status, "step": 5, "learning_rate": 3e-4, "held_out": held_out})
    assert note == (
        "12.3M tokens  2,107 tokens/s  MFU 41%  loss 3.215  held out 3.500 (1.250 bpb)  norm 0.50  lr 3.00e-04"
    )
    later = progress_note({**status, "step": 9, "held_out": held_out})
    assert "held out at step 5 3.500 (1.250 bpb)" in later
    assert progress_note({"tokens": 0, "loss": None, "mfu": None}) == ""


def test_held_out_line_shows_the_greatest_losses_first_and_counts_the_rest():
    domains = {f"d{n:02}": [n / 10, None] for n in range(20)} | {"best": [0.01, 0.5], "none": [None, None]}
    line = held_out_line({"step": 7, "domains": domains})
    assert line.startswith("train step 7, held out: d19 1.900, d18 1.800")
    assert line.endswith("and 9 more")


def test_each_thing_is_said_once(tmp_path):
    said, notes = [], []
    watching = Watching(tmp_path, lambda completed, note: notes.append((completed, note)), said.append)
    held_out = {"step": 5, "loss": 2.0, "bits_per_byte": None, "domains": {"web": [2.0, None]}}
    status = {"step": 5, "resumed": "step-00000004-ab", "passed_over": ["passed over: step-00000005-ab: damaged"]}
    for step in (5, 6, 7):
        watching.see({**status, "step": step, "held_out": held_out, "slow": "rank 1 on b is slow" if step > 5 else ""})
    assert [completed for completed, _ in notes] == [5, 6, 7]
    assert said == [
        "  passed over: step-00000005-ab: damaged",
        "  continues from step-00000004-ab",
        "  train step 5, held out: web 2.000",
        "  rank 1 on b is slow",
    ]
