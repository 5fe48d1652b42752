"""Work done ahead comes in order, is bounded, and fails where its result would be."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from labeling.ahead import ahead
from labeling.batching import batches, fill


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_items_order(workers: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (5 - n % 5))
        return n * n

    assert list(ahead(work, range(20), workers)) == [n * n for n in range(20)]


def test_the_next_is_made_while_this_one_is_used() -> None:
    made = threading.Event()
    results = ahead(lambda n: made.set() if n == 1 else None, range(2))
    next(results)
    assert made.wait(5)
    list(results)


def test_no_more_is_made_than_is_asked_for() -> None:
    begun: list[int] = []
    results = ahead(begun.append, range(100))
    for _ in range(3):
        next(results)
    results.close()
    assert len(begun) <= 5


def test_an_error_comes_in_its_items_place() -> None:
    results = ahead(lambda n: 1 // n, [2, 1, 0, 1])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches_hold_what_is_alike_in_order() -> None:
    jobs = ["a1", "b1", "a2", "a3", "b2"]
    made = list(batches(jobs, 2, lambda job: job[0]))
    assert made == [["a1", "a2"], ["a3"], ["b1", "b2"]]
    assert list(batches([], 2)) == []


def test_a_batch_is_filled_with_its_last_row() -> None:
    rows = torch.arange(6).reshape(2, 3)
    assert fill(rows, 4).tolist() == [[0, 1, 2], [3, 4, 5], [3, 4, 5], [3, 4, 5]]
    assert fill(rows, 2) is rows


def test_torch_computes_alone_there_and_as_before_elsewhere() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(ahead(lambda _: torch.get_num_threads(), range(3))) == [1, 1, 1]
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)
