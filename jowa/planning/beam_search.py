"""Beam search over the dream (arXiv 2410.00564), for N environments at once.

The beam is a rectangle of rows (N, R), whatever the environments' numbers of legal actions: rows that stand for no
future are dead, with score -inf, so every environment runs the same operations and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.planning.dream import Context, Dream, Nodes
from jowa.planning.greedy import greedy_plan
from jowa.planning.planner import Plan, check_legal, legal_q


@dataclass(frozen=True)
class Beam:
    """R kept futures an environment, best first; the leaves are `nodes`.

    Attributes:
        nodes: ids, reward, continuation (N, R) and q (N, R, A) of the leaves.
        scores: (N, R), -inf for dead rows.
        returns: (N, R), discounted imagined rewards so far.
        alive: (N, R), product of the continuations so far: 0 after a predicted end (always 1 if ends are ignored).
        first_actions: (N, R) int64.
    """

    nodes: Nodes
    scores: Tensor
    returns: Tensor
    alive: Tensor
    first_actions: Tensor
    path: Tensor
    rewards: Tensor
    continuations: Tensor

    def best(self, width: int, tie_tolerance: float) -> Beam:
        """The best `width` rows by score; equal ones, and those within the best one's tolerance, as they came."""
        top = self.scores.amax(dim=1, keepdim=True)
        judged = torch.where(self.scores >= top - tie_tolerance, top, self.scores)
        kept = judged.argsort(dim=1, descending=True, stable=True)[:, :width]
        actions = self.nodes.q.shape[2]
        nodes = Nodes(
            self.nodes.ids.gather(1, kept),
            self.nodes.reward.gather(1, kept),
            self.nodes.continuation.gather(1, kept),
            self.nodes.q.gather(1, kept[:, :, None].expand(-1, -1, actions)),
        )
        columns = (self.scores, self.returns, self.alive, self.first_actions)
        grown = (self.path, self.rewards, self.continuations)
        paths = (part.gather(1, kept[:, :, None].expand(-1, -1, part.shape[2])) for part in grown)
        return Beam(nodes, *(column.gather(1, kept) for column in columns), *paths)


class BeamSearch:
    """Keeps the best `width` imagined futures over `horizon` agent steps and plays the best one's first action.

    Each round every kept node is expanded by its best min(width, number of legal) legal actions by expected Q. After
    t steps a future is worth sum over i < t of gamma^i r_i, plus gamma^t times the highest legal Q at its leaf; the
    best `width` are kept, the earlier of equal ones (order: kept node, then rank of the action by Q).

    With `use_termination` a future that is predicted to end is worth its rewards so far: nothing is added for the
    leaf or for later steps, and it stays in the beam as one row. Without, predicted ends are ignored, as the paper's
    authors do. Horizon 0 is greedy play.

    Futures whose worth is within `tie_tolerance` (points of discounted return) of the best one's count as equal to it:
    a model that can't tell actions apart then leaves the choice to Q. The paper has none (0).
    """

    def __init__(self, width: int, horizon: int, gamma: float = 0.99, use_termination: bool = True,
                 tie_tolerance: float = 0.0) -> None:  # fmt: skip
        if width < 1 or horizon < 0:
            raise ValueError(f"width must be at least 1 and horizon at least 0, not {width} and {horizon}")
        self.width = width
        self.horizon = horizon
        self.gamma = gamma
        self.use_termination = use_termination
        self.tie_tolerance = tie_tolerance

    @torch.inference_mode()
    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""
        check_legal(legal)
        root = dream.reset(context)
        legal = legal.to(root.q.device)
        if self.horizon == 0:
            return greedy_plan(root, legal)
        zeros = torch.zeros_like(root.reward)
        beam = Beam(root, zeros, zeros, torch.ones_like(zeros), torch.zeros_like(root.ids),
                    zeros[:, :, None][..., :0].long(),
                    zeros[:, :, None][..., :0], zeros[:, :, None][..., :0])  # fmt: skip
        for step in range(self.horizon):
            beam = self._candidates(dream, beam, legal, step).best(self.width, self.tie_tolerance)
        return Plan(beam.first_actions[:, 0], root.q[:, 0], beam.scores, beam.first_actions, beam.nodes.ids,
                    dream.codes(beam.path.flatten(1)).unflatten(1, beam.path.shape[1:]),
                    beam.rewards, beam.continuations)  # fmt: skip

    def _candidates(self, dream: Dream, beam: Beam, legal: Tensor, step: int) -> Beam:
        """Expand all R rows of a beam by their best C actions: R * C rows, node-major, then rank by Q."""
        ranked_q, ranked = legal_q(beam.nodes.q, legal).sort(dim=-1, descending=True, stable=True)
        columns = min(self.width, ranked.shape[2])
        actions = ranked[:, :, :columns]
        possible = (ranked_q[:, :, :columns] > float("-inf")) & (beam.scores > float("-inf"))[:, :, None]
        # What follows an end does not matter, so one row is enough to carry an ended future to the horizon.
        first_column = torch.arange(columns, device=ranked.device) == 0
        possible &= first_column | (beam.alive > 0)[:, :, None]

        def spread(rows: Tensor) -> Tensor:
            return rows.repeat_interleave(columns, dim=1)

        nodes = dream.expand(spread(beam.nodes.ids), actions.flatten(1))
        alive = spread(beam.alive)
        returns = spread(beam.returns) + self.gamma**step * alive * nodes.reward
        if self.use_termination:
            alive = alive * nodes.continuation
        leaf_value = legal_q(nodes.q, legal).amax(dim=-1)
        scores = returns + self.gamma ** (step + 1) * alive * leaf_value
        scores = scores.masked_fill(~possible.flatten(1), float("-inf"))
        first = actions.flatten(1) if step == 0 else spread(beam.first_actions)
        path = torch.cat((spread(beam.path), nodes.ids[:, :, None]), 2)
        rewards = torch.cat((spread(beam.rewards), nodes.reward[:, :, None]), 2)
        continuations = torch.cat((spread(beam.continuations), nodes.continuation[:, :, None]), 2)
        return Beam(nodes, scores, returns, alive, first, path, rewards, continuations)
