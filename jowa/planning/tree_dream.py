"""The world-action model's imagination: N trees of imagined frames in one key-value cache.

The context is read once. After that every node is decoded against the cache, all (N, B) nodes of a call together as
query rows of one trunk call a position: its action, then its codes one by one, each row seeing the prefix, its
ancestors' blocks and its own block so far. Each head is read only where it is needed: reward and end at the action,
the next code at all tokens but the last, Q at the last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.dream import Context, Nodes
from jowa.planning.tree import Tree


class _Trees(NamedTuple):
    """The present trees: their shape, their keys and values, and their environments' task ids (N,)."""

    tree: Tree
    cache: KeyValueCache
    tasks: Tensor


class TreeDream:
    """A dream (see `jowa.planning.dream`) in a world-action model; one object serves any number of plans.

    Args:
        model: in eval mode.
        temperature: 0 decodes the likeliest codes; above 0 codes are sampled. Reward and end are always the mode.
        generator: source of the samples, on the model's device; the global one if None.
    """

    def __init__(
        self, model: WorldActionModel, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        if temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {temperature}")
        self._model = model
        self._temperature = temperature
        self._generator = generator
        self._trees: _Trees | None = None

    @torch.inference_mode()
    def reset(self, context: Context, room: int = 0) -> Nodes:
        """Read a context of at most the model's blocks and start new trees: their roots, with q (N, 1, 18).

        Raises:
            ValueError: if the context is wider than the model's sequence, or the model is in training mode.
        """
        model = self._model
        if model.training:
            raise ValueError("the model is in training mode: call eval() before dreaming with it")
        blocks = model.config.blocks
        if context.codes.shape[1] > blocks:
            raise ValueError(f"the context has {context.codes.shape[1]} frames, the model sees {blocks}")
        context = context.to(model.device)
        embedded = self._embed_context(context)
        count, slots = embedded.shape[:2]
        cache = model.new_cache(count, slots)
        every_slot = torch.arange(slots, device=embedded.device)
        causal = (every_slot <= every_slot[:, None]).expand(count, -1, -1)
        hidden = model.trunk(embedded, cache, every_slot, causal)
        present = context.lengths - 1
        last_code = (present + 1) * model.block_tokens - 2
        q = _at_least_float32(model.q_values(_take(hidden, last_code)))[:, None]
        tree = Tree(_take(context.codes, present), context.lengths, context.codes.shape[1], blocks)
        self._trees = _Trees(tree, cache, context.tasks)
        reward = torch.zeros_like(q[..., 0])
        return Nodes(torch.zeros_like(present)[:, None], reward, torch.ones_like(reward), q)

    @torch.inference_mode()
    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """Imagine playing actions (N, B) int64 in nodes (N, B) int64: K + 1 trunk calls for B new nodes a tree.

        Raises:
            ValueError: before any work, if a path would have more frames than the model sees.
        """
        tree, cache, tasks = self._present()
        model = self._model
        tree.check_room(parent)
        first_id = tree.nodes
        slots, position, visible = tree.grow(parent)
        children = parent.shape[1]
        cache.grow(children * tree.tokens_per_block)
        row = torch.arange(children, device=parent.device)

        def advance(embedded: Tensor, offset: int) -> Tensor:
            visible[:, row, slots + offset] = True
            return model.trunk(embedded, cache, slots + offset, visible)

        hidden = advance(model.embed_actions(action, position, tasks), 0)
        reward = model.reward_logits(hidden).argmax(dim=-1) - 1
        end = model.end_logits(hidden).argmax(dim=-1)
        codes = []
        for offset in range(1, tree.tokens_per_block):
            codes.append(self._choose(model.observation_logits(hidden)))
            hidden = advance(model.embed_codes(codes[-1], position + offset, tasks), offset)
        q = _at_least_float32(model.q_values(hidden))
        tree.add_codes(torch.stack(codes, dim=-1))
        ids = torch.arange(first_id, first_id + children, device=parent.device).expand(parent.shape[0], -1)
        return Nodes(ids, reward.to(q.dtype), (1 - end).to(q.dtype), q)

    @torch.inference_mode()
    def codes(self, ids: Tensor) -> Tensor:
        """The frames' codes (N, B, K) int64 at nodes (N, B) of the present trees: real at the root, else imagined."""
        codes = self._present().tree.codes
        return codes.gather(1, ids[:, :, None].expand(-1, -1, codes.shape[2]))

    def _present(self) -> _Trees:
        if self._trees is None:
            raise ValueError("the dream has no trees yet: call reset() first")
        return self._trees

    def _embed_context(self, context: Context) -> Tensor:
        """Tokens of the prefix, (N, (K + 1) L - 1, D), what lies beyond an environment's length being arbitrary."""
        count, frames, tokens = context.codes.shape
        frame = torch.arange(frames, device=context.codes.device)
        # The padding is never attended to, but it must be a number the embeddings know.
        codes = context.codes.masked_fill((frame >= context.lengths[:, None])[:, :, None], 0)
        actions = context.actions.masked_fill(frame >= context.lengths[:, None] - 1, 0)
        start = frame[:, None] * (tokens + 1)
        code_positions = (start + torch.arange(tokens, device=frame.device)).flatten().expand(count, -1)
        action_positions = (start[:, 0] + tokens).expand(count, -1)
        code_tokens = self._model.embed_codes(codes.flatten(1), code_positions, context.tasks)
        action_tokens = self._model.embed_actions(actions, action_positions, context.tasks)
        blocks = torch.cat((code_tokens.unflatten(1, (frames, tokens)), action_tokens[:, :, None]), dim=2)
        return blocks.flatten(1, 2)[:, :-1]

    def _choose(self, logits: Tensor) -> Tensor:
        """Codes (N, B) int64 from logits (N, B, V)."""
        if self._temperature == 0:
            return logits.argmax(dim=-1)
        # Exponential noise samples the softmax as multinomial would, which waits for the device to check its input.
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=self._generator)
        return (logits.float() / self._temperature - noise.log()).argmax(dim=-1)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """Row index[n] of rows (N, T, ...) for each n: (N, ...)."""
    return rows[torch.arange(rows.shape[0], device=rows.device), index]


def _at_least_float32(values: Tensor) -> Tensor:
    """Values in which a planner can add up rewards and returns without losing them to rounding."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
