"""Short evaluations while an agent is trained: how well it plays so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.utils import parametrize

from jowa.envs.environments import check_playable
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, Rules, planners_of, play_mode, share
from jowa.evaluation.play.rollout import episode_seeds
from jowa.games import reference
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.run import Hook, Regularly
from jowa.training.session import SCORE

SEED = 1_000_000
"""The episodes that choose the best checkpoint are not those that `jowa.evaluate` reports."""


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how training plays: `episodes` of every game each `every` optimiser steps and at a stage's end.

    every: 0 for never. planning: by beam search, else by Q alone. max_episode_frames: emulator frames, not agent steps.
    """

    every: int = 0
    episodes: int = 2
    planning: bool = False
    max_episode_frames: int = 27_000

    def check(self, games: tuple[str, ...]) -> None:
        """Raises UserError for values out of range, and for games that can't be played here."""
        if self.every < 0:
            raise UserError(f"evaluation.every must not be negative, but is {self.every}.")
        for key in ("episodes", "max_episode_frames"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluation.{key} must be at least 1, not {getattr(self, key)}.")
        if self.every:
            check_playable(games, ProtocolConfig())


def evaluations(
    config: EvaluationConfig, games: tuple[str, ...]
) -> Callable[[Learner, Distribution], Regularly] | None:
    """What makes the hook for a learner; None when training shall not play."""
    if not config.every:
        return None
    return lambda learner, distribution: Regularly(evaluation_hook(learner, games, config, distribution), config.every)


def evaluation_hook(
    learner: Learner, games: tuple[str, ...], config: EvaluationConfig, distribution: Distribution
) -> Hook:
    """A hook that plays the games, shared among the processes.

    It returns every game's mean return and, where there is one, `evaluation/score`.
    """
    mode = PLANNING if config.planning else NO_PLANNING
    protocol = ProtocolConfig(max_episode_frames=config.max_episode_frames)
    rules = Rules(protocol, len(games) * config.episodes)
    blocks = learner.model.config.blocks
    planner = replace(PlannerConfig(), context=max(1, min(PlannerConfig.context, blocks - PlannerConfig.horizon)))

    @torch.no_grad()
    def evaluate(stage: str, step: int) -> dict[str, float]:
        learner.eval()
        agent = Agent(learner.tokenizer, learner.model, {})
        mine = share(episode_seeds(SEED, games, config.episodes), distribution.rank, distribution.ranks)
        planners = planners_of(mode, planner, agent, games)
        # Low-rank additions are merged once, not at every decision.
        with parametrize.cached():
            episodes = play_mode(mode, agent, mine, planners, rules, distribution.device, progress=False).episodes
        returns: dict[str, list[float]] = {game: [] for game in games}
        played = [episode for part in distribution.gather(episodes) for episode in part]
        for episode in sorted(played, key=lambda episode: episode.seed):
            returns[episode.game].append(episode.episode_return)
        return scores({game: float(np.mean(values)) for game, values in returns.items()})

    return evaluate


def scores(means: dict[str, float]) -> dict[str, float]:
    """Mean returns by game, and what they are summed up in: the mean human-normalised score of the games that have one.

    A single game that has none is summed up in its mean return; several can't be added up.
    """
    values = {f"evaluation/{game}/return": mean for game, mean in means.items()}
    normalised = []
    for game, mean in means.items():
        known = reference(game)
        if known.random is not None and known.human is not None:
            normalised.append((mean - known.random) / (known.human - known.random))
            values[f"evaluation/{game}/human_normalised"] = normalised[-1]
    if not normalised and len(means) == 1:
        normalised = list(means.values())
    return values | ({SCORE: float(np.mean(normalised))} if normalised else {})
