"""Metrics: always one JSON line at a time; Weights & Biases or TensorBoard beside it when asked."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from jowa.errors import UserError
from jowa.files import write_text

FILE = "metrics.jsonl"
RUN_ID = "run_id"


class Sink(Protocol):
    """A second place that metrics go to."""

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


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
            self._guarded(lambda: sink.log(stage, step, values))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a logger's failure of any kind must not cost a training run
            print(f"jowa: the logger failed and is switched off: {error}", file=sys.stderr)
            self._sink = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if (sink := self._sink) is not None:
            self._guarded(sink.close)


def check_logger(logger: str) -> None:
    """Raises UserError with what to install when the logger's package is missing."""
    if logger != "none" and find_spec(logger) is None:
        raise UserError(f"training.logger={logger} needs {logger}: pip install 'jowa[{logger}]', or choose none.")


def run_id(run: Path) -> str:
    """Sixteen hexadecimal digits that name a run for its lifetime, however often it is resumed."""
    path = run / RUN_ID
    if not path.is_file():
        write_text(path, secrets.token_hex(8) + "\n")
    return path.read_text(encoding="utf-8").strip()


def make_sink(logger: str, run: Path) -> Sink | None:
    if logger == "wandb":
        return WandbSink(run)
    if logger == "tensorboard":
        return TensorBoardSink(run)
    return None


class WandbSink:
    """Weights & Biases: offline unless the environment's WANDB_MODE says otherwise; `wandb sync` uploads later."""

    def __init__(self, run: Path) -> None:
        import wandb

        self._session: Any = wandb.init(
            project="jowa", dir=str(run), name=run.name, id=run_id(run), resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        # Stages count their steps apart, and a resumed run comes back to earlier ones.
        self._session.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._session.log({f"{stage}/{name}": value for name, value in values.items()} | {f"{stage}/step": step})

    def close(self) -> None:
        self._session.finish()


class TensorBoardSink:
    """TensorBoard's event files in <run>/tensorboard."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
