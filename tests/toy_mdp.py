"""A batch of small random decision processes behind the dream's two calls, for testing planners by brute force."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.planning.dream import Context, Needs, Nodes

ACTIONS = 18


@dataclass(frozen=True)
class ToyMDP:
    """N deterministic processes: tables of next state (N, S, A), reward (N, S, A), end (N, S, A) and q (N, S, A)."""

    following: Tensor
    reward: Tensor
    end: Tensor
    q: Tensor

    @classmethod
    def random(cls, seed: int, count: int, states: int = 7, grid: float | None = None, ends: float = 0.25) -> ToyMDP:
        """Random tables in float64; with a grid, q is rounded to its multiples, so that ties are common."""
        random = torch.Generator().manual_seed(seed)
        shape = (count, states, ACTIONS)
        q = torch.randn(shape, generator=random, dtype=torch.float64)
        return cls(
            torch.randint(states, shape, generator=random),
            torch.randint(-1, 2, shape, generator=random).double(),
            torch.rand(shape, generator=random) < ends,
            q if grid is None else (q / grid).round() * grid,
        )

    def one(self, environment: int) -> ToyMDP:
        """The same process alone, as a batch of one."""
        part = slice(environment, environment + 1)
        return ToyMDP(self.following[part], self.reward[part], self.end[part], self.q[part])

    def to(self, device: str) -> ToyMDP:
        return ToyMDP(*(x.to(device) for x in (self.following, self.reward, self.end, self.q)))


class ToyDream:
    """Perfect imagination in a ToyMDP; a context's present state is its last frame's only code."""

    def __init__(self, mdp: ToyMDP) -> None:
        self.mdp = mdp
        self.expansions = 0

    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        self.expansions = 0
        self.states = context.codes[:, :, 0].gather(1, context.lengths[:, None] - 1)
        self.alive = torch.ones_like(self.states, dtype=torch.bool)
        zeros = torch.zeros_like(self.states)
        reward = zeros.double()
        return Nodes(zeros, reward, torch.ones_like(reward), self._look(self.mdp.q, self.states))

    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        self.expansions += 1
        assert parent.is_meta or self.alive.gather(1, parent).all(), "a node was promised to be done with"
        self.alive = torch.cat((self.alive, torch.ones_like(parent, dtype=torch.bool)), dim=1)
        old = self.states.gather(1, parent)
        new, reward, end = (
            self._look(table, old).gather(2, action[:, :, None])[:, :, 0]
            for table in (self.mdp.following, self.mdp.reward, self.mdp.end)
        )
        ids = self.states.shape[1] + torch.arange(new.shape[1], device=new.device).expand_as(new)
        self.states = torch.cat((self.states, new), dim=1)
        return Nodes(ids, reward, 1.0 - end.double(), self._look(self.mdp.q, new))

    def keep(self, ids: Tensor) -> None:
        self.alive = torch.zeros_like(self.alive).scatter(1, ids, True)

    def environments(self, count: int, frames: int, needs: Needs) -> int:
        return count

    def codes(self, ids: Tensor) -> Tensor:
        return self.states.gather(1, ids)[:, :, None]

    @staticmethod
    def _look(table: Tensor, states: Tensor) -> Tensor:
        return table.gather(1, states[:, :, None].expand(-1, -1, table.shape[2]))


def toy_context(states: Tensor) -> Context:
    """A context whose present states are `states` (N,), behind a frame that must be ignored and before padding."""
    count = states.shape[0]
    codes = torch.stack((torch.zeros_like(states), states, torch.full_like(states, 99)), dim=1)[:, :, None]
    zeros = torch.zeros_like(states)
    return Context(codes, zeros[:, None].expand(count, 3), zeros + 2, zeros)


def random_legal(seed: int, count: int, most: int) -> Tensor:
    """(N, 18) bool with 1 to `most` legal actions an environment."""
    random = torch.Generator().manual_seed(seed)
    rank = torch.rand(count, ACTIONS, generator=random).argsort(dim=1).argsort(dim=1)
    return rank < torch.randint(1, most + 1, (count, 1), generator=random)
