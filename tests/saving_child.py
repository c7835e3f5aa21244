"""A process that saves checkpoints until it is killed; it imports little, since fifty of them are started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_learner import small_learner

from jowa.training.checkpoint import Place
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers
from jowa.training.saver import CheckpointSaver, Judge

ALONE = Distribution(0, 1, torch.device("cpu"))


def learner_and_optimizers() -> tuple[Learner, Optimizers]:
    """After one step, so that the optimiser has a state."""
    learner, stage = small_learner(), StageConfig()
    learner.begin(stage)
    optimizers = Optimizers(learner, stage, TrainingConfig())
    for parameter in learner.model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizers.step(0, torch.zeros(()))
    return learner, optimizers


def save_for_ever(run: Path, first: int, begun: Any) -> None:
    """Checkpoints from step `first` on, whose first parameter is the step; `begun` is released at each."""
    torch.set_num_threads(1)
    learner, optimizers = learner_and_optimizers()
    with CheckpointSaver(run, {}, keep=2, distribution=ALONE) as saver:
        for step in range(first, first + 10_000):
            with torch.no_grad():
                next(learner.model.parameters()).fill_(step)
            saver.save(Place("stage1", step), learner, optimizers)
            saver.judge(Place("stage1", step), {"score": float((step * 7) % 13)}, Judge("score", True))
            begun.release()
