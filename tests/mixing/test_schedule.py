"""Schedules in whole train steps: rounding down, batch lines, ramps, contexts; published step counts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.schedule import Amount, BatchLine, Phase, ScheduleError, Steps, cut_steps, ramp_sequences, scale


def phase(number, unit="tokens", context=10, ramp=0, name="main"):
    return Phase(name, Amount(number, unit), {"web": 1}, context, Amount(ramp))


def test_cut_steps_of_a_budget_rounds_down_to_whole_steps():
    # a step is 4 sequences of 10 tokens; 99 tokens hold two
    assert cut_steps([phase(99)], [BatchLine(0, 40)]) == [[Steps(2, 4)]]


def test_cut_steps_of_the_published_three_trillion_tokens():
    published = Phase("all", Amount(3_000_001_101_824), {"web": 1}, 2048)

    [[steps]] = cut_steps([published], [BatchLine(0, 1024 * 2048)])

    assert steps == Steps(1_430_512, 1024)
    assert steps.num_sequences * 2048 == 3_000_001_101_824


def test_cut_steps_of_three_trillion_even_is_one_step_less():
    [[steps]] = cut_steps([Phase("all", Amount(3 * 10**12), {"web": 1}, 2048)], [BatchLine(0, 1024 * 2048)])

    assert steps.num_steps == 1_430_511


def test_cut_steps_of_the_published_two_languages_in_train_steps():
    # English for 101,100 steps, then mixed for 105,900
    english, mixed = phase(101_100, "train steps", 2048), phase(105_900, "train steps", 2048, name="mixed")

    assert cut_steps([english, mixed], [BatchLine(0, 512 * 2048)]) == [[Steps(101_100, 512)], [Steps(105_900, 512)]]


def test_cut_steps_of_another_context_keeps_the_tokens_of_a_step():
    assert cut_steps([phase(80), phase(80, context=20)], [BatchLine(0, 40)]) == [[Steps(2, 4)], [Steps(2, 2)]]


def test_cut_steps_of_a_batch_that_is_no_multiple_of_the_context_rounds_the_step_down():
    assert cut_steps([phase(90)], [BatchLine(0, 35)]) == [[Steps(3, 3)]]


def test_cut_steps_with_a_growing_batch_changes_at_the_last_whole_step_before_each_line():
    # 20 tokens a step up to 70 (3 steps, 60 tokens), then 40 a step: (200 - 60) / 40 = 3
    assert cut_steps([phase(200)], [BatchLine(0, 20), BatchLine(70, 40)]) == [[Steps(3, 2), Steps(3, 4)]]


def test_cut_steps_with_a_line_between_phases_counts_trained_tokens():
    phases = [phase(40), phase(100, name="next")]

    assert cut_steps(phases, [BatchLine(0, 20), BatchLine(60, 40)]) == [[Steps(2, 2)], [Steps(1, 2), Steps(2, 4)]]


def test_cut_steps_with_a_line_that_begins_with_a_phase_does_not_ask_the_line_before_for_its_context():
    phases = [phase(40), phase(80, context=40, name="long")]

    assert cut_steps(phases, [BatchLine(0, 20), BatchLine(40, 80)]) == [[Steps(2, 2)], [Steps(1, 2)]]


def test_cut_steps_in_train_steps_counts_steps_of_any_size():
    assert cut_steps([phase(5, "train steps")], [BatchLine(0, 20), BatchLine(40, 40)]) == [[Steps(2, 2), Steps(3, 4)]]


def test_cut_steps_in_sequences_rounds_down():
    assert cut_steps([phase(11, "sequences")], [BatchLine(0, 40)]) == [[Steps(2, 4)]]


def test_cut_steps_of_a_phase_shorter_than_a_step_is_refused():
    with pytest.raises(ScheduleError, match="less than one train step"):
        cut_steps([phase(39)], [BatchLine(0, 40)])


def test_cut_steps_of_a_step_shorter_than_a_sequence_is_refused():
    with pytest.raises(ScheduleError, match="holds no sequence"):
        cut_steps([phase(100, context=50)], [BatchLine(0, 40)])


@pytest.mark.parametrize("starts", [[], [5], [0, 10, 10], [0, 20, 10]])
def test_cut_steps_with_lines_that_do_not_rise_from_zero_is_refused(starts):
    with pytest.raises(ScheduleError, match="rise from 0"):
        cut_steps([phase(100)], [BatchLine(start, 10) for start in starts])


@given(
    st.lists(st.tuples(st.integers(200, 3000), st.sampled_from([5, 10, 20])), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 500), st.integers(20, 200)), max_size=4),
)
def test_cut_steps_of_any_schedule_leaves_less_than_one_step_of_each_phase(spans, growth):
    lines = [BatchLine(0, 60)]
    for gap, tokens in growth:
        lines.append(BatchLine(lines[-1].from_tokens + gap, tokens))
    phases = [phase(tokens, context=context) for tokens, context in spans]

    for one, runs in zip(phases, cut_steps(phases, lines), strict=True):
        left = one.span.number - sum(run.num_sequences for run in runs) * one.context
        assert 0 <= left < max(line.tokens for line in lines)
        assert all(a.sequences != b.sequences for a, b in pairwise(runs))


def test_ramp_sequences_round_down_to_whole_steps():
    phases = [phase(400), phase(400, ramp=99)]
    batch = [BatchLine(0, 40)]

    assert ramp_sequences(phases, cut_steps(phases, batch), batch) == [0, 8]


def test_ramp_in_the_first_phase_is_refused():
    phases = [phase(400, ramp=80)]
    batch = [BatchLine(0, 40)]

    with pytest.raises(ScheduleError, match="no weights come before"):
        ramp_sequences(phases, cut_steps(phases, batch), batch)


def test_ramp_longer_than_its_phase_is_refused():
    phases = [phase(400), phase(80, ramp=120)]
    batch = [BatchLine(0, 40)]

    with pytest.raises(ScheduleError, match="longer than the phase"):
        ramp_sequences(phases, cut_steps(phases, batch), batch)


def test_scale_shrinks_spans_and_ramps_alike():
    scaled = scale([phase(900), phase(100, ramp=50)], 100)

    assert [one.span.number for one in scaled] == [90, 10]
    assert scaled[1].ramp.number == 5


def test_scale_of_a_phase_in_train_steps_is_refused():
    with pytest.raises(ScheduleError, match="give the phase in tokens"):
        scale([phase(10, "train steps")], 100)
