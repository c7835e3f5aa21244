"""What the tree cache is measured against: a dream in which every node has its own copy of its path's keys and values.

This is how a usual batched decoder holds beams. It is written to be as fast as that layout allows: one call a position
for all rows, no mask, buffers that are kept from plan to plan, and one copy of a path a node.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jowa.models.transformer import Layer
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.decoder import at_least_float32
from jowa.planning.dream import Context, Nodes

Buffers = list[Tensor]
"""Per layer keys and values (2, rows, heads, slots, D / heads)."""


class ExpandedDream:
    """A dream (see `jowa.planning.dream`) for beam search: only nodes of the last expansion can be expanded.

    Contexts must all be full (`lengths` equal to L), so that no row needs a mask.
    """

    def __init__(self, model: WorldActionModel) -> None:
        self._model = model
        self._memory: dict[int, Buffers] = {}

    @torch.inference_mode()
    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        """Read the contexts: their roots, with q (N, 1, 18)."""
        model, count = self._model, context.codes.shape[0]
        context = context.to(model.device)
        positions = torch.arange(context.codes.shape[1] * model.block_tokens, device=model.device)
        positions = positions.view(1, -1, model.block_tokens)
        codes = model.embed_codes(context.codes.flatten(1), positions[..., :-1].flatten(1), context.tasks)
        actions = model.embed_actions(context.actions, positions[..., -1], context.tasks)
        tokens = torch.cat((codes.unflatten(1, context.codes.shape[1:]), actions[:, :, None]), dim=2).flatten(1, 2)
        cache = model.new_cache(count, tokens.shape[1] - 1)
        hidden = model.trunk(tokens[:, :-1], cache, torch.arange(cache.slots, device=model.device))
        self._tasks, self._buffers, self._filled, self._generation = context.tasks, cache.layers, cache.slots, 0
        self._codes, self._first = context.codes[:, -1:], 0
        q = at_least_float32(model.q_values(hidden[:, -1:]))
        nothing = torch.zeros_like(q[..., 0])
        return Nodes(torch.zeros_like(context.lengths)[:, None], nothing, torch.ones_like(nothing), q)

    @torch.inference_mode()
    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """Imagine playing actions (N, B) in nodes (N, B) of the last expansion: B new nodes a tree.

        Raises:
            ValueError: for older nodes (noticed on a CPU only).
        """
        model, (count, children) = self._model, parent.shape
        if parent.device.type == "cpu" and int(parent.min()) < self._first:
            raise ValueError("only nodes of the last expansion can be expanded")
        siblings = self._codes.shape[1] - self._first
        rows = torch.arange(count, device=parent.device)[:, None] * siblings + parent - self._first
        self._buffers = self._copied(rows.flatten())
        codes: list[Tensor] = []
        for offset in range(model.block_tokens):
            embed = model.embed_codes if offset else model.embed_actions
            position = torch.full((1, 1), self._filled + offset, device=parent.device)
            hidden = self._advance(embed(codes[-1] if offset else action, position, self._tasks), offset)
            if offset == 0:
                rewards = model.reward_logits(hidden).argmax(dim=-1) - 1
                ends = model.end_logits(hidden).argmax(dim=-1)
            if offset < model.block_tokens - 1:
                codes.append(model.observation_logits(hidden).argmax(dim=-1))
        q = at_least_float32(model.q_values(hidden))
        self._first = self._codes.shape[1]
        self._codes = torch.cat((self._codes, torch.stack(codes, dim=-1)), dim=1)
        self._filled += model.block_tokens
        ids = self._first + torch.arange(children, device=parent.device).expand(count, -1)
        return Nodes(ids, rewards.to(q.dtype), (1 - ends).to(q.dtype), q)

    def keep(self, ids: Tensor) -> None:
        """Nothing to do: the next expansion copies those it needs."""

    def codes(self, ids: Tensor) -> Tensor:
        """The frames' codes (N, B, K) int64 at nodes (N, B)."""
        return self._codes.gather(1, ids[:, :, None].expand(-1, -1, self._codes.shape[2]))

    def _copied(self, rows: Tensor) -> Buffers:
        """Buffers whose row i begins with what row rows[i] of the present ones holds, and have room for a block."""
        self._generation += 1
        heads, size = self._buffers[0].shape[2], self._buffers[0].shape[4]
        shape = (len(rows), 2, heads, self._filled + self._model.block_tokens, size)
        buffers = self._memory.get(self._generation)
        if buffers is None or buffers[0].shape != shape:
            buffers = self._memory[self._generation] = [torch.empty(shape).to(part) for part in self._buffers]
        for old, new in zip(self._buffers, buffers, strict=True):
            torch.index_select(old, 0, rows, out=new[:, :, :, : self._filled])
        return buffers

    def _advance(self, embedded: Tensor, offset: int) -> Tensor:
        """Hidden states (N, B, D) of embedded tokens (N, B, D), each a sequence of its own."""
        trunk, slot = self._model.trunk, self._filled + offset
        x = embedded.flatten(0, 1)
        for layer, buffer in zip(trunk.layers, self._buffers, strict=True):
            assert isinstance(layer, Layer)
            q, k, v = layer.qkv(layer.attention_norm(x)).view(len(x), 3, layer.heads, 1, -1).unbind(1)
            buffer[:, 0, :, slot : slot + 1] = k
            buffer[:, 1, :, slot : slot + 1] = v
            keys, values = buffer[:, :, :, : slot + 1].unbind(1)
            attended = F.scaled_dot_product_attention(q, keys, values)
            x = x + layer.projection(attended.flatten(1))
            x = x + layer.mlp(layer.mlp_norm(x))
        hidden: Tensor = trunk.norm(x).view_as(embedded)
        return hidden
