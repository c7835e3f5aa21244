"""What a planner knows of the world: a context to start from, and a dream in which actions can be tried.

A dream is a batch of N independent trees, one an environment. A node is an integer id in its environment's tree,
never copied state, so that greedy play (no expansions), beam search (one an imagined step) and tree searches that
return to earlier nodes all use the same two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from jowa.games import num_tasks


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
        for name in ("codes", "actions", "lengths", "tasks"):
            if getattr(self, name).dtype != torch.int64:
                raise ValueError(f"{name} must be int64, not {getattr(self, name).dtype}")
        if all(part.device.type == "cpu" for part in (self.codes, self.lengths, self.tasks)):
            self._check_values()

    def _check_values(self) -> None:
        """Refuse what the model can't read; elsewhere than on the CPU the test would wait for the device."""
        frames = self.codes.shape[1]
        given = torch.arange(frames) < self.lengths[:, None]
        for wrong, complaint in (
            ((self.lengths < 1) | (self.lengths > frames), f"has a length outside 1 … {frames}, the frames there are"),
            ((self.tasks < 0) | (self.tasks >= num_tasks()), f"has a task id outside 0 … {num_tasks() - 1}"),
            ((given & (self.codes < 0).any(dim=2)).any(dim=1), "has negative codes in frames that are given"),
        ):
            if bool(wrong.any()):
                raise ValueError(f"environment {int(wrong.nonzero()[0])} {complaint}")

    @classmethod
    def of(cls, histories: Sequence[tuple[Tensor, Tensor]], tasks: Sequence[int], width: int | None = None) -> Context:
        """Histories of any lengths side by side, filled up with zeros.

        Args:
            histories: codes (L, K) and actions (L - 1,) int64 of each environment, oldest first: the present frame's
                action is what is to be planned.
            tasks: their task ids.
            width: frames there is to be room for; those of the longest history if None.

        Raises:
            ValueError: a history is empty, ends with an action or has more than `width` frames.
        """
        if not histories or len(histories) != len(tasks):
            raise ValueError(f"each environment has one history and one task, not {len(histories)} and {len(tasks)}")
        lengths = [len(codes) for codes, _ in histories]
        width = max(lengths) if width is None else width
        for environment, (codes, actions) in enumerate(histories):
            _check_history(environment, len(codes), len(actions), width)
        return cls(
            torch.stack([pad(codes, (0, 0, 0, width - len(codes))) for codes, _ in histories]),
            torch.stack([pad(actions, (0, width - len(actions))) for _, actions in histories]),
            torch.tensor(lengths, device=histories[0][0].device),
            torch.tensor(tasks, device=histories[0][0].device),
        )

    def rows(self, index: Tensor) -> Context:
        """The environments `index` (n,) int64."""
        return Context(self.codes[index], self.actions[index], self.lengths[index], self.tasks[index])

    def to(self, device: torch.device | str) -> Context:
        """The same context on another device."""
        return Context(*(part.to(device) for part in (self.codes, self.actions, self.lengths, self.tasks)))


def _check_history(environment: int, frames: int, actions: int, width: int) -> None:
    """Refuse a history that can't be planned from, naming its environment."""
    if frames == 0:
        raise ValueError(f"environment {environment}'s context is empty: give at least its present frame")
    if actions >= frames:
        raise ValueError(
            f"environment {environment}'s context ends with an action: {frames} frames take {frames - 1} actions, "
            f"the present frame's is what is to be planned"
        )
    if actions < frames - 1:
        raise ValueError(f"environment {environment}'s context lacks actions: {frames} frames take {frames - 1}")
    if frames > width:
        raise ValueError(f"environment {environment}'s context has {frames} frames, there is room for {width}")


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


class Needs(NamedTuple):
    """What a planner asks of a dream in each tree: imagined nodes alive at once, new ones in one call, and how many it
    keeps when it lets go of others.
    """

    nodes: int
    at_once: int
    kept: int = 0


class Dream(Protocol):
    """A model of the world as a planner sees it."""

    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        """Forget all trees and start new ones at the context's present frames: one root each, id 0, B = 1.

        `room` is how many imagined nodes will be alive at once in each tree, and `depth` how many agent steps the
        longest path will have (None: as many as there is room for).
        """

    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """Imagine playing actions (N, B) int64 in nodes (N, B) int64: B new nodes in each tree.

        A node may be expanded any number of times, also with the same action, and several times in one call.
        Nothing stops at a predicted end: a node's own `continuation` speaks of its last action only, and it is the
        planner that ends the path there.
        """

    def keep(self, ids: Tensor) -> None:
        """A promise that only nodes (N, W) and what grows from them will be expanded from now on.

        At most W times the length of the longest path nodes then stay alive. What was predicted of the others, and
        their codes, remain.
        """

    def codes(self, ids: Tensor) -> Tensor:
        """The frames' codes (N, B, K) int64 at nodes (N, B)."""

    def environments(self, count: int, frames: int, needs: Needs) -> int:
        """How many of `count` environments with so many frames of context there is memory for at once, at least 1."""
