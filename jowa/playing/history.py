"""What was seen and done up to the present frame: what plans and dreams start from."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.dreaming.starts import Start
from jowa.planning.dream import Context

Frame = NDArray[np.uint8]

Value = TypeVar("Value")


class History:
    """The last frames of an episode, `most` of them at most, and the actions between them.

    It ends in the present frame but for the moment between `act` and `see`.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._frames: deque[Frame] = deque(maxlen=most)
        self._codes: deque[Tensor] = deque(maxlen=most)
        self._actions: deque[int] = deque(maxlen=most)

    def begin(self) -> None:
        """Forget everything: an episode begins."""
        for part in (self._frames, self._codes, self._actions):
            part.clear()

    def act(self, action: int) -> None:
        """An action was played at the present frame."""
        self._actions.append(action)

    def see(self, frame: Frame, codes: Tensor) -> None:
        """The next frame (84, 84) uint8 and its codes (K,) int64."""
        self._frames.append(frame)
        self._codes.append(codes)

    @property
    def frame(self) -> Frame:
        """The present one, (84, 84) uint8."""
        return self._frames[-1]

    @property
    def codes(self) -> Tensor:
        """The present frame's, (K,) int64."""
        return self._codes[-1]

    def copy(self, most: int) -> History:
        """Its last frames, `most` at most, as a history of its own that remembers as many as this one."""
        other = History(self.most)
        other._frames.extend(_last(self._frames, most))
        other._codes.extend(_last(self._codes, most))
        other._actions.extend(_last(self._actions, len(other._frames) - 1))
        return other

    def context(self, frames: int, task: int) -> Context:
        """The last `frames` frames, or as many as there are, as one environment's context of that width."""
        codes = torch.stack(_last(self._codes, frames))
        actions = torch.tensor(_last(self._actions, len(codes) - 1), dtype=torch.int64, device=codes.device)
        return Context.of([(codes, actions)], [task], width=frames)

    def start(self) -> Start:
        """The same as what a dream starts from."""
        return Start(np.stack(list(self._frames)), np.array(_last(self._actions, len(self._frames) - 1), np.int64))


def _last(values: deque[Value], count: int) -> list[Value]:
    return list(islice(values, max(0, len(values) - count), None))
