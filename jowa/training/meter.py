"""What is logged: means over steps, tallies, and how fast it went."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from jowa.training.distribution import Distribution
from jowa.training.learner import TALLY
from jowa.training.speed import Workload
from jowa.training.tallies import summarise


class Meter:
    """Collects the metrics of steps; nothing leaves the device until they are read, in one copy."""

    def __init__(self, distribution: Distribution, workload: Workload) -> None:
        self.distribution = distribution
        self.workload = workload
        self.total: dict[str, Tensor] = {}
        self.rates: dict[str, float] = {}
        self.steps = 0
        self.restart_clock()

    def add(self, metrics: dict[str, Tensor], rates: dict[str, float], imagines: bool = False) -> None:
        """metrics: this process's shares of one step; rates: its learning rates; imagines: whether half is imagined."""
        self.total = {key: self.total.get(key, 0) + value for key, value in metrics.items()}
        self.rates = rates
        self.steps += 1
        self.timed_steps += 1
        self.imagining_steps += imagines

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in this block counts as waiting for data."""
        before = time.perf_counter()
        yield
        self.waited += time.perf_counter() - before

    def restart_clock(self) -> None:
        self.started, self.timed_steps, self.waited = time.perf_counter(), 0, 0.0
        self.imagining_steps = 0

    def read(self) -> dict[str, float]:
        """The metrics since the last reading: means over steps and sums over processes, and all processes' speed."""
        values = self._means() | self.rates
        seconds = max(time.perf_counter() - self.started, 1e-9)
        values |= self.workload.speed(self.timed_steps, seconds, self.distribution.ranks, self.imagining_steps)
        values["speed/loader_wait"] = self.waited / seconds
        values |= memory(self.distribution.device)
        self.total, self.steps = {}, 0
        self.restart_clock()
        return values

    def _means(self) -> dict[str, float]:
        flat = torch.cat([value.float().flatten() for value in self.total.values()])
        sums = self.distribution.sum(flat).cpu().split([value.numel() for value in self.total.values()])
        shaped = {key: part.view(value.shape) for (key, value), part in zip(self.total.items(), sums, strict=True)}
        means = {key: float(value) / self.steps for key, value in shaped.items() if not key.startswith(TALLY)}
        return means | summarise({key.removeprefix(TALLY): v for key, v in shaped.items() if key.startswith(TALLY)})


def memory(device: torch.device) -> dict[str, float]:
    """The most memory this process has had, in GB: of the machine, and of its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    values = {"memory/host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == "cuda":
        values["memory/gpu_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return values
