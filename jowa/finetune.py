"""Finetune a pretrained agent on one game's recorded transitions with the losses of stage 2 (paper, section 5.4).

    python -m jowa.finetune game=Pong ckpt=runs/demo

The run's folder holds checkpoints, metrics and evaluations like a pretraining's; resume=<folder> goes on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from jowa.cli import run
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.errors import UserError
from jowa.evaluation.play.while_training import EvaluationConfig, evaluations
from jowa.evaluation.results.curves import read_curves
from jowa.models.agent_files import Agent
from jowa.training.adaptation import AdaptationConfig, check_adaptation, check_rank
from jowa.training.checkpoint import FOLDER, read_best
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
from jowa.training.fresh_start import check_fresh, check_start, fresh_parts
from jowa.training.imagination_config import ImaginationConfig, check_horizon, check_imagination
from jowa.training.metrics import FILE as METRICS
from jowa.training.new_game import check_heads, find_game, open_episodes, trained_games, with_game
from jowa.training.run_plan import describe_run
from jowa.training.session import Settings, run_stages, use_threads
from jowa.training.stage_data import describe_choice
from jowa.training.starting_point import StartingPoint, open_agent

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneConfig:
    """game: the game to adapt to; its episodes are read from data.path. env: instead of it, a Gymnasium environment,
    played as `environment` says; one that was recorded may go by its name, as a game. ckpt: a run's folder, one
    checkpoint's, published files (a JOWA_<size>.pt or its folder), or hub:<owner>/<name>.

    size: refuse a checkpoint of another size (nano, 40M, …), any if null. task_from: what the game's task row starts
    as: `own` leaves the checkpoint's, a game's name copies that game's, `mean` takes the mean of all games the
    checkpoint was trained on, and `paper` copies what the paper does for its five held-out games.
    start: pretrained, or fresh in the checkpoint's sizes: `tokenizer` keeps its tokenizer alone, `scratch` nothing.
    perceptual_weights: train the tokenizer with LPIPS from this file; null takes the weights that came with the
    checkpoint, if any did, and `none` trains it on pixels alone. resume: a run's folder, to go on with it by its own
    configuration; auto, to go on with the run in `out` if it holds one; or no.
    """

    game: str | None = None
    env: str | None = None
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    ckpt: str = ""
    size: str | None = None
    task_from: str = "paper"
    start: str = "pretrained"
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
    finetune: AdaptationConfig = field(default_factory=AdaptationConfig)
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)


def check(config: FinetuneConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    given = {"game=… (or env=…)": config.game or config.env, "ckpt=…": config.ckpt}
    if not all(given.values()):
        missing = " and ".join(key for key, value in given.items() if not value)
        raise UserError(
            f"A value is missing: give {missing}. Episodes are read from data.path: `python -m jowa.data.record "
            "game=…` records some, `python -m jowa.data.fetch games=[…]` fetches some."
        )
    config.environment.check()
    config.evaluation.check(())
    check_data(config.data)
    check_training(config.training, config.objective, {"stage": config.stage})
    check_batch(config.training, rank_and_ranks()[1], {"stage": config.stage})
    check_adaptation(config.finetune, config.objective, config.stage)
    check_start(config.start, "start")
    check_fresh(config.start, config.finetune, config.stage)
    check_imagination(config.imagination, config.training, {"stage": config.stage}, rank_and_ranks()[1])
    if config.stage.steps == 0:
        raise UserError("Nothing to do: set stage.steps above 0.")
    if config.data.games not in ([], [config.game]):
        raise UserError("Finetuning reads the episodes of its one game alone: leave data.games empty.")


def lpips_file(config: FinetuneConfig, start: StartingPoint) -> str | None:
    """LPIPS weights to train the tokenizer with: those named, else those the checkpoint carries, else none."""
    if config.perceptual_weights is not None:
        return None if config.perceptual_weights == "none" else config.perceptual_weights
    return None if start.perceptual_weights is None else str(start.perceptual_weights)


def prepare_agent(config: FinetuneConfig, start: StartingPoint, game: str) -> Agent:
    """The agent to train: what it keeps, the game's task row and its tokenizer's loss as configured."""
    agent, weights = fresh_parts(start.agent, config.start, config.seed), lpips_file(config, start)
    if config.finetune.method == "heads":
        check_heads(agent, game, config.task_from)
    agent = with_game(agent, game, config.task_from)
    check_stride(config.data, agent.model.config.blocks)
    check_horizon(config.imagination, agent.model.config.blocks)
    check_ensemble(config.objective, agent.model.config.q_networks)
    check_rank(config.finetune, agent.model.config.width)
    perceptual = "none" if weights is None else "lpips"
    agent.tokenizer.config = replace(agent.tokenizer.config, perceptual=perceptual, perceptual_weights=weights)
    return agent


def main(config: FinetuneConfig) -> None:
    check(config)
    use_threads(config.training.threads)
    torch.manual_seed(config.seed)
    start = open_agent(config.ckpt, config.size)
    game = find_game(config.game, config.env, config.environment, config.data.path)
    data = replace(config.data, games=[game])
    games_before = [] if config.start == "scratch" else trained_games(start.agent)
    agent = prepare_agent(config, start, game)
    stages = {STAGE: config.stage}
    is_main, ranks = rank_and_ranks()[0] == 0, rank_and_ranks()[1]
    if config.dry_run:
        if is_main:
            agent_parts = agent.tokenizer, agent.model
            print(describe_run(*agent_parts, data, stages, config.training, ranks, config.finetune))
        return
    store = open_episodes(data.path, game, agent.model.config.blocks)
    config.evaluation.check((game,))
    if is_main:
        print(describe_choice(store, data))
        if config.stage.trains_tokenizer:
            weights = agent.tokenizer.config.perceptual_weights
            print(f"The tokenizer is trained along on pixels{f' and LPIPS ({weights})' if weights else ' alone'}.")
    settings = Settings(
        config.out, config.resume, config.seed, data, config.objective, config.training, stages, config,
        evaluations(config.evaluation, (game,)), config.finetune, config.imagination, games_before,
    )  # fmt: skip
    with distributed(config.training.device) as distribution:
        folder = run_stages(settings, agent.tokenizer, agent.model, store, distribution)
        if distribution.is_main:
            print(outcome(folder, game, config.evaluation.episodes))


def outcome(folder: Path, game: str, episodes: int) -> str:
    """How it went, as far as the agent was let play, and what to do next."""
    lines, agent = [], folder
    for curve in read_curves(folder / METRICS):
        if curve.name == f"evaluation/{game}/return" and curve.stage == STAGE:
            lines.append(
                f"{game}: mean return {curve.values[-1]:g} in {episodes} episodes after step {curve.steps[-1]:.0f}."
            )
    best = read_best(folder).get(STAGE)
    if best is not None:
        agent = folder / FOLDER / "best"
        lines.append(f"Best by {best['metric']}: step {best['step']} ({best['value']:.4g}), kept as {agent}.")
    lines.append(f"The run is in {folder}; evaluate it by: python -m jowa.evaluate ckpt={agent}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, FinetuneConfig, "finetune")
