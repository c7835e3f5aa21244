"""Operations at which the host must wait for a GPU, found on any device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim",
           "unique_consecutive", "repeat_interleave", "bincount", "histc"}  # fmt: skip
"""Operations whose result, or its shape, the host must know before it goes on."""


class HostSyncs(TorchDispatchMode):
    """Counts by name what inside the `with` block would make the host wait, were the tensors on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        # A mask as an index is turned into places first, whose number the host must know.
        indices = arguments[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in WAITING or masks:
            self.found[name] += 1
        return function(*arguments, **(options or {}))
