"""Seconds of several things that take turns in one process, so that a busy machine is busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Work = Callable[[], object]


class Rounds:
    """Seconds of several things, measured in rounds that do each once."""

    def __init__(self, works: Mapping[str, Work], rounds: int, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                self.seconds[name].append(time.perf_counter() - started)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def times(self, name: str, *others: str) -> float:
        """How many times as long as the others together: the median of the rounds' ratios."""
        rounds = zip(self.seconds[name], *(self.seconds[other] for other in others), strict=True)
        return statistics.median(one / sum(rest) for one, *rest in rounds)
