"""The ways of playing that an evaluation compares, each played through all games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from jowa.envs.environments import make_environments
from jowa.envs.protocol import ProtocolConfig
from jowa.evaluation.player import RandomPlayer, agent_player
from jowa.evaluation.rollout import Policy, Rollout, episode_seeds, play
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig

RANDOM, NO_PLANNING, PLANNING = "random", "no planning", "planning"

Planners = Mapping[str, PlannerConfig]
"""Each game's settings."""


@dataclass(frozen=True)
class Rules:
    """What all ways of playing have in common.

    `seed` is each game's first episode's, `environments` how many of a game's `episodes` run side by side, and
    `film_agent_steps` how many agent steps of each game's first episode are filmed.
    """

    protocol: ProtocolConfig
    seed: int
    episodes: int
    environments: int
    film_agent_steps: int
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


def planners_of(mode: str, config: PlannerConfig, agent: Agent, games: Sequence[str]) -> dict[str, PlannerConfig]:
    """Every game's planner in a way of playing; random play has none.

    Raises:
        UserError: the configuration asks for published settings that there are not.
    """
    if mode == RANDOM:
        return {}
    planners = {game: config.for_game(agent.model.config, game) for game in games}
    if mode == PLANNING:
        return planners
    return {game: replace(planner, name="greedy", width=1, horizon=0) for game, planner in planners.items()}


def planner_settings(planners: Planners) -> dict[str, Any]:
    """Settings for the results: what all games share, and each game's own under `games` where they differ."""
    every = {game: asdict(planner) for game, planner in planners.items()}
    first = next(iter(every.values()), {})
    shared = {key: value for key, value in first.items() if all(one[key] == value for one in every.values())}
    own = {game: {key: one[key] for key in one if key not in shared} for game, one in every.items()}
    return shared | ({"games": own} if len(shared) < len(first) else {})


def play_mode(
    mode: str, agent: Agent, games: Sequence[str], planners: Planners, rules: Rules, device: torch.device,
    progress: bool = True,
) -> Rollout:  # fmt: skip
    """All episodes of one way of playing; games whose planners are set alike share their batches."""
    groups: dict[PlannerConfig | None, list[str]] = {}
    for game in games:
        groups.setdefault(planners.get(game), []).append(game)
    rollouts = [_play_alike(mode, agent, group, planner, rules, device, progress) for planner, group in groups.items()]
    return merge(rollouts, games, seconds=sum(rollout.seconds for rollout in rollouts))


def merge(rollouts: Sequence[Rollout], games: Sequence[str], seconds: float) -> Rollout:
    """Rollouts as one that took so long, in the order of the games."""
    episodes = [episode for rollout in rollouts for episode in rollout.episodes]
    films = [film for rollout in rollouts for film in rollout.films]
    return Rollout(
        tuple(sorted(episodes, key=lambda episode: games.index(episode.game))),
        tuple(sorted(films, key=lambda film: games.index(film.game))),
        sum(rollout.decisions for rollout in rollouts),
        seconds,
    )


def _play_alike(
    mode: str, agent: Agent, games: Sequence[str], planner: PlannerConfig | None, rules: Rules, device: torch.device,
    progress: bool,
) -> Rollout:  # fmt: skip
    """All episodes of some games under one planner, or by chance."""
    side_by_side = min(rules.environments, rules.episodes)
    rows = [game for game in games for _ in range(side_by_side)]
    environments = make_environments(rows, rules.protocol, list(range(len(rows))))
    policy: Policy = RandomPlayer(environments.legal)
    if planner is not None:
        policy = agent_player(agent, planner, rules.execution, environments, device)
    try:
        return play(
            environments,
            policy,
            episode_seeds(rules.seed, games, rules.episodes),
            mode=mode,
            random_action_probability=rules.protocol.random_action_probability,
            film_agent_steps=rules.film_agent_steps,
            progress=progress,
        )
    finally:
        environments.close()
