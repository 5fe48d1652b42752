"""Work done ahead: while a model looks at one batch, a thread prepares the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int = 1) -> Iterator[R]:
    """``work`` of every item, in the items' order, done by threads while the caller is busy.

    At most ``workers`` results are made before they are asked for, so that memory does not grow
    with the number of items. What ``work`` raises is raised where its result would be.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, initializer=compute_alone) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def compute_alone() -> None:
    """Have torch compute on this thread alone.

    Otherwise it gets a team of threads of its own, and OpenMP, which then counts more threads than
    cores, puts the model's team to sleep between any two operations: forwards took half as long
    again.
    """
    import torch  # here: who only decodes images can do without it

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    # This also holds for threads that are yet to come, the model's perhaps; said from another
    # thread, it does not hold for this one.
    other = Thread(target=torch.set_num_threads, args=(count,))
    other.start()
    other.join()
