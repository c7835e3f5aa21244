"""One step of training on a batch whose halves are padded very unequally, in one process or in two."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from small_learner import padded_batch, small_learner
from torch import Tensor

from jowa.data.order import rank_slice
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution, distributed
from jowa.training.loop import Run, train_step
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers

LENGTHS = [8] * 12 + [4] + [2, 1] + [0] * 11
"""Valid steps of the sequences: 100 in the first half, 3 in the second."""
BATCH = len(LENGTHS)


@dataclass(frozen=True)
class Case:
    stage: StageConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    micro_batch: int | None = None
    q_loss: str = "c51"


STAGE_1 = StageConfig(tokenizer_frames=8 * BATCH, warmup_steps=1000)
STAGE_2 = StageConfig(world_weight=0.1, td_weight=1.0, conservative_weight=0.1, warmup_steps=1000)
MIXTURE = ObjectiveConfig(random_ensemble_mixture=True)
CASES = {
    "stage 1": Case(STAGE_1),
    "stage 1 in micro-batches": Case(STAGE_1, micro_batch=1),
    "stage 2": Case(STAGE_2, MIXTURE),
    "stage 2 in micro-batches": Case(STAGE_2, MIXTURE, micro_batch=1),
    "stage 2, scalar": Case(STAGE_2, q_loss="mse"),
    "Q apart from the trunk": Case(StageConfig(world_weight=0.0, td_weight=1.0, warmup_steps=1000),
                                   ObjectiveConfig(q_shapes_backbone=False)),
    "Q alone": Case(StageConfig(world_weight=0.0, td_weight=1.0, warmup_steps=1000)),
}  # fmt: skip


@patch.object(torch.Tensor, "float", torch.Tensor.double)
def one_step(case: Case, distribution: Distribution, folder: Path) -> dict[str, dict[str, Tensor]]:
    """This process's gradients, and metrics summed over processes, of one step.

    In double precision, where sums in any order agree: in single they differ in the fourth digit of convolutions.
    """
    learner = small_learner(case.objective, ranks=distribution.ranks, q_loss=case.q_loss).double()
    learner.begin(case.stage)
    learner.train()
    config = TrainingConfig(batch_size=BATCH, micro_batch=case.micro_batch, gradient_clip=1e9)
    optimizers = Optimizers(learner, case.stage, config)
    wrapped = distribution.wrap(learner)
    run = Run(folder, 0, config, distribution, MetricsLog(folder, active=False), {})
    batch = padded_batch(LENGTHS, codes=not case.stage.trains_tokenizer)
    share = batch[rank_slice(BATCH, distribution.rank, distribution.ranks)]
    metrics = train_step(run, "stage", 0, wrapped, optimizers, share)
    gradients = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    if not case.stage.trains_tokenizer:
        # A gradient that never came would be missed now.
        train_step(run, "stage", 1, wrapped, optimizers, share)
    return {"gradients": gradients, "metrics": {key: distribution.sum(value.clone()) for key, value in metrics.items()}}


def process(rank: int, port: int, folder: Path) -> None:
    """What each of two processes does: all cases; rank r leaves its results in <folder>/<r>.pt."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    with distributed("cpu") as distribution:
        torch.save({name: one_step(case, distribution, folder) for name, case in CASES.items()}, folder / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
