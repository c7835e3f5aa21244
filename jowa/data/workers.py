"""Work in other processes: progress comes back, one failure ends all, and none outlives the process it works for."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from jowa.errors import UserError

GoesOn = Callable[[int], bool]
"""Told how much more has been done, in a progress bar's units; says whether to go on."""


class Stopped(Exception):
    """Raised where work that was told not to go on has no other way to end; nobody hears of it."""


Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task, GoesOn], Result],
    tasks: Sequence[Task],
    workers: int,
    advance: Callable[[int], Any],
    died: str,
) -> list[Result]:
    """Call `work` for each of the tasks in one of several processes.

    Args:
        work: a function that can be pickled. It should end soon after it is told not to go on.
        tasks: at least one; they can be pickled.
        workers: processes, 1 or more.
        advance: told how much more is done in all processes together.
        died: what to tell the user, and to do, if a process died.

    Returns:
        The results, in the order of the tasks.

    Raises:
        UserError: a process died (was killed for want of memory, say).
        Exception: what `work` raised first; the other tasks have ended too.
    """
    context = multiprocessing.get_context("spawn")
    done: Synchronized[int] = context.Value("q", 0)
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _begin, (done, stop)) as pool:
        futures = [pool.submit(_call, work, task) for task in tasks]
        try:
            _watch(futures, done, advance)
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise UserError(died) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _watch(futures: Sequence[Future[Any]], done: Synchronized[int], advance: Callable[[int], Any]) -> None:
    """Wait until all are finished, or until one has failed: raise what it raised."""
    seen = 0
    unfinished: set[Future[Any]] = set(futures)
    while unfinished:
        finished, unfinished = wait(unfinished, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        count = done.value
        advance(count - seen)
        seen = count


_shared: tuple[Synchronized[int], Event] | None = None


def _begin(done: Synchronized[int], stop: Event) -> None:
    global _shared
    _shared = done, stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed parent can't tell its processes to stop; what they hold half done is lost as if they were killed too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(work: Callable[[Task, GoesOn], Result], task: Task) -> Result:
    return work(task, _goes_on)


def _goes_on(count: int) -> bool:
    assert _shared is not None
    done, stop = _shared
    with done.get_lock():
        done.value += count
    return not stop.is_set()
