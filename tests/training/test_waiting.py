import threading
import time

import pytest

dist = pytest.importorskip("torch.distributed")

from training.waiting import SlowRank, WaitingClock  # noqa: E402


def test_rank_that_never_waits_while_others_do_is_named_with_host_and_share():
    judge = SlowRank(["a", "b", "c"])
    assert judge.add([4.0, 0.5, 4.2], [10.0, 10.0, 10.0]) is None
    said = judge.add([4.0, 0.5, 4.2], [10.0, 10.0, 10.0])
    assert said == "rank 1 on b is slow: the others waited for it 36% of the last 20 s"
    # A new window begins: what was slow once is forgotten.
    assert judge.add([1.0, 1.2, 1.1], [21.0, 21.0, 21.0]) == ""


def test_waiting_for_transfers_that_all_have_names_nobody():
    assert SlowRank(["a", "b"]).add([9.0, 9.5], [21.0, 21.0]) == ""


def test_clock_measures_the_wait_for_a_late_process_and_not_its_own_work(tmp_path):
    """Two process groups of one process's threads: the second one comes 0.3 s late."""
    before = dist.Work.wait
    clock = WaitingClock()
    clock.start()
    try:
        groups, store = {}, dist.HashStore()

        def one(rank, delay_s):
            groups[rank] = dist.ProcessGroupGloo(store, rank, 2)
            time.sleep(delay_s)
            import torch

            groups[rank].allreduce([torch.zeros(4)]).wait()

        threads = [threading.Thread(target=one, args=pair) for pair in ((0, 0.0), (1, 0.3))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        dist.Work.wait = before
    assert 0.2 < clock.waited_s < 5
