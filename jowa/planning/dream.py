"""What a planner knows of the world: a context to start from, and a dream in which actions can be tried.

A dream is a batch of N independent trees, one an environment. A node is an integer id in its environment's tree,
never copied state, so that greedy play (no expansions), beam search (one an imagined step) and tree searches that
return to earlier nodes all use the same two calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """What was really seen and done, up to the present frame, for N environments.

    Attributes:
        codes: (N, L, K) int64, the tokenizer's codes of the frames, oldest first.
        actions: (N, L) int64 in the full action set; actions[:, t] was taken at frame t.
        lengths: (N,) int64, how many frames are given, 1 to L. Shorter contexts are left-aligned: the present frame
            of environment n is frame lengths[n] - 1, its action is not yet known, and all that follows is ignored.
        tasks: (N,) int64 task ids.
    """

    codes: Tensor
    actions: Tensor
    lengths: Tensor
    tasks: Tensor

    def __post_init__(self) -> None:
        environments, frames = self.codes.shape[:2]
        if self.codes.dim() != 3 or frames < 1:
            raise ValueError(f"codes must be (N, L >= 1, K), not {tuple(self.codes.shape)}")
        if self.actions.shape != (environments, frames):
            raise ValueError(f"actions must be {(environments, frames)}, not {tuple(self.actions.shape)}")
        for name, vector in (("lengths", self.lengths), ("tasks", self.tasks)):
            if vector.shape != (environments,):
                raise ValueError(f"{name} must be {(environments,)}, not {tuple(vector.shape)}")

    def to(self, device: torch.device | str) -> Context:
        """The same context on another device."""
        return Context(*(part.to(device) for part in (self.codes, self.actions, self.lengths, self.tasks)))


@dataclass(frozen=True)
class Nodes:
    """B nodes in each of N trees, and what is predicted there.

    Attributes:
        ids: (N, B) int64, valid until the dream's next reset.
        reward: (N, B) float, of the action that led to the node; 0 at the root.
        continuation: (N, B) float, 0 where that action is predicted to end the episode, else 1; 1 at the root.
        q: (N, B, A) float, expected Q of every action at the node, illegal ones included.
    """

    ids: Tensor
    reward: Tensor
    continuation: Tensor
    q: Tensor


class Dream(Protocol):
    """A model of the world as a planner sees it."""

    def reset(self, context: Context, room: int = 0) -> Nodes:
        """Forget all trees and start new ones at the context's present frames: one root each, id 0, B = 1."""

    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """Imagine playing actions (N, B) int64 in nodes (N, B) int64: B new nodes in each tree.

        A node may be expanded any number of times, also with the same action, and several times in one call.
        Nothing stops at a predicted end: a node's own `continuation` speaks of its last action only, and it is the
        planner that ends the path there.
        """
