"""One process or many: the same program under `python` and under `torchrun`."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import jowa
from jowa.errors import UserError
from jowa.resuming import first_difference

Result = TypeVar("Result")


@dataclass(frozen=True)
class Distribution:
    """This process's place among all; rank 0 alone writes files."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
        return tensor

    def join(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, of one shape and of any type, one after the other along the first dimension."""
        if self.ranks == 1:
            return tensor
        # Not every type can be sent, but its bytes can.
        mine = tensor.contiguous().flatten().view(torch.uint8)
        everyone = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(everyone, mine)
        return torch.cat(everyone).view(tensor.dtype).view(-1, *tensor.shape[1:])

    def barrier(self) -> None:
        if self.ranks > 1:
            dist.barrier()

    def gather(self, value: Result) -> list[Result]:
        """Every process's value, in the order of ranks, on every process."""
        if self.ranks == 1:
            return [value]
        values: list[Result] = [value] * self.ranks
        dist.all_gather_object(values, value)
        return values

    def on_main(self, work: Callable[[], Result]) -> Result | None:
        """Run `work` on rank 0; a UserError there is raised on every process, so that none waits for ever."""
        messages: list[str | None] = [None]
        result = None
        if self.is_main:
            try:
                result = work()
            except (UserError, OSError) as error:
                messages[0] = str(error)
        if self.ranks > 1:
            dist.broadcast_object_list(messages, src=0)
        if messages[0] is not None:
            raise UserError(messages[0])
        return result

    def from_main(self, work: Callable[[], Result]) -> Result:
        """What `work` returns on rank 0, on every process; errors as in `on_main`."""
        result = self.gather(self.on_main(work))[0]
        return cast(Result, result)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes."""
        if self.ranks == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)


def rank_and_ranks() -> tuple[int, int]:
    """(rank, number of processes) as torchrun's environment says, before anything is started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str, key: str) -> torch.device:
    """'auto' is this process's GPU where there is one. Raises UserError naming the `key` for one that isn't there."""
    if name == "auto":
        # Fewer GPUs than processes on this machine: all of them use the CPU.
        enough = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        name = "cuda" if enough else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"{key}={name} is no device: choose auto, cpu or cuda.")
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"{key}={name} was asked for, but there is no GPU here: choose auto or cpu.")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        elif int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise UserError(f"{key}={name} is one GPU, and each process needs its own: choose auto or cuda.")
        if device.index >= torch.cuda.device_count():
            raise UserError(f"{key}={name} needs GPU {device.index}, but there are only {torch.cuda.device_count()}.")
        torch.cuda.set_device(device)
        # PyTorch lets convolutions round float32 to 10 bits; codes near ties would then depend on the machine.
        torch.backends.cudnn.allow_tf32 = False
    return device


@contextmanager
def distributed(device_name: str, key: str = "training.device") -> Iterator[Distribution]:
    """Join the process group that torchrun announces, if any, and leave it at the end. `key`: the device's, in errors.

    Within another such block the group stays as it is: of a group that was left no second one can be made.

    Raises UserError for a device that isn't there.
    """
    rank, ranks = rank_and_ranks()
    device = choose_device(device_name, key)
    joins = ranks > 1 and not dist.is_initialized()
    if joins:
        # Rank 0 may encode a large data set while the others wait.
        backend = "nccl" if device.type == "cuda" else "gloo"
        gpu = device if device.type == "cuda" else None
        dist.init_process_group(backend, timeout=timedelta(hours=24), device_id=gpu)
    try:
        with warnings.catch_warnings():
            # A name that older versions need, and strides of 1×1 kernels, which mean nothing.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
            yield Distribution(rank, ranks, device)
    finally:
        if joins:
            dist.destroy_process_group()


def check_agreement(distribution: Distribution, values: Mapping[str, Any]) -> None:
    """Raises UserError on every process unless all were started with the same values and versions."""
    mine = {"the version of jowa": jowa.__version__, "the version of PyTorch": torch.__version__, **values}
    first, *others = distribution.gather(mine)
    for rank, theirs in enumerate(others, start=1):
        key = first_difference(first, theirs)
        if key is not None:
            raise UserError(
                f"The processes disagree: {key} is {first.get(key)} on rank 0 and {theirs.get(key)} on rank {rank}; "
                "start all of them with the same settings and installation."
            )
