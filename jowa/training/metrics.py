"""Metrics: always one JSON line at a time; Weights & Biases or TensorBoard beside it when asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jowa.errors import UserError

FILE = "metrics.jsonl"
Sink = Callable[[str, int, Mapping[str, float]], None]


class MetricsLog:
    """Appends {"stage", "step", "time", name: value, …} lines; `step` counts optimiser steps of the stage.

    A second logger that fails is dropped with a warning: it never stops training.
    """

    def __init__(self, run: Path, logger: str = "none", active: bool = True) -> None:
        """active: False on the processes that write nothing; logger: one that `check_logger` found."""
        self.active = active
        self._file = (run / FILE).open("a", encoding="utf-8") if active else None
        self._sink: Sink | None = None
        if active:
            self._guarded(lambda: setattr(self, "_sink", make_sink(logger, run)))

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        line = {"stage": stage, "step": step, "time": round(time.time(), 3)}
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._file.write(json.dumps(line | rounded) + "\n")
        self._file.flush()
        if (sink := self._sink) is not None:
            self._guarded(lambda: sink(stage, step, values))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a logger's failure of any kind must not cost a training run
            print(f"jowa: the logger failed and is switched off: {error}", file=sys.stderr)
            self._sink = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def check_logger(logger: str) -> None:
    """Raises UserError with what to install when the logger's package is missing."""
    if logger != "none" and find_spec(logger) is None:
        raise UserError(f"training.logger={logger} needs {logger}: pip install 'jowa[{logger}]', or choose none.")


def make_sink(logger: str, run: Path) -> Sink | None:
    if logger == "wandb":
        return _wandb(run)
    if logger == "tensorboard":
        return _tensorboard(run)
    return None


def _wandb(run: Path) -> Sink:
    import wandb

    session: Any = wandb.init(project="jowa", dir=str(run), name=run.name)
    total = 0

    def log(stage: str, step: int, values: Mapping[str, float]) -> None:
        nonlocal total
        total += 1
        session.log({f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/step": step}, step=total)

    return log


def _tensorboard(run: Path) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def log(stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(f"{stage}/{name}", value, step)

    return log
