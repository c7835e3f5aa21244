"""Who plays: the model through a planner, or chance."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.envs.environments import Environments
from jowa.evaluation.play.noise import random_legal_actions, uniform
from jowa.evaluation.play.rollout import Turn
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.dream import Context, Dream
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream, make_planner
from jowa.planning.planner import Planner
from jowa.planning.splitting import InParts

_WHICH_ACTION = 3


class Encoder(Protocol):
    """The tokenizer as a player needs it."""

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (N, 1, 84, 84) uint8 to codes (N, K) int64."""
        ...


class Player:
    """Screens → codes → context → planner → actions, for N environments at once.

    Each environment has a history of up to `context` frames' codes and actions that ends in the present frame; the
    oldest frame is dropped when it is full. Only new frames are encoded, and only environments still playing cost
    anything. Draws nothing by chance.

    Args:
        tokenizer: encodes screens; in eval mode, on `device`.
        dream: the model's imagination, reset at every decision; in eval mode.
        planner: chooses among legal actions.
        context: real frames given, the present one included, 1 to the model's blocks less the planner's depth.
        tasks: (N,) task ids.
        legal: (N, A) bool, A the model's actions.
        device: where the tokenizer's weights are.
    """

    def __init__(
        self,
        tokenizer: Encoder,
        dream: Dream,
        planner: Planner,
        context: int,
        tasks: NDArray[np.int64],
        legal: NDArray[np.bool_],
        device: torch.device | str = "cpu",
    ) -> None:
        if context < 1:
            raise ValueError(f"a context of {context} frames does not hold the present one")
        self._tokenizer, self._dream, self._planner = tokenizer, dream, planner
        self._device = torch.device(device)
        self._tasks = torch.as_tensor(tasks, dtype=torch.int64, device=self._device)
        self._legal = torch.as_tensor(legal, dtype=torch.bool, device=self._device)
        self._lengths = torch.zeros_like(self._tasks)
        self._actions = torch.zeros(len(tasks), context, dtype=torch.int64, device=self._device)
        self._codes: Tensor | None = None  # (N, context, K); K is known with the first frame

    @torch.inference_mode()
    def act(self, turn: Turn) -> NDArray[np.int64]:
        """Actions (N,) for the present screens; 0 for environments that are not playing."""
        rows = torch.from_numpy(np.flatnonzero(turn.playing)).to(self._device)
        self._lengths.masked_fill_(torch.from_numpy(turn.begins).to(self._device), 0)
        actions = torch.zeros_like(self._tasks)
        if len(rows):
            frames = torch.from_numpy(turn.frames[turn.playing][:, None]).to(self._device)
            self._remember(rows, self._tokenizer.encode(frames))
            plan = self._planner.plan(self._dream, self.context(rows), self._legal[rows])
            actions[rows] = plan.actions.to(self._device)
        return actions.cpu().numpy()

    @torch.inference_mode()
    def record(self, actions: NDArray[np.int64]) -> None:
        """Notes the actions (N,) really played at the present frames."""
        played = torch.from_numpy(actions).to(self._device)
        rows = torch.arange(len(played), device=self._device)
        self._actions[rows, (self._lengths - 1).clamp(min=0)] = played

    def context(self, rows: Tensor) -> Context:
        """What the environments `rows` (n,) have seen and done, as the dream wants it."""
        assert self._codes is not None, "nothing has been seen yet"
        return Context(self._codes[rows], self._actions[rows], self._lengths[rows], self._tasks[rows])

    def _remember(self, rows: Tensor, codes: Tensor) -> None:
        """Appends one frame's codes (n, K) to the histories of `rows` (n,), dropping the oldest from full ones."""
        capacity = self._actions.shape[1]
        if self._codes is None:
            self._codes = codes.new_zeros(len(self._tasks), capacity, codes.shape[1])
        # Without masks as indices, whose number of rows the host would have to wait for.
        lengths, seen, played = self._lengths[rows], self._codes[rows], self._actions[rows]
        full = lengths == capacity
        self._codes[rows] = torch.where(full[:, None, None], seen.roll(-1, dims=1), seen)
        self._actions[rows] = torch.where(full[:, None], played.roll(-1, dims=1), played)
        lengths = lengths - full.long()
        self._codes[rows, lengths] = codes
        self._lengths[rows] = lengths + 1


def agent_player(
    agent: Agent, planner: PlannerConfig, execution: ExecutionConfig, environments: Environments,
    device: torch.device,
) -> Player:  # fmt: skip
    """The agent, moved to the device, as it plays in these environments with checked settings of one planner."""
    tokenizer, model = agent.tokenizer.to(device), agent.model.to(device)
    dream, in_parts = make_dream(model, execution), InParts(make_planner(planner))
    return Player(tokenizer, dream, in_parts, planner.context, environments.tasks, environments.legal, device)


class RandomPlayer:
    """Plays a uniformly random legal action at every step; legal: (N, A) bool, A the model's actions."""

    def __init__(self, legal: NDArray[np.bool_]) -> None:
        self._legal = legal

    def act(self, turn: Turn) -> NDArray[np.int64]:
        """Actions (N,), a function of each episode's seed and step."""
        return random_legal_actions(self._legal, uniform(turn.seeds, turn.steps, _WHICH_ACTION))

    def record(self, actions: NDArray[np.int64]) -> None:
        """Chance has no memory."""
