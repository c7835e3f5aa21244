"""The world-action model's imagination: N trees of imagined frames in one key-value cache.

The context is read once and stored once an environment. After that every node is decoded against the cache, seeing the
prefix, its ancestors' blocks and its own block so far (see `jowa.planning.tree`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.decoder import Block, BlockDecoder, Decoder, at_least_float32
from jowa.planning.dream import Context, Needs, Nodes
from jowa.planning.memory import draft_bytes, free_bytes, plan_bytes
from jowa.planning.tree import Tree, slots_for


class _Trees(NamedTuple):
    """The present trees: their shape, their keys and values, and their environments' task ids (N,)."""

    tree: Tree
    cache: KeyValueCache
    tasks: Tensor


class TreeDream:
    """A dream (see `jowa.planning.dream`) in a world-action model; one object serves any number of plans.

    The cache's memory is kept from plan to plan.

    Args:
        model: in eval mode.
        temperature: 0 decodes the likeliest codes; above 0 codes are sampled. Reward and end are always the mode.
        generator: source of the samples, on the model's device; the global one if None.
        decode: how blocks are decoded, if not by one trunk call a position; only at temperature 0.
        memory: bytes that trees may take at once (see `environments`); None for 90 % of what is free when it is asked.
        graphed: whether `decode` replays CUDA graphs, which takes more memory.
        draft_rows: up to how many nodes at once `decode` drafts, which takes more memory too.
    """

    def __init__(
        self,
        model: WorldActionModel,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        decode: Decoder | None = None,
        memory: int | None = None,
        graphed: bool = False,
        draft_rows: int = 0,
    ) -> None:
        if temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {temperature}")
        self._model = model
        self._temperature = temperature
        self._generator = generator
        if temperature > 0 and decode is not None:
            raise ValueError("samples are drawn by the plain decoder only: leave out `decode` or the temperature")
        self._decode = decode or BlockDecoder(model, self._choose)
        self._memory = memory
        self._graphed = graphed
        self._draft_rows = draft_rows
        self._fitting: dict[tuple[int, Needs], int] = {}
        self._kept: KeyValueCache | None = None
        self._trees: _Trees | None = None

    @torch.inference_mode()
    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        """Read a context and start new trees: their roots, with q (N, 1, 18).

        Raises:
            ValueError: if context and depth together exceed the model's blocks, or the model is in training mode; on a
                CPU also for codes and actions that the model doesn't know.
        """
        model = self._model
        if model.training:
            raise ValueError("the model is in training mode: call eval() before dreaming with it")
        self._check_frames(context.codes.shape[1], room if depth is None else min(room, depth))
        self._check_context(context)
        context = context.to(model.device)
        count, frames = context.actions.shape
        cache = self._cache(count, slots_for(frames, room, model.block_tokens))
        embedded = self._embed_context(context)
        hidden = model.trunk(embedded, cache, torch.arange(embedded.shape[1], device=embedded.device))
        present = context.lengths - 1
        last_code = (present + 1) * model.block_tokens - 2
        q = at_least_float32(model.q_values(_take(hidden, last_code)))[:, None]
        # A long search grows many times; where each shape is recorded there must not be too many.
        step = max(1, room // 16) if self._graphed else 1
        tree = Tree(_take(context.codes, present), context.lengths, frames, room, cache.dtype, step)
        self._trees = _Trees(tree, cache, context.tasks)
        reward = torch.zeros_like(q[..., 0])
        return Nodes(torch.zeros_like(present)[:, None], reward, torch.ones_like(reward), q)

    @torch.inference_mode()
    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """Imagine playing actions (N, B) int64 in nodes (N, B) int64: B new nodes a tree.

        Raises:
            ValueError: before any work, if there is no room, or (noticed on a CPU only, since looking would make the
                host wait for a GPU) if a path would have more frames than the model sees.
        """
        tree, cache, tasks = self._present()
        if parent.device.type == "cpu":
            deepest = int((tree.lengths[:, None] + tree.depth.gather(1, parent)).max())
            self._check_frames(deepest, 1)
        ids = tree.nodes + torch.arange(parent.shape[1], device=parent.device).expand(parent.shape[0], -1)
        imagined = self._decode(cache, Block(action, tasks, self.codes(parent), tree.grow(parent)))
        tree.add_codes(imagined.codes)
        return Nodes(ids, imagined.rewards, imagined.continuations, imagined.q)

    @torch.inference_mode()
    def keep(self, ids: Tensor) -> None:
        """Free the room of all nodes but (N, W) and their ancestors, as far as that is certain to free any."""
        tree, cache, _ = self._present()
        moved = tree.keep(ids)
        if moved is not None:
            cache.gather(*moved)

    @torch.inference_mode()
    def codes(self, ids: Tensor) -> Tensor:
        """The frames' codes (N, B, K) int64 at nodes (N, B) of the present trees: real at the root, else imagined."""
        codes = self._present().tree.codes
        return codes.gather(1, ids[:, :, None].expand(-1, -1, codes.shape[2]))

    def environments(self, count: int, frames: int, needs: Needs) -> int:
        """How many of `count` environments with so many frames of context there is memory for at once, at least 1.

        By the formula of `jowa.planning.memory`; the last cache counts as free. It is decided once, so that a batch is
        always split alike.
        """
        if (frames, needs) not in self._fitting:
            kept = 0 if self._kept is None else sum(layer.nbytes for layer in self._kept.layers)
            memory = int(0.9 * free_bytes(self._model.device)) + kept if self._memory is None else self._memory
            drafts = draft_bytes(self._model, frames, needs, self._draft_rows)
            most = (memory - drafts) // plan_bytes(self._model, frames, needs, self._graphed)
            self._fitting[frames, needs] = max(1, most)
        return min(count, self._fitting[frames, needs])

    def _present(self) -> _Trees:
        if self._trees is None:
            raise ValueError("the dream has no trees yet: call reset() first")
        return self._trees

    def _check_context(self, context: Context) -> None:
        """Refuse what the model can't embed; a look at values elsewhere than on a CPU would wait for the device."""
        model = self._model
        if context.codes.shape[2] != model.tokens_per_frame:
            raise ValueError(f"frames of {context.codes.shape[2]} codes aren't the model's of {model.tokens_per_frame}")
        if any(part.device.type != "cpu" for part in (context.codes, context.actions, context.lengths)):
            return
        frame = torch.arange(context.codes.shape[1])
        given, acted = frame < context.lengths[:, None], frame < context.lengths[:, None] - 1
        actions = model.config.actions
        for wrong, complaint in (
            (given & (context.codes >= model.vocabulary).any(dim=2), f"codes outside 0 … {model.vocabulary - 1}"),
            (acted & ((context.actions < 0) | (context.actions >= actions)), f"actions outside 0 … {actions - 1}"),
        ):
            if bool(wrong.any()):
                raise ValueError(f"environment {int(wrong.any(dim=1).nonzero()[0])}'s context has {complaint}")

    def _check_frames(self, frames: int, deeper: int) -> None:
        blocks = self._model.config.blocks
        if frames + deeper > blocks:
            raise ValueError(
                f"a path of {frames} frames and {deeper} imagined ones is longer than the {blocks} frames the model "
                f"sees: give fewer frames of context or look fewer steps ahead"
            )

    def _cache(self, count: int, slots: int) -> KeyValueCache:
        """A cache of so many slots for so many environments, in the memory of the last one if that is large enough."""
        kept, weight = self._kept, self._model.code_embedding.weight
        place = (slots, weight.device, weight.dtype)
        if kept is None or kept.batch < count or (kept.slots, kept.device, kept.dtype) != place:
            # No name may hold the old one while the new one is made: together they may not fit.
            self._trees = self._kept = kept = None
            self._kept = kept = self._model.new_cache(count, slots)
        return kept.first(count)

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
