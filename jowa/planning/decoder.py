"""One imagined block: from actions to rewards, ends, frames and Q, for all B new nodes of N trees at once.

All nodes are query rows of one trunk call a position: the action, then the codes one by one. Each head is read only
where it is needed: reward and end at the action, the next code at all tokens but the last, Q at the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.tree import ALIGNMENT, Growth

Trunk = Callable[[Tensor, KeyValueCache, Tensor, Tensor], Tensor]
"""Embedded tokens (N, T, D), the cache, slots (T,) and a bias (N, 1, T, S) → hidden states (N, T, D)."""


class Block(NamedTuple):
    """What is known of B new nodes in each of N trees.

    Attributes:
        actions: (N, B) int64 that led to them.
        tasks: (N,) int64
        draft: (N, B, K) int64, their parents' frames: what theirs may look like.
        growth: where they go in the cache, and what they see there.
    """

    actions: Tensor
    tasks: Tensor
    draft: Tensor
    growth: Growth


class Imagined(NamedTuple):
    """What is predicted of them: rewards and continuations (N, B), codes (N, B, K) int64, q (N, B, A), float."""

    rewards: Tensor
    continuations: Tensor
    codes: Tensor
    q: Tensor


class Decoder(Protocol):
    """Anything that decodes blocks, writing their keys and values into the cache."""

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined: ...


class BlockDecoder:
    """Decodes blocks one position after the other: K + 1 trunk calls.

    Args:
        model: in eval mode.
        choose: codes (N, B) from logits (N, B, V).
        trunk: what to call for the model's trunk, itself if None; a compiled one needs `static`.
        static: let every position attend over all slots of the block's bias, those not yet written closed, so that the
            calls for all positions have the same shapes. Otherwise they end with the last slot written.
    """

    def __init__(
        self,
        model: WorldActionModel,
        choose: Callable[[Tensor], Tensor],
        trunk: Trunk | None = None,
        static: bool = False,
    ) -> None:
        self._model = model
        self._choose = choose
        self._trunk: Trunk = model.trunk if trunk is None else trunk
        self._static = static

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
        model, growth = self._model, block.growth
        hidden = self._advance(model.embed_actions(block.actions, growth.positions[0], block.tasks), cache, growth, 0)
        rewards = model.reward_logits(hidden).argmax(dim=-1) - 1
        ends = model.end_logits(hidden).argmax(dim=-1)
        codes = []
        for offset in range(1, len(growth.slots)):
            codes.append(self._choose(model.observation_logits(hidden)))
            embedded = model.embed_codes(codes[-1], growth.positions[offset], block.tasks)
            hidden = self._advance(embedded, cache, growth, offset)
        q = at_least_float32(model.q_values(hidden))
        return Imagined(rewards.to(q.dtype), (1 - ends).to(q.dtype), torch.stack(codes, dim=-1), q)

    def _advance(self, embedded: Tensor, cache: KeyValueCache, growth: Growth, offset: int) -> Tensor:
        """Hidden states (N, B, D) of the blocks' tokens at `offset`."""
        slots = growth.slots[offset]
        return self._trunk(embedded, cache, slots, self._open(growth, offset))

    def _open(self, growth: Growth, offset: int) -> Tensor:
        """The bias at `offset`, where slots of later tokens are not written yet."""
        if not (self._static or growth.padded):
            later = (len(growth.slots) - 1 - offset) * growth.slots.shape[1]
            return growth.bias[..., : growth.bias.shape[-1] - later]
        width = growth.bias.shape[-1]
        bias = pad(growth.bias, (0, -width % ALIGNMENT))
        slots = torch.arange(bias.shape[-1], device=bias.device)
        return bias.masked_fill(slots > growth.slots[offset, -1], float("-inf"))[..., :width]


def likeliest(logits: Tensor) -> Tensor:
    """Codes (...) int64 from logits (..., V): greedy decoding."""
    return logits.argmax(dim=-1)


def at_least_float32(values: Tensor) -> Tensor:
    """Values in which a planner can add up rewards and returns without losing them to rounding."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
