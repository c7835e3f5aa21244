"""Work in processes: results in their order, progress, and what becomes of all when one fails or dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jowa.data.workers import GoesOn, Stopped, in_processes
from jowa.errors import UserError


def double(task: int, goes_on: GoesOn) -> int:
    assert goes_on(task)
    return 2 * task


def fail_or_wait(task: str | Path, goes_on: GoesOn) -> None:
    """One fails, the others would go on for half a minute and then make a file."""
    if task == "fail":
        raise UserError("this one failed")
    for _ in range(300):
        if not goes_on(1):
            raise Stopped
        time.sleep(0.1)
    Path(task).touch()


def die_or_wait(task: str | Path, goes_on: GoesOn) -> None:
    if task == "die":
        os._exit(1)
    fail_or_wait(task, goes_on)


def test_results_come_in_the_order_of_the_tasks() -> None:
    told: list[int] = []
    assert in_processes(double, [3, 1, 2], 2, told.append, "one has died") == [6, 2, 4]
    assert sum(told) == 6


@pytest.mark.parametrize(
    ("work", "task", "words"),
    [(fail_or_wait, "fail", "this one failed"), (die_or_wait, "die", "one has died")],
)
def test_one_that_fails_ends_all(work: Callable, task: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        in_processes(work, [tmp_path / "a", task, tmp_path / "b"], 2, lambda done: None, "one has died")
    assert not list(tmp_path.iterdir())
