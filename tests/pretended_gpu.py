"""A GPU to test with where there is none: CPU tensors that say they are on one, and are as hard to mix with others.

Values are real, so whole runs go on it. It refuses, and notes, what a GPU would: see `OnGpu` and `PretendedGpu`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from host_syncs import WAITING
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # which a GPU can hold, copy and fill, and hardly more
COPIES = {"copy_", "_to_copy", "clone", "fill_", "zero_", "empty_like", "zeros_like", "new_zeros", "new_empty", "cat"}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution", "mv", "dot"}


class OnGpu(Tensor):
    """A tensor whose numbers lie in `inner`, on the CPU; to Python it is on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        with torch.inference_mode(False):
            made: OnGpu = Tensor._make_wrapper_subclass(
                cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
            )
            made.inner = inner.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        with torch.inference_mode(False):
            return PretendedGpu.present.compute(function, arguments, options or {})


@functools.cache
def made_of_others(function: Any) -> bool:
    """Whether an operation is a mere name for several; in inference mode it comes undone by its name."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), COMPOSITE.name))


def unwrapped(value: Any, found: list[Tensor]) -> Any:
    """An operation's argument as the CPU can compute with it; its tensors are noted in `found`."""
    if isinstance(value, Tensor):
        found.append(value)
        return value.inner if type(value) is OnGpu else value
    return [unwrapped(part, found) for part in value] if isinstance(value, list | tuple) else value


def wrapped(value: Any, known: dict[int, OnGpu]) -> Any:
    """An operation's result, on the GPU; what is one of its arguments stays that tensor."""
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else OnGpu(value)
    return type(value)(wrapped(part, known) for part in value) if isinstance(value, list | tuple) else value


class Launch(NamedTuple):
    """What a CUDA graph records: a call of `function`, and the tensors its results land in."""

    function: Any
    arguments: Any
    options: Any
    results: list[Tensor]

    def replay(self) -> None:
        new = [part for part in tree_leaves(self.function(*self.arguments, **self.options)) if isinstance(part, Tensor)]
        for held, value in zip(self.results, new, strict=True):
            if held.data_ptr() != value.data_ptr():
                held.copy_(value)


class PretendedGpu(TorchFunctionMode):
    """Inside `pretended_gpu()`: `waits` counts by operation what made the host wait; `strict` makes that an error.

    What is copied to the host without waiting is rubbish there until an event or another wait: see `arrive`.
    """

    present: PretendedGpu

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.strict = False
        self.tape: list[Launch] | None = None
        self._underway: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def never_waiting(self) -> Iterator[None]:
        """Waiting for the GPU in this block is an error."""
        self.strict = True
        try:
            yield
        finally:
            self.strict = False

    def wait(self, name: str) -> None:
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if self.strict:
            raise RuntimeError(f"{name} waits for the GPU")
        self.waits[name] += 1
        self.arrive()

    def arrive(self) -> None:
        """Let what is being copied to the host be there."""
        for there, value in self._underway:
            there.copy_(value)
        self._underway.clear()

    def compute(self, function: Any, arguments: Any, options: Any) -> Any:
        """One operation some of whose tensors are on the GPU."""
        name = function.overloadpacket.__name__
        if made_of_others(function):
            return torch.no_grad()(function._op_dk)(COMPOSITE, *arguments, **options)
        if name == "copy_" and (type(arguments[0]) is OnGpu) != (type(arguments[1]) is OnGpu):
            return self._copy(arguments[0], arguments[1], len(arguments) > 2 and arguments[2])
        tensors: list[Tensor] = []
        opened = [unwrapped(part, tensors) for part in arguments]
        named = {key: unwrapped(part, tensors) for key, part in options.items()}
        self._check(name, arguments, tensors)
        lacking = tensors[0].dtype in UNSIGNED and name not in COPIES and not function.is_view
        if lacking or (name in PRODUCTS and not tensors[0].is_floating_point()):
            raise NotImplementedError(f'"{name}_cuda" not implemented for {tensors[0].dtype}')
        results = function(*opened, **named)
        self._note(function, opened, named, results)
        return wrapped(results, {id(part.inner): part for part in tensors if type(part) is OnGpu})

    def _check(self, name: str, arguments: Any, tensors: list[Tensor]) -> None:
        strangers = [part for part in tensors if not isinstance(part, OnGpu) and part.dim() > 0]
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            places = [part for part in arguments[1] if part is not None]
            if any(part.dtype in (torch.bool, torch.uint8) for part in places):
                self.wait("a mask as index")
            if any(not isinstance(part, OnGpu) for part in places):
                self.wait("an index from the host")
            strangers = [part for part in strangers if not any(part is place for place in places)]
        if strangers:
            raise RuntimeError(f"{name}: expected all tensors on one device, but found cuda:0 and cpu")
        if name in WAITING:
            self.wait(name)

    def _copy(self, to: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
        if not non_blocking or self.tape is not None:
            self.wait("a copy between host and GPU")
        if isinstance(to, OnGpu):
            to.inner.copy_(source)
        else:
            value = to.new_empty(to.shape).copy_(source.inner)
            to.copy_(value)
            if non_blocking:
                to.fill_(torch.nan if to.is_floating_point() else 1)
                self._underway.append((to, value))
        return to

    def _note(self, function: Any, arguments: Any, options: Any, results: Any) -> None:
        if self.tape is not None:
            kept = [part for part in tree_leaves(results) if isinstance(part, Tensor)]
            self.tape.append(Launch(function, arguments, options, kept))

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        name = getattr(function, "__name__", "")
        if (special := getattr(self, f"_{name.strip('_')}_of", None)) is not None:
            return special(function, *arguments, **options)
        if options.pop("pin_memory", False):
            return function(*arguments, **options)
        if options.get("device") is not None:
            device = torch.device(options["device"])
            with torch.inference_mode(False) if device.type == "cuda" else nullcontext():
                made = function(*arguments, **options | {"device": "cpu"})
            if device.type == "cpu" or isinstance(made, OnGpu):
                return made
            if name in ("tensor", "as_tensor"):
                self.wait("a tensor made from the host's numbers")
            self._note(function, arguments, options | {"device": "cpu"}, made)
            return OnGpu(made).requires_grad_(made.requires_grad)
        return function(*arguments, **options)

    def _to_of(self, function: Any, tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        copy = options.pop("copy", False)
        if arguments and isinstance(arguments[0], Tensor):
            arguments = (arguments[0].device, arguments[0].dtype, *arguments[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*arguments, **options)
        more = {"memory_format": layout or torch.preserve_format}
        if device is None or device.type == tensor.device.type:
            return function(tensor, dtype=dtype or tensor.dtype, copy=copy, **more)
        if device.type == "cuda":
            if not non_blocking:
                self.wait("a copy between host and GPU")
            moved = OnGpu(torch.empty_like(tensor).copy_(tensor.detach()))
        else:
            moved = self._copy(torch.empty_like(tensor.inner), tensor.detach(), non_blocking)
        return function(moved, dtype=dtype or tensor.dtype, **more)

    def _cpu_of(self, function: Any, tensor: Tensor) -> Tensor:
        return self._to_of(Tensor.to, tensor, "cpu")

    def _pin_memory_of(self, function: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def _tolist_of(self, function: Any, tensor: Tensor) -> Any:
        if not isinstance(tensor, OnGpu):
            return function(tensor)
        self.wait("tolist")
        return tensor.inner.tolist()

    def _numpy_of(self, function: Any, tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        if isinstance(tensor, OnGpu):
            raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")
        return function(tensor, *arguments, **options)

    def _one_hot_of(self, function: Any, tensor: Tensor, classes: int) -> Tensor:
        # On a CPU it is made otherwise, of a tensor that no Python code sees being made.
        return OnGpu(function(tensor.inner, classes)) if isinstance(tensor, OnGpu) else function(tensor, classes)

    def _data_ptr_of(self, function: Any, tensor: Tensor) -> int:
        return int(function(tensor.inner if isinstance(tensor, OnGpu) else tensor))

    def _new_tensor_of(self, function: Any, tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if not isinstance(tensor, OnGpu):
            return function(tensor, *arguments, **options)
        self.wait("a tensor made from the host's numbers")
        return OnGpu(function(tensor.inner, *arguments, **options))

    def _set_of(self, function: Any, tensor: Tensor, value: Any) -> None:
        """An attribute; a parameter's data, where the GPU has a part in it, is changed with all that is its."""
        if function != Tensor.data.__set__ or not (isinstance(tensor, OnGpu) or isinstance(value, OnGpu)):
            return function(tensor, value)
        named, new = isinstance(tensor, torch.nn.Parameter), value.detach()
        new = torch.nn.Parameter(new, tensor.requires_grad) if named else new
        grad, tensor.grad = tensor.grad, None
        torch.utils.swap_tensors(tensor, new)
        tensor.grad = None if grad is None else self._to_of(Tensor.to, grad, tensor.device, tensor.dtype)
