"""What a processor makes of a prompt's images. It takes ten times the memory of their files, and a
step has hundreds of prompts: of all of them together what was used last is kept, and the rest made
again when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from rewardlib.bounded import Bounded, new_key

MOST = 128 * 2**20  # bytes of what is kept
SMALL = 1024  # bytes of a tensor that is always kept, such as the sizes of grids

Tensors = Mapping[str, Tensor]


class ImageInputs(Tensors):
    """The model's inputs of a prompt's images, by name."""

    def __init__(self, made: Tensors, names: Sequence[str], make: Callable[[], Tensors]) -> None:
        """made: all that ``make``, the processor's call, has returned. names: what is of images."""
        self._names = [name for name in names if name in made]
        self._make, self._key = make, new_key()
        self._small = {name: made[name] for name in self._names if made[name].nbytes <= SMALL}
        if self._names:
            _kept.get(self._key, lambda: self._large(made))

    def __getitem__(self, name: str) -> Tensor:
        if name in self._small:
            return self._small[name]
        return _kept.get(self._key, lambda: self._large(self._make()))[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _large(self, made: Tensors) -> dict[str, Tensor]:
        return {name: made[name] for name in self._names if name not in self._small}


def _bytes_of(inputs: Tensors) -> int:
    return sum(values.nbytes for values in inputs.values())


_kept: Bounded[dict[str, Tensor]] = Bounded(MOST, _bytes_of)
