"""Play to look at: the opening of each game's first episode with what the planner had in mind, all games in one batch.

It is apart from the episodes that are scored, plays the same seeds, and goes on for a while without pictures, so that
what Q says can be compared with what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.envs.environments import Environments, make_environments
from jowa.envs.protocol import ProtocolConfig
from jowa.evaluation.diagnostics.q_calibration import Decisions
from jowa.evaluation.films.film import Film, Thoughts
from jowa.evaluation.play.player import Player, RandomPlayer
from jowa.evaluation.play.rollout import Policy, Turn, with_chance
from jowa.models.agent_files import Agent
from jowa.models.tokenizer import Tokenizer
from jowa.planning.config import PlannerConfig
from jowa.planning.dream import Context, Dream, Needs
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream, make_planner
from jowa.planning.planner import Plan, Planner
from jowa.planning.splitting import InParts
from jowa.planning.strips import decode_frames, reconstruct

FUTURES_SHOWN, STEPS_SHOWN = 3, 4
BEYOND = 3
"""How many times as long as a film the play goes on."""


@dataclass(frozen=True)
class Shoot:
    """How films are made: `agent_steps` of each game's first episode, which has the seed `seed`."""

    mode: str
    protocol: ProtocolConfig
    seed: int
    agent_steps: int
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


@dataclass(frozen=True)
class Footage:
    """Films in the games' order, and by game the decisions of all episodes played; random play has none of these."""

    mode: str
    films: tuple[Film, ...]
    decisions: Mapping[str, tuple[Decisions, ...]]


class Watched:
    """A planner whose last plan can be looked at."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.last: Plan | None = None

    def needs(self, actions: int) -> Needs:
        """The planner's."""
        return self._planner.needs(actions)

    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """The planner's plan."""
        self.last = self._planner.plan(dream, context, legal)
        return self.last


class _Reel:
    """What is kept of one game's play."""

    def __init__(self, game: str, seed: int, limit: int) -> None:
        self.game, self.seed, self._limit = game, seed, limit
        self._frames: list[NDArray[np.uint8]] = []
        self._actions: list[int] = []
        self._rewards: list[float] = []
        self._thoughts: list[tuple[NDArray[np.generic], ...]] = []
        self._q: list[float] = []
        self._begun = self._played = 0
        self.decisions: list[Decisions] = []

    @property
    def done(self) -> bool:
        return self._played >= BEYOND * self._limit

    def keep(
        self, frame: NDArray[np.uint8], action: int, reward: float, thought: tuple[NDArray[np.generic], ...] | None
    ) -> None:
        """One agent step: the frame decided at, what was played and came of it, and the plan: root Q first, if any."""
        if not self.decisions and self._played < self._limit:
            self._frames.append(frame.copy())
            if thought is not None:
                self._thoughts.append(thought)
        self._actions.append(action)
        self._rewards.append(reward)
        if thought is not None:
            self._q.append(float(thought[0][action]))
        self._played += 1

    def end(self, terminated: bool) -> None:
        """The episode has ended, or is not followed any longer."""
        begun, self._begun = self._begun, len(self._rewards)
        q, rewards, actions = (np.array(part[begun:]) for part in (self._q, self._rewards, self._actions))
        self.decisions.append(Decisions(q, rewards, terminated, actions))

    @property
    def running(self) -> bool:
        return self._begun < len(self._rewards)

    def film(self, mode: str, legal: NDArray[np.bool_]) -> Film:
        count = len(self._frames)
        actions, rewards = np.array(self._actions[:count], np.int64), np.array(self._rewards[:count], np.float32)
        film = Film(self.game, mode, np.stack(self._frames), actions, rewards)
        if not self._thoughts:
            return film
        parts = [np.stack(part) for part in zip(*self._thoughts, strict=True)]
        return replace(film, thoughts=Thoughts(np.flatnonzero(legal), *parts))


def shoot(
    agent: Agent, planners: Mapping[str, PlannerConfig], games: Sequence[str], rules: Shoot, device: torch.device
) -> Footage:
    """Plays the games; those whose planners are set alike share their batches. No steps, no films."""
    if rules.agent_steps < 1:
        return Footage(rules.mode, (), {})
    groups: dict[PlannerConfig | None, list[str]] = {}
    for game in games:
        groups.setdefault(planners.get(game), []).append(game)
    films: list[Film] = []
    decisions: dict[str, tuple[Decisions, ...]] = {}
    for planner, group in groups.items():
        environments = make_environments(group, rules.protocol, [rules.seed] * len(group))
        try:
            reels = _play(*_policy(agent, planner, rules.execution, environments, device), environments, rules)
        finally:
            environments.close()
        films += [
            develop(agent.tokenizer, reel.film(rules.mode, environments.legal[row])) for row, reel in enumerate(reels)
        ]
        decisions |= {reel.game: tuple(reel.decisions) for reel in reels if planner is not None}
    return Footage(rules.mode, tuple(sorted(films, key=lambda film: games.index(film.game))), decisions)


def _policy(
    agent: Agent, planner: PlannerConfig | None, execution: ExecutionConfig, environments: Environments,
    device: torch.device,
) -> tuple[Policy, Watched | None]:  # fmt: skip
    if planner is None:
        return RandomPlayer(environments.legal), None
    tokenizer, model = agent.tokenizer.to(device), agent.model.to(device)
    watched = Watched(InParts(make_planner(planner)))
    tasks, legal = environments.tasks, environments.legal
    dream = make_dream(model, execution)
    return Player(tokenizer, dream, watched, planner.context, tasks, legal, device), watched


def _play(policy: Policy, watched: Watched | None, environments: Environments, rules: Shoot) -> list[_Reel]:
    """Each game's episodes one after the other, seeds counting up, until enough has been played of every one."""
    reels = [_Reel(game, rules.seed, rules.agent_steps) for game in environments.games]
    count = environments.num_envs
    begins, playing, steps = np.ones(count, bool), np.ones(count, bool), np.zeros(count, np.int64)
    seeds = np.full(count, rules.seed, np.int64)
    frames = environments.reset(None, seeds.tolist())
    while playing.any():
        turn = Turn(frames, begins.copy(), playing.copy(), seeds.copy(), steps.copy())
        chosen = policy.act(turn)
        actions = with_chance(chosen, turn, environments.legal, rules.protocol.random_action_probability)
        policy.record(actions)
        result = environments.step(actions)
        thoughts = _thoughts(watched, np.flatnonzero(playing))
        for row in np.flatnonzero(playing):
            reels[row].keep(turn.frames[row], int(actions[row]), float(result.rewards[row]), thoughts.get(int(row)))
        steps[playing] += 1
        begins = playing & (result.terminated | result.truncated)
        for row in np.flatnonzero(begins):
            reels[row].end(bool(result.terminated[row]))
        playing = playing & ~np.array([reel.done for reel in reels])
        begins &= playing
        seeds[begins] += 1
        steps[begins] = 0
        frames = environments.reset(begins, seeds.tolist()) if begins.any() else result.frames
    for reel in reels:
        if reel.running:
            reel.end(terminated=False)
    return reels


def _thoughts(watched: Watched | None, rows: NDArray[np.int64]) -> dict[int, tuple[NDArray[np.generic], ...]]:
    """The last plan by environment: root Q, and of the futures shown scores, actions, codes, rewards and ends."""
    if watched is None or watched.last is None:
        return {}
    plan = watched.last
    some, steps = slice(None, FUTURES_SHOWN), slice(None, STEPS_SHOWN)
    kept = (
        plan.root_q,
        plan.scores[:, some],
        plan.first_actions[:, some],
        plan.future_actions[:, some, steps],
        plan.frames[:, some, steps],
        plan.rewards[:, some, steps],
        plan.continuations[:, some, steps],
    )
    parts = [part.cpu().numpy() for part in kept]
    return {int(row): tuple(part[place] for part in parts) for place, row in enumerate(rows)}


def develop(tokenizer: Tokenizer, film: Film) -> Film:
    """The film with what remains of its frames in their codes, and with pictures of the frames imagined."""
    film = replace(film, seen=reconstruct(tokenizer, film.frames))
    if film.thoughts is None or not film.thoughts.frames.size:
        return film
    codes = film.thoughts.frames
    device = tokenizer.embedding.weight.device
    # What is imagined again and again is decoded once.
    different, places = np.unique(codes.reshape(-1, codes.shape[-1]), axis=0, return_inverse=True)
    decoded = [decode_frames(tokenizer, part) for part in torch.from_numpy(different).to(device).split(64)]
    pictures = np.concatenate(decoded)[places.reshape(-1)].reshape(*codes.shape[:-1], *film.frames.shape[1:])
    return replace(film, thoughts=replace(film.thoughts, frames=pictures))
