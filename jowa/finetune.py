"""Finetune a pretrained agent on one game's recorded transitions with the losses of stage 2.

    python -m jowa.finetune game=Pong ckpt=runs/demo
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from jowa.cli import run
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.evaluation.while_training import EvaluationConfig, evaluations
from jowa.games import BORROWED_TASKS, check_game, task_id
from jowa.models.world_action_model import WorldActionModel
from jowa.training.config import (
    DataConfig,
    ObjectiveConfig,
    StageConfig,
    TrainingConfig,
    check_batch,
    check_data,
    check_ensemble,
    check_stride,
    check_training,
)
from jowa.training.distribution import distributed, rank_and_ranks
from jowa.training.imagination_config import ImaginationConfig, check_horizon, check_imagination
from jowa.training.run_plan import describe_run
from jowa.training.session import Settings, run_stages, use_threads
from jowa.training.starting_point import StartingPoint, open_agent

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneConfig:
    """game: the game to adapt to; its episodes are read from data.path. ckpt: a run's folder, one checkpoint's, or
    published files (a JOWA_<size>.pt or its folder).

    size: refuse a checkpoint of another size (nano, 40M, …), any if null. task_from: whose task embedding the game
    starts from: another game's name, `paper` (the paper's choice for its five held-out games), or `own`.
    perceptual_weights: train the tokenizer with LPIPS from this file; null takes the weights that came with the
    checkpoint, if any did, and `none` trains it on pixels alone. resume: a run's folder, to go on with it by its own
    configuration; auto, to go on with the run in `out` if it holds one; or no.
    """

    game: str = "???"
    ckpt: str = "???"
    size: str | None = None
    task_from: str = "paper"
    perceptual_weights: str | None = None
    out: str = "runs/finetune"
    resume: str = "no"
    dry_run: bool = False
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)


def check(config: FinetuneConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    check_game(config.game)
    if config.task_from not in ("paper", "own"):
        check_game(config.task_from)
    check_data(config.data)
    check_training(config.training, config.objective, {"stage": config.stage})
    check_batch(config.training, rank_and_ranks()[1], {"stage": config.stage})
    check_imagination(config.imagination, config.training, {"stage": config.stage}, rank_and_ranks()[1])
    if config.stage.steps == 0:
        raise UserError("Nothing to do: set stage.steps above 0.")
    if config.data.games not in ([], [config.game]):
        raise UserError(f"Finetuning reads the episodes of game={config.game} alone: leave data.games empty.")


@torch.no_grad()
def adopt_task(model: WorldActionModel, game: str, source: str) -> None:
    """Start a game's task embeddings, if the model has any, as copies of another's: one game keeps one task id."""
    if source == "paper":
        source = BORROWED_TASKS.get(game, game)
    elif source == "own":
        source = game
    for table in (model.code_task_embedding, model.action_task_embedding):
        if table is not None:
            table.weight[task_id(game)] = table.weight[task_id(source)]


def lpips_file(config: FinetuneConfig, start: StartingPoint) -> str | None:
    """LPIPS weights to train the tokenizer with: those named, else those the checkpoint carries, else none."""
    if config.perceptual_weights is not None:
        return None if config.perceptual_weights == "none" else config.perceptual_weights
    return None if start.perceptual_weights is None else str(start.perceptual_weights)


def main(config: FinetuneConfig) -> None:
    check(config)
    use_threads(config.training.threads)
    torch.manual_seed(config.seed)
    data = replace(config.data, games=[config.game])
    start = open_agent(config.ckpt, config.size)
    agent = start.agent
    check_stride(data, agent.model.config.blocks)
    check_ensemble(config.objective, agent.model.config.q_networks)
    check_horizon(config.imagination, agent.model.config.blocks)
    weights = lpips_file(config, start)
    perceptual = "none" if weights is None else "lpips"
    agent.tokenizer.config = replace(agent.tokenizer.config, perceptual=perceptual, perceptual_weights=weights)
    stages = {STAGE: config.stage}
    if config.dry_run:
        if rank_and_ranks()[0] == 0:
            print(describe_run(agent.tokenizer, agent.model, data, stages, config.training, rank_and_ranks()[1]))
        return
    store = EpisodeStore(data.path, [config.game])
    if rank_and_ranks()[0] == 0 and config.stage.trains_tokenizer:
        print(f"The tokenizer is trained along on pixels{f' and LPIPS ({weights})' if weights else ' alone'}.")
    adopt_task(agent.model, config.game, config.task_from)
    config.evaluation.check((config.game,))
    settings = Settings(
        config.out, config.resume, config.seed, data, config.objective, config.training, stages, config,
        evaluations(config.evaluation, (config.game,)), config.imagination,
    )  # fmt: skip
    with distributed(config.training.device) as distribution:
        folder = run_stages(settings, agent.tokenizer, agent.model, store, distribution)
        if distribution.is_main:
            print(f"The run is in {folder}; evaluate it by: python -m jowa.evaluate ckpt={folder}")


if __name__ == "__main__":
    run(main, FinetuneConfig, "finetune")
