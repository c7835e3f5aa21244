"""No planning: the best legal action by expected Q at the present frame."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.planning.dream import Context, Dream, Needs, Nodes
from jowa.planning.planner import Plan, check_legal, legal_q


class Greedy:
    """Plays the legal action of highest expected Q; the lowest one of several equal ones."""

    def needs(self, actions: int) -> Needs:
        """Nothing is imagined."""
        return Needs(0, 0)

    @torch.inference_mode()
    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""
        check_legal(legal, context)
        root = dream.reset(context)
        return greedy_plan(dream, root, legal.to(root.q.device))


def greedy_plan(dream: Dream, root: Nodes, legal: Tensor) -> Plan:
    """The plan that looks no step ahead: its one future an environment has no frames."""
    # A stable sort, because max and argmax promise nothing about which of several equal values they return.
    values, order = legal_q(root.q[:, 0], legal).sort(dim=-1, descending=True, stable=True)
    frames = dream.codes(root.ids)[:, :, None][:, :, :0]
    nothing = root.reward[:, :, None][:, :, :0]
    first = order[:, :1]
    return Plan(order[:, 0], root.q[:, 0], values[:, :1], first, first[:, :, None][:, :, :0], frames, nothing, nothing)
