"""Building modules whose weights are about to be read from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

_DRAWS = {"normal_", "uniform_", "kaiming_uniform_"}


class Unfilled(TorchFunctionMode):
    """Within it no weight is drawn at random: what would have been holds arbitrary numbers.

    For large models drawing takes longer than reading. Only `orthogonal_` computes all the same, of arbitrary numbers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
