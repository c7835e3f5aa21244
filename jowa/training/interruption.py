"""Stopping at the next step when the scheduler (SIGTERM) or the user (SIGINT) asks for it, on all processes alike."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from jowa.training.distribution import Distribution

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_SIGNAL = 1.0
"""Seconds within which signals count as one: a scheduler and torchrun may both pass on the same."""


class Interruption:
    """While it is entered, a signal waits for the end of a step; a second Ctrl-C ends the program as it would without.

    With several processes each step's beginning starts an all-reduce of the signals' numbers and its end waits for
    that, so that all stop after the same step. It runs on the CPU beside the step: no GPU is waited for.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._signal = 0
        self._speaks = distribution.is_main
        self._received = 0.0
        self._previous: dict[int, Any] = {}
        self._agreement: tuple[dist.Work, torch.Tensor] | None = None
        # The default group may be NCCL's, which knows no tensors on the CPU.
        alone = distribution.ranks == 1
        self._group = None if alone else dist.new_group(backend="gloo", timeout=timedelta(hours=24))

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def begin_step(self) -> None:
        if self._group is not None:
            number = torch.tensor([self._signal])
            work = dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group, async_op=True)
            assert work is not None
            self._agreement = work, number

    def end_step(self) -> int | None:
        """The signal after which to stop now, the same on every process; None goes on."""
        if self._agreement is None:
            return self._signal or None
        work, number = self._agreement
        work.wait()
        return int(number) or None

    def agree(self) -> int | None:
        """The signal that has come meanwhile, the same on every process, all of which wait for each other."""
        self.begin_step()
        return self.end_step()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal == 0:
            self._signal, self._received = number, now
            if self._speaks:
                # Not print: the signal may have come while something is being printed.
                with contextlib.suppress(OSError):
                    os.write(2, f"\njowa: {signal.Signals(number).name}: stopping after this step\n".encode())
        elif number == signal.SIGINT and now - self._received > ONE_SIGNAL:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
