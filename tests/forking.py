"""Processes forked off one that has imported what takes seconds. The first who asks starts it, alike for all."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any
from unittest.mock import patch

from launch import ENVIRONMENT

PRELOADED = [
    "pytest",
    "hypothesis",
    "jowa.pretrain",
    "jowa.evaluate",
    "jowa.transfer",
    "jowa.data.import",
    "jowa.data.record",
    "jowa.data.fetch",
    "torch._dynamo",  # an optimiser's first step imports it
]


def forking() -> ForkServerContext:
    """Processes of this context need not import anything; they know the environment as it was at the tests' start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, ENVIRONMENT, clear=True):
        forkserver.ensure_running()
    return context


def exit_codes(work: Callable[..., None], *arguments: Sequence[Any], timeout: float = 60) -> list[int | None]:
    """Call `work` with each of the arguments at once, in processes of their own.

    None stands for one that wasn't done in time; it is killed.
    """
    processes = [forking().Process(target=work, args=each) for each in arguments]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout)
        return [process.exitcode for process in processes]
    finally:
        end(processes)


def end(processes: Sequence[ForkServerProcess]) -> None:
    """Kill what still runs: else the tests' own end would wait for it."""
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
