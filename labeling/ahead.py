"""Work done ahead: while a model looks at one batch, a thread prepares the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int = 1) -> Iterator[R]:
    """``work`` of every item, in the items' order, done by threads while the caller is busy.

    At most ``workers`` results are made before they are asked for, so that memory does not grow
    with the number of items. What ``work`` raises is raised where its result would be.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
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
