"""How long work takes on a device that the host doesn't wait for."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up the time spent in its `with` blocks: a GPU's own time, by events, or the host's."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[torch.cuda.Event] = []

    def __enter__(self) -> Stopwatch:
        self._mark(-1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark(1)

    def read(self) -> float:
        """Seconds since the last reading; waits for a GPU to come to the end of the last block."""
        seconds, events = self._seconds, self._events
        self._seconds, self._events = 0.0, []
        if events:
            events[-1].synchronize()
            seconds = sum(one.elapsed_time(other) for one, other in zip(events[::2], events[1::2], strict=True)) / 1e3
        return seconds

    def _mark(self, sign: int) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
        else:
            self._seconds += sign * time.perf_counter()
