"""Environments of Gymnasium that show, give and do odd things; `odd_environments:Odd-v0` names them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDES = (40, 60)


def box(*shape: int, dtype: Any = np.uint8, low: float = 0, high: float = 255) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


COLOURS = box(*SIDES, 3)
SPACES: dict[str, spaces.Space[Any] | None] = {
    "colours": COLOURS, "none": None, "opacity": box(*SIDES, 4), "clear": box(*SIDES, 4), "four last": box(*SIDES, 4),
    "four first": box(4, *SIDES), "colours first": box(3, *SIDES), "one first": box(1, *SIDES),
    "two last": box(*SIDES, 2), "five first": box(5, *SIDES), "many": box(*SIDES, 9),
    "shares": box(*SIDES, 3, dtype=np.float32, high=1.0), "signed": box(3, *SIDES, dtype=np.float64, low=-1, high=1),
    "grey shares": box(*SIDES, dtype=np.float32, high=1.0), "unbounded": box(*SIDES, 3, dtype=np.float32, high=np.inf),
    "beyond": box(*SIDES, dtype=np.float32, high=1.0), "not a number": box(*SIDES, dtype=np.float32, high=1.0),
    "tuple": spaces.Tuple([spaces.Discrete(2), COLOURS]), "two of a tuple": spaces.Tuple([COLOURS, COLOURS]),
    "nested": spaces.Dict({"eyes": spaces.Dict({"left": COLOURS, "right": COLOURS}), "place": spaces.Discrete(3)}),
    "deep": spaces.Dict({"eyes": spaces.Tuple([spaces.Discrete(2), COLOURS]), "depth": box(*SIDES, dtype=np.float32)}),
    "lost": spaces.Dict({"eyes": spaces.Dict({"left": COLOURS})}),
}  # fmt: skip


class Odd(gymnasium.Env[Any, Any]):
    """Five steps an episode, each of another picture. `show` is what is observed, `gives` every step's reward.

    `odd`: "old reset" returns no info, "empty" and "growing" make what is drawn so, "step" fails. `note` is anything.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, show: str = "colours", odd: str = "", gives: float = 1.0, actions: int = 3, note: Any = None,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.render_mode, self._show, self._odd, self._gives, self.note = render_mode, show, odd, gives, note
        self.observation_space, self.action_space = SPACES[show], spaces.Discrete(actions)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._step = 0
        return self._observe() if self._odd == "old reset" else (self._observe(), {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._odd == "step":
            raise RuntimeError("broken")
        self._step += 1
        return self._observe(), self._gives, self._step >= 5, False, {}

    def render(self) -> np.ndarray:
        if self._odd == "empty":
            return np.zeros((0, 60, 3), np.uint8)
        return picture(self._step)[: 30 + self._step] if self._odd == "growing" else picture(self._step)

    def _observe(self) -> Any:
        image = picture(self._step)
        last = np.stack([picture(self._step + number)[:, :, 0] for number in range(5)])
        return {
            "colours": image, "none": image, "opacity": with_fourth(image, 255), "clear": with_fourth(image, 7),
            "four last": last[1:].transpose(1, 2, 0), "four first": last[1:], "colours first": image.transpose(2, 0, 1),
            "one first": image[None, :, :, 0], "two last": last[3:].transpose(1, 2, 0), "five first": last,
            "many": np.zeros((*SIDES, 9), np.uint8), "shares": (image / 255).astype(np.float32),
            "signed": image.transpose(2, 0, 1) / 127.5 - 1, "grey shares": (image[:, :, 0] / 255).astype(np.float32),
            "unbounded": image.astype(np.float32), "beyond": image[:, :, 0].astype(np.float32),
            "not a number": np.full(SIDES, np.nan, np.float32), "tuple": (1, image),
            "two of a tuple": (image, 255 - image),
            "nested": {"eyes": {"left": image, "right": 255 - image}, "place": 0},
            "deep": {"eyes": (1, image), "depth": np.zeros(SIDES, np.float32)}, "lost": {"eyes": {}},
        }[self._show]  # fmt: skip


def picture(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 255, (*SIDES, 3), dtype=np.uint8)


def with_fourth(image: np.ndarray, value: int) -> np.ndarray:
    return np.concatenate([image, np.full_like(image[:, :, :1], value)], axis=2)


gymnasium.register("Odd-v0", Odd)
gymnasium.register("codes", Odd)
