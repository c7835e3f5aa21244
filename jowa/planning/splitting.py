"""Plans for more environments than memory holds trees for: part after part."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from jowa.planning.dream import Context, Dream, Needs
from jowa.planning.planner import Plan, Planner


class InParts:
    """Plans as `planner` does, for as many environments at a time as fit into memory.

    The parts differ by one environment at most. Nothing is decided differently, and a batch that fits is not split.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner

    def needs(self, actions: int) -> Needs:
        """The planner's."""
        return self.planner.needs(actions)

    @torch.inference_mode()
    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""
        count, frames = context.actions.shape
        parts = -(-count // dream.environments(count, frames, self.planner.needs(legal.shape[1])))
        if parts <= 1:
            return self.planner.plan(dream, context, legal)
        chosen = torch.arange(count, device=legal.device).tensor_split(parts)
        plans = [self.planner.plan(dream, context.rows(rows.to(context.codes.device)), legal[rows]) for rows in chosen]
        return Plan(*(torch.cat([getattr(plan, field.name) for plan in plans]) for field in fields(Plan)))
