"""Three steps of training on a batch that is padded very unequally, in one process or in several."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from forking import forking
from small_learner import padded_batch, small_learner
from torch import multiprocessing

from jowa.training.adaptation import AdaptationConfig, adapt
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution, distributed
from jowa.training.finite import FiniteGuard
from jowa.training.imagination import Imagination
from jowa.training.imagination_config import NEVER, ImaginationConfig
from jowa.training.learner import Learner
from jowa.training.loop import train_step
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.parts import parts_of_steps
from jowa.training.run import Run

LENGTHS = [8] * 6 + [4, 0] + [2, 1] + [0] * 6
"""Valid steps of the sequences: 52 in the first half, 3 in the second, none in the last quarter."""
BATCH = len(LENGTHS)
STEPS = 3


@dataclass(frozen=True)
class Case:
    stage: StageConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    micro_batch: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    imagination: ImaginationConfig = NEVER
    lengths: list[int] = field(default_factory=lambda: LENGTHS)

    def learner(self, ranks: int = 1) -> Learner:
        learner = small_learner(self.objective, ranks=ranks, **self.model)
        learner.adaptation = self.adaptation
        adapt(learner.model, self.adaptation, seed=0)
        return learner


STAGE_1 = StageConfig(tokenizer_frames=3 * BATCH + 5, learning_rate=1e-3, tokenizer_learning_rate=1e-3, warmup_steps=3)
STAGE_2 = StageConfig(world_weight=0.1, td_weight=1.0, conservative_weight=0.1, learning_rate=1e-3)
Q_ALONE = replace(STAGE_2, world_weight=0.0)
CASES = {
    "stage 1": Case(STAGE_1),
    "stage 1 in micro-batches": Case(STAGE_1, micro_batch=2),
    "stage 2": Case(STAGE_2),
    "stage 2 in micro-batches": Case(STAGE_2, micro_batch=2),
    "stage 2, tokenizer too": Case(replace(STAGE_2, tokenizer_frames=2 * BATCH)),
    "random ensemble mixture": Case(STAGE_2, ObjectiveConfig(random_ensemble_mixture=True)),
    "scalar": Case(STAGE_2, model={"q_loss": "mse"}),
    "scalar mixture": Case(STAGE_2, ObjectiveConfig(random_ensemble_mixture=True), model={"q_loss": "mse"}),
    "combo": Case(STAGE_2, ObjectiveConfig(conservative="combo")),
    "not conservative": Case(STAGE_2, ObjectiveConfig(conservative="none")),
    "Q apart from the trunk": Case(STAGE_2, ObjectiveConfig(q_shapes_backbone=False)),
    "Q alone, apart from the trunk": Case(Q_ALONE, ObjectiveConfig(q_shapes_backbone=False)),
    "Q alone": Case(Q_ALONE),
    "heads": Case(STAGE_2, adaptation=AdaptationConfig("heads")),
    "lora": Case(STAGE_2, adaptation=AdaptationConfig("lora", rank=2)),
}
LESS_UNEQUAL = [8] * 6 + [4, 1] + [2, 1, 3, 8, 5, 1, 7, 2]
"""None is without a step from which to imagine."""
WITH_TOKENIZER = replace(STAGE_2, tokenizer_frames=2 * BATCH)
IMAGINING = {
    "cql": Case(STAGE_2, imagination=ImaginationConfig(1, replay=12), lengths=LESS_UNEQUAL),
    "cql in micro-batches": Case(
        STAGE_2, imagination=ImaginationConfig(1, replay=12), lengths=LESS_UNEQUAL, micro_batch=2
    ),
    "combo, tokenizer too": Case(
        WITH_TOKENIZER, ObjectiveConfig(conservative="combo"), imagination=ImaginationConfig(0), lengths=LESS_UNEQUAL
    ),
}
"""Half imagined from a step on."""


class UnequalData:
    """The padded batch as it is at the first step, in other orders after."""

    length = 8

    def __init__(self, codes: bool, combo: bool, lengths: list[int]) -> None:
        self.whole = padded_batch(lengths, codes=codes)
        if combo:
            self.whole = replace(self.whole, imagined=torch.arange(BATCH) % 3 == 0)

    def order(self, seed: int) -> UnequalData:
        return self

    def batch(self, *of: Any) -> Any:
        if isinstance(of[0], np.ndarray):
            return self.whole.map(lambda part: part[torch.from_numpy(of[0])])
        return np.random.default_rng(of[0]).permutation(BATCH) if of[0] else np.arange(BATCH)


def some_steps(case: Case, distribution: Distribution, folder: Path) -> dict[str, Any]:
    """This process's weights after the steps, its first gradients, and every step's metrics of all processes."""
    learner = case.learner(distribution.ranks)
    if torch.Tensor.float is torch.Tensor.double:
        learner.double()
    learner.begin(case.stage)
    learner.train()
    config = TrainingConfig(batch_size=BATCH, micro_batch=case.micro_batch, gradient_clip=10.0)
    optimizers = Optimizers(learner, case.stage, config)
    wrapped, guard = distribution.wrap(learner), FiniteGuard(distribution)
    run = Run(folder, 0, config, distribution, MetricsLog(folder, active=False), {})
    combo = case.objective.conservative == "combo" and case.imagination == NEVER
    data: Any = UnequalData(not case.stage.trains_tokenizer, combo, case.lengths)
    imagination = Imagination(case.imagination, learner, distribution)
    metrics, gradients = [], {}
    parts = parts_of_steps(data, range(STEPS), "stage", case.stage, config, 0, distribution, case.imagination)
    for step, mine in enumerate(imagination.complete(of, 0, "stage", step) for step, of in enumerate(parts)):
        shares, _ = train_step(run, "stage", step, wrapped, optimizers, guard, mine)
        metrics.append({key: distribution.sum(value.clone()) for key, value in shares.items()})
        if step == 1:
            learner.model.synchronise_target()
        gradients = gradients or {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    assert guard.failure() is None
    weights = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    return {"weights": weights, "gradients": gradients, "metrics": metrics, "replay": imagination.state()}


def in_double(case: Case, distribution: Distribution, folder: Path) -> dict[str, Any]:
    """The same steps with all that would be in single precision in double."""
    with patch.object(torch.Tensor, "float", torch.Tensor.double):
        return some_steps(case, distribution, folder)


def process(rank: int, ranks: int, port: int, folder: Path, cases: dict[str, Case] = CASES) -> None:
    """What each of several processes does: all cases; rank r leaves its results in <folder>/<r>.pt."""
    be_rank(rank, ranks, port)
    with distributed("cpu") as distribution:
        results = {
            name: {"double": in_double(case, distribution, folder), "single": some_steps(case, distribution, folder)}
            for name, case in cases.items()
        }
        torch.save(results, folder / f"{rank}.pt")


def pretraining(rank: int, ranks: int, port: int, overrides: list[str]) -> None:
    """What each process of `torchrun -m jowa.pretrain` does."""
    from jowa import pretrain
    from jowa.cli import load_config

    be_rank(rank, ranks, port)
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", overrides))


def be_rank(rank: int, ranks: int, port: int) -> None:
    """Be one of several processes, as torchrun would have it."""
    os.environ.update(company(rank, ranks, port))
    torch.set_num_threads(1)


def company(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells one of several processes of a machine in its environment."""
    local = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks}
    numbers = {"RANK": rank, "WORLD_SIZE": ranks, **local, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(number) for name, number in numbers.items()}


def together(work: Callable[..., None], ranks: int, *arguments: Any) -> None:
    """Call `work(rank, ranks, port, *arguments)` in so many processes that needn't import anything."""
    forking()
    multiprocessing.start_processes(work, (ranks, free_port(), *arguments), nprocs=ranks, start_method="forkserver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
