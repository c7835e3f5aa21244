"""N dreams of one game that go on for as long as they are acted in, all in one batch.

A planner's dream ends after a few steps, where the model's sequence does. Here every step reads the last frames anew
and imagines one more: the oldest frame is dropped, positions start at 0 again (as when planning goes from decision to
decision), and the imagined frame becomes part of the next step's context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.dreaming.starts import Starts
from jowa.envs.atari import SCREEN
from jowa.games import legal_actions, task_id
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.dream import Context, Dream, Needs
from jowa.planning.execution import ExecutionConfig
from jowa.planning.making import make_dream
from jowa.planning.strips import decode_frames
from jowa.planning.tree_dream import TreeDream

_CHUNK = 64
"""Frames encoded or decoded at once, which bounds the memory that takes."""


class Dreamed(NamedTuple):
    """What one imagined agent step brought: rewards (N,) float64, -1, 0 or 1; ended (N,) bool, an end is predicted."""

    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]


class Dreams:
    """N dreams side by side; with temperature 0 none depends on the others.

    Args:
        tokenizer: encodes the starts' screens and decodes imagined ones; in eval mode.
        model: whose world it is; in eval mode, on the tokenizer's device.
        starts: of the game.
        game: ALE name.
        count: N.
        context: frames the model is given, 1 to its blocks less one.
        temperature: 0 imagines the likeliest codes; above 0 codes are sampled. Reward and end are always the mode.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: WorldActionModel,
        starts: Starts,
        game: str,
        count: int,
        context: int,
        temperature: float = 0.0,
    ) -> None:
        device = model.device
        self.count = count
        self.vocabulary, self.tokens_per_frame = model.vocabulary, model.tokens_per_frame
        self.actions = legal_actions(game)
        self._tokenizer, self._starts = tokenizer, starts
        self._chance = torch.Generator(device)
        self._dream: Dream
        if temperature > 0:
            self._dream = TreeDream(model, temperature, self._chance)
        else:
            self._dream = make_dream(model, ExecutionConfig())
        self._legal = torch.tensor(self.actions, device=device)
        self._every = torch.arange(count, device=device)
        codes = torch.zeros(count, context, model.tokens_per_frame, dtype=torch.int64, device=device)
        lengths = torch.ones(count, dtype=torch.int64, device=device)
        tasks = torch.full_like(lengths, task_id(game))
        self._context = Context(codes, torch.zeros_like(codes[:, :, 0]), lengths, tasks)
        self._frames = np.zeros((count, *SCREEN), np.uint8)
        self._undecoded = np.ones(count, np.bool_)

    def seed(self, randoms: Sequence[np.random.Generator]) -> None:
        """Let sampled codes follow from the dreams' generators, all of them together: one source serves the batch."""
        seeds = [int(random.integers(2**63)) for random in randoms]
        self._chance.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]))

    @torch.inference_mode()
    def begin(self, rows: Sequence[int], randoms: Sequence[np.random.Generator]) -> None:
        """Begin some of the dreams anew, each at a start that its generator draws."""
        before = self._context
        codes, actions, lengths = before.codes.clone(), before.actions.clone(), before.lengths.clone()
        starts = [self._starts.draw(random) for random in randoms]
        frames = torch.from_numpy(np.concatenate([start.frames for start in starts])[:, None])
        encoded = torch.cat([self._tokenizer.encode(part.to(codes.device)) for part in frames.split(_CHUNK)])
        for row, start, own in zip(rows, starts, encoded.split([len(start.frames) for start in starts]), strict=True):
            codes[row, : len(own)] = own
            actions[row, : len(own) - 1] = torch.from_numpy(start.actions)
            lengths[row] = len(own)
            self._undecoded[row] = True
        self._context = Context(codes, actions, lengths, before.tasks)

    @torch.inference_mode()
    def step(self, actions: NDArray[np.integer]) -> Dreamed:
        """Play actions (N,), numbers of the game's legal ones, in all dreams. Raises ValueError for other numbers."""
        actions = np.asarray(actions)
        whole = np.issubdtype(actions.dtype, np.integer) and actions.shape == (self.count,)
        if not whole or actions.min() < 0 or actions.max() >= len(self.actions):
            raise ValueError(f"actions must be {self.count} integers in 0…{len(self.actions) - 1}, not {actions!r}")
        chosen = self._legal[torch.as_tensor(actions, dtype=torch.int64, device=self._legal.device)]
        fitting = self._dream.environments(self.count, self._context.actions.shape[1], Needs(1, 1))
        parts = [self._imagine(rows, chosen[rows]) for rows in self._every.split(fitting)]
        codes, outcomes = (torch.cat(kind) for kind in zip(*parts, strict=True))
        self._remember(chosen, codes)
        self._undecoded[:] = True
        rewards, continues = outcomes.double().cpu().numpy().T
        return Dreamed(rewards.copy(), continues == 0)

    def _imagine(self, rows: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """After actions (n,) in some of the dreams: frames (n, K), rewards and continuations (n, 2)."""
        root = self._dream.reset(self._context.rows(rows), room=1)
        node = self._dream.expand(root.ids, actions[:, None])
        return self._dream.codes(node.ids)[:, 0], torch.cat((node.reward, node.continuation), dim=1)

    def codes(self) -> NDArray[np.int64]:
        """(N, K), of the present frames."""
        present: NDArray[np.int64] = self._present(self._every).cpu().numpy()
        return present

    @torch.inference_mode()
    def frames(self) -> NDArray[np.uint8]:
        """(N, 84, 84), the same as the tokenizer decodes them: each once, however often it is asked for."""
        unseen = np.flatnonzero(self._undecoded)
        if len(unseen):
            codes = self._present(torch.from_numpy(unseen).to(self._every.device))
            parts = [decode_frames(self._tokenizer, part) for part in codes.split(_CHUNK)]
            self._frames[unseen] = np.concatenate(parts)
            self._undecoded[:] = False
        return self._frames.copy()

    def _present(self, rows: Tensor) -> Tensor:
        return self._context.codes[rows, self._context.lengths[rows] - 1]

    def _remember(self, actions: Tensor, codes: Tensor) -> None:
        """Append the actions (N,) and the frames (N, K) they led to; full contexts lose their oldest frame."""
        before, most = self._context, self._context.codes.shape[1]
        past = before.actions.clone()
        past[self._every, before.lengths - 1] = actions
        full = before.lengths == most
        seen = torch.where(full[:, None, None], before.codes.roll(-1, dims=1), before.codes)
        past = torch.where(full[:, None], past.roll(-1, dims=1), past)
        lengths = (before.lengths + 1).clamp(max=most)
        seen[self._every, lengths - 1] = codes
        self._context = Context(seen, past, lengths, before.tasks)
