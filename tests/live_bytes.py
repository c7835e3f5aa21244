"""How many bytes of tensors are alive at once, on any device, the meta device included."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Within the `with` block: the most bytes of memory that tensors made in it held at one time, in `peak`.

    What an operation allocates and frees inside itself isn't seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._references: Counter[int] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_iter((arguments, options)) if isinstance(x, Tensor)}
        out = function(*arguments, **(options or {}))
        for made in tree_iter(out):
            if isinstance(made, Tensor):
                self._follow(made, given)
        self.peak = max(self.peak, self.now)
        return out

    def _follow(self, made: Tensor, given: set[int]) -> None:
        storage = made.untyped_storage()
        key = storage._cdata
        if key in given and not self._references[key]:
            return  # a view of something older than the block
        if not self._references[key]:
            self.now += storage.nbytes()
        self._references[key] += 1
        weakref.finalize(made, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._references[key] -= 1
        if not self._references[key]:
            self.now -= size
