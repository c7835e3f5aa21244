"""What `torch.cuda` and PyTorch's own code say while a GPU is pretended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from pretended_gpu import Launch, PretendedGpu
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Event:
    """Marks a moment on the GPU; when the host has waited for it, what was copied before is there."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._gpu = PretendedGpu.present

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None:
        self._gpu.wait("an event")

    def elapsed_time(self, other: Event) -> float:
        return 1.0


class Stream:
    def wait_stream(self, other: Stream) -> None: ...


class CUDAGraph:
    tape: list[Launch]

    def replay(self) -> None:
        for launch in self.tape:
            launch.replay()


@contextmanager
def graph(recorded: CUDAGraph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    """Recording computes nothing on a GPU, so what it leaves is rubbish."""
    gpu = PretendedGpu.present
    recorded.tape = gpu.tape = []
    try:
        yield
    finally:
        gpu.tape = None
    for launch in recorded.tape:
        for result in launch.results:
            given = [part for part in tree_leaves((launch.arguments, launch.options)) if isinstance(part, Tensor)]
            if not any(part.untyped_storage().data_ptr() == result.untyped_storage().data_ptr() for part in given):
                result.fill_(torch.nan if result.is_floating_point() else 1)


class Autocast(torch.autocast):
    """What a GPU's would be, on the CPU that computes; a CPU's own has no effect on a GPU."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        assert device_type == "cuda" or not enabled, "a CPU's autocast has no effect on a GPU"
        super().__init__("cpu", dtype, enabled)


class Generator(torch.Generator):
    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        return made

    device = property(lambda self: self.where)


def fakes(count: int) -> dict[str, Any]:
    """What `torch.cuda` says of so many GPUs."""
    return {
        "is_available": lambda: True, "device_count": lambda: count, "current_device": lambda: 0,
        "set_device": lambda device: None, "manual_seed_all": lambda seed: None, "is_bf16_supported": lambda: True,
        "mem_get_info": lambda device=None: (2**33, 2**34), "memory_reserved": lambda device=None: 2**30,
        "memory_allocated": lambda device=None: 2**29, "max_memory_allocated": lambda device=None: 2**30,
        "get_device_name": lambda device=None: "NVIDIA H200", "graph_pool_handle": lambda: (0, 1),
        "synchronize": lambda device=None: PretendedGpu.present.wait("synchronize"),
        "Event": Event, "Stream": Stream, "current_stream": lambda device=None: Stream(), "CUDAGraph": CUDAGraph,
        "stream": lambda stream: nullcontext(), "graph": graph, "is_current_stream_capturing": lambda: False,
    }  # fmt: skip


def grouped(tensors: list[list[Tensor]], *arguments: Any) -> dict[Any, Any]:
    """Lists of tensors by device and type, where PyTorch asks its own code, which knows nothing of the pretence."""
    found = by_device(tensors, *arguments)
    return {(lists[0][0].device, kind): (lists, places) for (_, kind), (lists, places) in found.items()}


by_device = torch._C._group_tensors_by_device_and_dtype


@contextmanager
def pretended_gpu(count: int = 1) -> Iterator[PretendedGpu]:
    """In this block, and in the threads begun in it, there is a GPU; nothing is compiled."""
    gpu = PretendedGpu.present = PretendedGpu()
    run = threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with gpu:
            run(thread)

    with ExitStack() as held:
        for name, fake in fakes(count).items():
            held.enter_context(patch.object(torch.cuda, name, fake))
        for owner, name, fake in (
            (torch, "autocast", Autocast), (torch, "Generator", Generator), (threading.Thread, "run", run_there),
            (torch._C, "_group_tensors_by_device_and_dtype", grouped),
            (torch, "compile", lambda module, **_: module), (torch.nn.Module, "compile", lambda module, **_: None),
        ):  # fmt: skip
            held.enter_context(patch.object(owner, name, fake))
        held.enter_context(gpu)
        yield gpu
