"""Checkpoints written while training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jowa.errors import UserError
from jowa.files import write_json
from jowa.models.agent_files import agent_tensors, describe
from jowa.models.low_rank import low_rank_state
from jowa.training.checkpoint import (
    BEST,
    FOLDER,
    Place,
    Snapshot,
    list_checkpoints,
    prune,
    read_best,
    write_checkpoint,
)
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers
from jowa.training.warning import reason_of, warn

NOTHING: Mapping[str, Tensor] = {}


class Judge(NamedTuple):
    """The metric by which a stage's best checkpoint is chosen.

    measured: the settings it is measured with, JSON values; values measured otherwise aren't compared.
    """

    metric: str
    lower_is_better: bool
    measured: Mapping[str, Any] | None = None

    def prefers(self, value: float, before: Mapping[str, Any] | None) -> bool:
        """Whether a value is better than the best before; one of another metric doesn't count."""
        if before is None or (before["metric"], before.get("measured")) != (self.metric, self.measured):
            return math.isfinite(value)
        return value < before["value"] if self.lower_is_better else value > before["value"]


class CheckpointSaver:
    """Copies what a checkpoint holds to host memory, and writes it from a thread of its own on rank 0.

    A checkpoint that can't be written costs a warning, not the run: what was there before stays. The host memory, as
    much as one checkpoint takes on disk, is kept from one checkpoint to the next.
    """

    def __init__(self, run: Path, facts: dict[str, Any], keep: int, distribution: Distribution) -> None:
        """facts: JSON values for every checkpoint's description; keep: how many of each stage to keep, and its best."""
        self.run = run
        self.facts = facts
        self.keep = keep
        self.distribution = distribution
        self._buffers: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None
        self._best = read_best(run) if distribution.is_main else {}

    def save(
        self, place: Place, learner: Learner, optimizers: Optimizers, replay: Mapping[str, Tensor] = NOTHING
    ) -> None:
        """Begin to save; returns once everything is copied. Waits first for a save that is still going on."""
        if self.distribution.is_main:
            self._begin(place, learner, optimizers, replay, required=False)

    def save_now(
        self, place: Place, learner: Learner, optimizers: Optimizers, replay: Mapping[str, Tensor] = NOTHING
    ) -> None:
        """Save before going on, called on every process. Raises UserError on all when that fails."""
        self.distribution.on_main(lambda: self._begin(place, learner, optimizers, replay, required=True).result())

    def judge(self, place: Place, shown: Mapping[str, float], judge: Judge) -> None:
        """Note the checkpoint of this place, which is being saved or there, as its stage's best if it is."""
        if self.distribution.is_main and judge.metric in shown:
            self._pending = self._thread.submit(self._mark, place, shown[judge.metric], judge)

    def close(self) -> None:
        """Wait for what is still being written."""
        self._thread.shutdown()

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(
        self, place: Place, learner: Learner, optimizers: Optimizers, replay: Mapping[str, Tensor], required: bool
    ) -> Future[None]:
        if self._pending is not None:
            # The buffers are free, and errors told, once all that was submitted is done.
            self._pending.exception()
        snapshot = Snapshot(
            place,
            self._copy("agent", agent_tensors(learner.tokenizer, learner.model)),
            describe(learner.tokenizer, learner.model) | self.facts | {"stage": place.stage, "step": place.step},
            self._copy("optimizers", optimizers.state_dict()),
            self._copy("adapters", low_rank_state(learner.model)),
            self._copy("replay", dict(replay)),
        )
        copied = torch.cuda.Event() if learner.legal.is_cuda else None
        if copied is not None:
            copied.record()
        self._pending = self._thread.submit(self._write, snapshot, copied, required)
        return self._pending

    def _copy(self, path: str, value: Any) -> Any:
        """The same nested value with its tensors in host memory, once the device has got that far."""
        if isinstance(value, dict):
            return {key: self._copy(f"{path}/{key}", inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._copy(f"{path}/{number}", inner) for number, inner in enumerate(value)]
        if not isinstance(value, Tensor):
            return value
        buffer = self._buffers.get(path)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._buffers[path] = buffer
        return buffer.copy_(value.detach(), non_blocking=True)

    def _write(self, snapshot: Snapshot, copied: torch.cuda.Event | None, required: bool) -> None:
        if copied is not None:
            copied.synchronize()
        place = snapshot.place
        try:
            write_checkpoint(self.run, snapshot)
        except Exception as error:  # files fail in many ways, none of which may cost the run
            failure = f"the checkpoint after step {place.step} of {place.stage} can't be saved ({reason_of(error)})"
            good = list_checkpoints(self.run)
            last = f"the last good one is {good[-1].name}" if good else "there is no good one yet"
            if required:
                raise UserError(
                    f"{failure[0].upper()}{failure[1:]}: {last}; make room in {self.run / FOLDER} and go on with "
                    f"resume={self.run}."
                ) from error
            warn(f"{failure}; training goes on, {last}")
        else:
            self._prune(place.stage)

    def _prune(self, stage: str) -> None:
        try:
            prune(self.run, stage, self.keep)
        except (OSError, UserError) as error:
            warn(f"old checkpoints of {stage} can't be removed ({reason_of(error)}); training goes on")

    def _mark(self, place: Place, value: float, judge: Judge) -> None:
        try:
            is_there = self.run / FOLDER / place.folder_name in list_checkpoints(self.run, place.stage)
            if is_there and judge.prefers(value, self._best.get(place.stage)):
                best = {"step": place.step, "metric": judge.metric, "value": value, "measured": judge.measured}
                noted = self._best | {place.stage: best}
                write_json(self.run / FOLDER / BEST, noted)
                # Not before it is written: else a later one that is worse would never be.
                self._best = noted
                self._prune(place.stage)
        except (OSError, UserError) as error:
            warn(f"the best checkpoint can't be noted ({reason_of(error)})")
