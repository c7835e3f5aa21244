"""Beam search over the dream (arXiv 2410.00564), for N environments at once.

The beam is a rectangle of rows (N, R), whatever the environments' numbers of legal actions: rows that stand for no
future are dead, with score -inf, so every environment runs the same operations and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from jowa.planning.dream import Context, Dream, Needs, Nodes
from jowa.planning.greedy import greedy_plan
from jowa.planning.planner import Plan, check_legal, legal_q


@dataclass(frozen=True)
class Beam:
    """R kept futures of t agent steps an environment, best first.

    Attributes:
        ids: (N, R, t) int64, the dream's nodes along each future; the root, if t is 0, is no part of it.
        q: (N, R, A), expected Q at the leaves.
        scores: (N, R), -inf for dead rows.
        returns: (N, R), discounted imagined rewards so far.
        alive: (N, R), product of the continuations so far: 0 after a predicted end (always 1 if ends are ignored).
        actions: (N, R, t) int64, that lead along each future.
        rewards: (N, R, t)
        continuations: (N, R, t), as predicted, whether ends are ignored or not.
    """

    ids: Tensor
    q: Tensor
    scores: Tensor
    returns: Tensor
    alive: Tensor
    actions: Tensor
    rewards: Tensor
    continuations: Tensor

    @classmethod
    def at(cls, root: Nodes) -> Beam:
        """One future an environment, of no steps."""
        zeros, none = torch.zeros_like(root.reward), root.reward[:, :, None][:, :, :0]
        no_ids = root.ids[:, :, None][:, :, :0]
        return cls(no_ids, root.q, zeros, zeros, torch.ones_like(zeros), no_ids, none, none)

    def rows(self, index: Tensor) -> Beam:
        """The futures `index` (N, R') int64."""

        def take(part: Tensor) -> Tensor:
            if part.dim() == 2:
                return part.gather(1, index)
            return part.gather(1, index[:, :, None].expand(-1, -1, part.shape[2]))

        return Beam(*(take(getattr(self, field.name)) for field in fields(self)))

    def best(self, width: int, tie_tolerance: float) -> Beam:
        """The best `width` rows by score; equal ones, and those within the best one's tolerance, as they came."""
        top = self.scores.amax(dim=1, keepdim=True)
        judged = torch.where(self.scores >= top - tie_tolerance, top, self.scores)
        return self.rows(judged.argsort(dim=1, descending=True, stable=True)[:, :width])


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

    def needs(self, actions: int) -> Needs:
        """Alive in a round are the frames of the futures kept and of what these grow by, `width` more each."""
        columns, leaves, alive = min(self.width, actions), 1, 0
        needs = Needs(0, 0)
        for step in range(self.horizon):
            kept, grown = min(alive, leaves * step), leaves * columns
            moved = kept if kept < alive else 0
            alive = kept + grown
            needs = Needs(*map(max, needs, (alive, grown, moved)))
            leaves = min(self.width, grown)
        return needs

    @torch.inference_mode()
    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""
        check_legal(legal, context)
        root = dream.reset(context, self.needs(legal.shape[1]).nodes, self.horizon)
        legal = legal.to(root.q.device)
        if self.horizon == 0:
            return greedy_plan(dream, root, legal)
        beam = Beam.at(root)
        for step in range(self.horizon):
            leaves = root.ids if step == 0 else beam.ids[:, :, -1]
            if step > 0:
                dream.keep(leaves)
            beam = self._candidates(dream, beam, leaves, legal, step).best(self.width, self.tie_tolerance)
        count, rows, steps = beam.ids.shape
        frames = dream.codes(beam.ids.flatten(1)).view(count, rows, steps, -1)
        return Plan(
            beam.actions[:, 0, 0], root.q[:, 0], beam.scores, beam.actions[:, :, 0], beam.actions, frames,
            beam.rewards, beam.continuations,
        )  # fmt: skip

    def _candidates(self, dream: Dream, beam: Beam, leaves: Tensor, legal: Tensor, step: int) -> Beam:
        """Expand all R rows of a beam by their best C actions: R * C rows, node-major, then rank by Q."""
        ranked_q, ranked = legal_q(beam.q, legal).sort(dim=-1, descending=True, stable=True)
        columns = min(self.width, ranked.shape[2])
        actions = ranked[:, :, :columns]
        possible = (ranked_q[:, :, :columns] > float("-inf")) & (beam.scores > float("-inf"))[:, :, None]
        # What follows an end does not matter, so one row is enough to carry an ended future to the horizon.
        first_column = torch.arange(columns, device=ranked.device) == 0
        possible &= first_column | (beam.alive > 0)[:, :, None]

        rows = torch.arange(leaves.shape[1], device=leaves.device).repeat_interleave(columns)
        parents = beam.rows(rows.expand(len(leaves), -1))
        nodes = dream.expand(leaves.repeat_interleave(columns, dim=1), actions.flatten(1))
        returns = parents.returns + self.gamma**step * parents.alive * nodes.reward
        alive = parents.alive * nodes.continuation if self.use_termination else parents.alive
        leaf_value = legal_q(nodes.q, legal).amax(dim=-1)
        scores = returns + self.gamma ** (step + 1) * alive * leaf_value
        return Beam(
            torch.cat((parents.ids, nodes.ids[:, :, None]), dim=2),
            nodes.q,
            scores.masked_fill(~possible.flatten(1), float("-inf")),
            returns,
            alive,
            torch.cat((parents.actions, actions.flatten(1)[:, :, None]), dim=2),
            torch.cat((parents.rewards, nodes.reward[:, :, None]), dim=2),
            torch.cat((parents.continuations, nodes.continuation[:, :, None]), dim=2),
        )
