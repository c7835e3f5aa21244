"""The ways of playing that an evaluation compares, each played through all games."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from jowa.envs.environments import make_environments
from jowa.envs.protocol import ProtocolConfig
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.ledger import Key, Ledger
from jowa.evaluation.play.play_progress import PlayProgress
from jowa.evaluation.play.player import RandomPlayer, agent_player
from jowa.evaluation.play.rollout import Policy, Rollout, play
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.training.distribution import Distribution

RANDOM, NO_PLANNING, PLANNING = "random", "no planning", "planning"

Planners = Mapping[str, PlannerConfig]
"""Each game's settings."""

Seeds = Mapping[str, Sequence[int]]
"""The seeds of each game's episodes, in the order in which they begin."""


@dataclass(frozen=True)
class Rules:
    """What all ways of playing have in common; `environments` is how many episodes of all games run side by side."""

    protocol: ProtocolConfig
    environments: int
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
    mode: str, agent: Agent, seeds: Seeds, planners: Planners, rules: Rules, device: torch.device,
    keep: Callable[[Episode], None] = lambda episode: None, known: Iterable[Episode] = (), progress: bool = True,
) -> Rollout:  # fmt: skip
    """The episodes `seeds` of one way of playing; games whose planners are set alike share their batches.

    `keep` is given each episode as soon as it has ended; `known` ones were played before, for the progress bar.
    """
    groups: dict[PlannerConfig | None, dict[str, Sequence[int]]] = {}
    for game, wanted in seeds.items():
        if wanted:
            groups.setdefault(planners.get(game), {})[game] = wanted
    episodes, cap = sum(map(len, seeds.values())), rules.protocol.max_episode_steps
    with PlayProgress(mode, episodes, cap, known, progress) as bar:
        rollouts = [
            _play_alike(mode, agent, group, planner, rules, device, keep, bar) for planner, group in groups.items()
        ]
    return merge(rollouts, seeds, seconds=sum(rollout.seconds for rollout in rollouts))


def merge(rollouts: Sequence[Rollout], seeds: Seeds, seconds: float, kept: Iterable[Episode] = ()) -> Rollout:
    """Rollouts, and episodes that were played before, as one that took so long, in the order of `seeds`."""
    played = [*kept, *(episode for rollout in rollouts for episode in rollout.episodes)]
    episodes = {(episode.game, episode.seed): episode for episode in played}
    ordered = tuple(episodes[game, seed] for game, wanted in seeds.items() for seed in wanted)
    return Rollout(ordered, sum(rollout.decisions for rollout in rollouts), seconds)


def share(seeds: Seeds, rank: int, ranks: int) -> dict[str, list[int]]:
    """What one of `ranks` processes plays: every ranks-th episode, so that all have about as much of each game."""
    every = [(game, seed) for game, wanted in seeds.items() for seed in wanted]
    mine: dict[str, list[int]] = {game: [] for game in seeds}
    for game, seed in every[rank::ranks]:
        mine[game].append(seed)
    return mine


def play_shared(
    mode: str, agent: Agent, seeds: Seeds, planners: Planners, rules: Rules, distribution: Distribution,
    kept: Mapping[Key, Episode], ledger: Ledger,
) -> Rollout:  # fmt: skip
    """The episodes `seeds` of one way of playing, shared among the processes; those `kept` aren't played again.

    Every process is given all of them. What it took is that of the episodes played now.
    """
    missing = {game: [seed for seed in wanted if (mode, game, seed) not in kept] for game, wanted in seeds.items()}
    mine = share(missing, distribution.rank, distribution.ranks)
    rollout = play_mode(
        mode, agent, mine, planners, rules, distribution.device, ledger.keep, kept.values(), distribution.is_main
    )
    gathered = distribution.gather(rollout)
    before = [episode for key, episode in kept.items() if key[0] == mode]
    return merge(gathered, seeds, max(one.seconds for one in gathered), before)


def _play_alike(
    mode: str, agent: Agent, seeds: Seeds, planner: PlannerConfig | None, rules: Rules, device: torch.device,
    keep: Callable[[Episode], None], bar: PlayProgress,
) -> Rollout:  # fmt: skip
    """Some games' episodes under one planner, or by chance."""
    rows = [game for game, wanted in seeds.items() for _ in range(min(rules.environments, len(wanted)))]
    environments = make_environments(rows, rules.protocol, list(range(len(rows))))
    policy: Policy = RandomPlayer(environments.legal)
    if planner is not None:
        policy = agent_player(agent, planner, rules.execution, environments, device)
    try:
        return play(
            environments,
            policy,
            seeds,
            mode=mode,
            at_once=rules.environments,
            random_action_probability=rules.protocol.random_action_probability,
            keep=keep,
            bar=bar,
        )
    finally:
        environments.close()
