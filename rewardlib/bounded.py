"""What was made last, up to an amount of memory: what falls out is made again when it is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")
_keys = count()


def new_key() -> int:
    """A key that nothing else has had, dead or alive."""
    return next(_keys)


class Bounded(Generic[Made]):
    """Values by key, the least recently used of which go first. Usable from several threads."""

    def __init__(self, most: int, size: Callable[[Made], int]) -> None:
        """most: bytes of all values together; one that is larger is kept alone. size: bytes of a value."""
        self._most, self._size = most, size
        self._held = 0
        self._values: OrderedDict[int, Made] = OrderedDict()
        self._lock = Lock()

    def get(self, key: int, make: Callable[[], Made]) -> Made:
        """The value of a key, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = made
                self._held += self._size(made)
            while self._held > self._most and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._held -= self._size(dropped)
        return made
