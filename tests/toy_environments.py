"""Small environments of Gymnasium; `toy_environments:Toy-v0` names them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SPACES: dict[str, spaces.Space[Any]] = {
    "image": spaces.Box(0, 255, (168, 252, 3), np.uint8),
    "grey": spaces.Box(0, 255, (168, 252), np.uint8),
    "one": spaces.Box(0, 255, (168, 252, 1), np.uint8),
    "dict": spaces.Dict({"place": spaces.Discrete(5), "camera": spaces.Box(0, 255, (168, 252, 3), np.uint8)}),
    "two": spaces.Dict({eye: spaces.Box(0, 255, (168, 252, 3), np.uint8) for eye in ("left", "right")}),
    "table": spaces.Dict({"cells": spaces.Box(0, 255, (7, 7, 3), np.uint8), "place": spaces.Discrete(5)}),
    "vector": spaces.Box(-1.0, 1.0, (4,), np.float32),
    "float": spaces.Box(0.0, 1.0, (168, 252, 3), np.float32),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "three": spaces.Discrete(3),
    "from five": spaces.Discrete(3, start=5),
    "continuous": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "several": spaces.MultiDiscrete([3, 3]),
    "many": spaces.Discrete(257),
}


class Toy(gymnasium.Env[Any, Any]):
    """An episode ends after 6 to 12 steps, as its seed has it; each step brings the action's number as reward.

    Pixels are the sum of the seed's noise, which moves with the steps, and ten times the last action's number. `lie`
    shows other things than the space promises, `fail` raises in the method of that name.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, show: str = "image", take: str = "three", lie: bool = False, fail: str = "", length: int | None = None,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.observation_space, self.action_space = SPACES[show], ACTIONS[take]
        self.render_mode, self._show, self._lie, self._fail, self._length = render_mode, show, lie, fail, length
        self._first = int(self.action_space.start) if isinstance(self.action_space, spaces.Discrete) else 0
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self._fail == "reset":
            raise RuntimeError("no world\nat all")
        self._noise = self.np_random.integers(0, 200, (168, 252, 3), dtype=np.uint8)
        self._end = self._length or int(self.np_random.integers(6, 13))
        self._step, self._action = 0, 0
        self.resets += 1
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._fail == "step":
            raise RuntimeError("broken")
        assert self.action_space.contains(action), action
        self._action = int(action) - self._first
        self._step += 1
        reward = float("nan") if self._fail == "reward" else float(self._action)
        return self._observe(), reward, self._step >= self._end, False, {}

    def picture(self) -> np.ndarray:
        return np.roll(self._noise, self._step, axis=1) + np.uint8(10 * self._action)

    def render(self) -> np.ndarray:
        return 255 - self.picture()

    def _observe(self) -> Any:
        picture = self.picture().astype(np.float32) / 255 if self._lie else self.picture()
        return {
            "image": picture, "grey": picture[:, :, 0], "one": picture[:, :, :1], "float": picture,
            "dict": {"place": self._step % 5, "camera": picture}, "two": {"left": picture, "right": picture},
            "table": {"cells": picture[:7, :7], "place": 0}, "vector": np.zeros(4, np.float32),
        }[self._show]  # fmt: skip


gymnasium.register("Toy-v0", Toy)
gymnasium.register("toys/Short-v0", Toy, max_episode_steps=3)
