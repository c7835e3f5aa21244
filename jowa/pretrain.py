"""Pretrain JOWA on recorded games: stage 1 trains tokenizer and world model, stage 2 the whole model on cached codes.

    python -m jowa.pretrain +exp=demo
    torchrun --nproc-per-node=8 -m jowa.pretrain +exp=atari15 data.path=/data/atari out=runs/atari15

The run's folder holds checkpoints, metrics and evaluations; resume=<folder> goes on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from jowa.cli import run
from jowa.data.store import EpisodeStore, check_stored_game
from jowa.errors import UserError
from jowa.evaluation.play.while_training import EvaluationConfig, evaluations
from jowa.models.tokenizer import Tokenizer, TokenizerConfig, check_tokenizer
from jowa.models.world_action_model import ModelConfig, WorldActionModel, check_model, with_games
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
from jowa.training.run_plan import describe_run
from jowa.training.session import Settings, run_stages, use_threads


@dataclass(frozen=True)
class PretrainConfig:
    """`out` is the run's folder; `dry_run` prints the plan and stops.

    resume: a run's folder, to go on with it by its own configuration; auto, to go on with the run in `out` if it holds
    one; or no.
    """

    out: str = "runs/pretrain"
    resume: str = "no"
    dry_run: bool = False
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    stage1: StageConfig = field(default_factory=StageConfig)
    stage2: StageConfig = field(default_factory=StageConfig)

    @property
    def stages(self) -> dict[str, StageConfig]:
        return {"stage1": self.stage1, "stage2": self.stage2}


def check(config: PretrainConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    for game in config.data.games:
        check_stored_game(config.data.path, game, "data.games")
    check_model(config.model)
    check_tokenizer(config.tokenizer)
    check_data(config.data)
    check_stride(config.data, config.model.blocks)
    check_training(config.training, config.objective, config.stages)
    check_ensemble(config.objective, config.model.q_networks)
    check_batch(config.training, rank_and_ranks()[1], config.stages)
    if config.stage1.steps == config.stage2.steps == 0:
        raise UserError("Nothing to do: set stage1.steps or stage2.steps above 0.")


def new_agent(config: PretrainConfig) -> tuple[Tokenizer, WorldActionModel]:
    """Tokenizer and world-action model with their first, random weights."""
    tokenizer = Tokenizer(config.tokenizer)
    return tokenizer, WorldActionModel(config.model, config.tokenizer.vocabulary, tokenizer.tokens_per_frame)


def main(config: PretrainConfig) -> None:
    check(config)
    use_threads(config.training.threads)
    torch.manual_seed(config.seed)
    if config.dry_run:
        tokenizer, model = new_agent(config)
        if rank_and_ranks()[0] == 0:
            print(describe_run(tokenizer, model, config.data, config.stages, config.training, rank_and_ranks()[1]))
        return
    store = EpisodeStore(config.data.path, config.data.games or None)
    config = replace(config, model=with_games(config.model, store.games))
    tokenizer, model = new_agent(config)
    config.evaluation.check(store.games)
    settings = Settings(
        config.out, config.resume, config.seed, config.data, config.objective, config.training, config.stages, config,
        evaluations(config.evaluation, store.games),
    )  # fmt: skip
    with distributed(config.training.device) as distribution:
        folder = run_stages(settings, tokenizer, model, store, distribution)
        if distribution.is_main:
            print(f"The run is in {folder}; evaluate it by: python -m jowa.evaluate ckpt={folder}")


if __name__ == "__main__":
    run(main, PretrainConfig, "pretrain")
