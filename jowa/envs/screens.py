"""From what an environment shows to the grey 84×84 screens that agents see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from gymnasium import Env, spaces
from numpy.typing import NDArray

from jowa.envs.atari import SCREEN
from jowa.envs.environment_spec import AUTO, RENDER
from jowa.errors import UserError

Grey = NDArray[np.uint8]

_SMALLEST = 16
"""Pixels below which a side isn't a picture's but a table's: MiniGrid's 7×7×3 numbers name objects, not colours."""

_INTERPOLATIONS = {"area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR}


def find_image(environment: Env[Any, Any], env: str, observation: str) -> str | None:
    """Where the environment `env` shows its image: `render`, a key of its observation, or None for the whole of it.

    Raises:
        UserError: it isn't where `observation` says, or nowhere, or at several places.
    """
    space = environment.observation_space
    if observation == RENDER:
        if not _draws(environment):
            raise UserError(f"{env} draws no rgb_array: set environment.observation to where its images are, or auto.")
        return RENDER
    entries = space.spaces if isinstance(space, spaces.Dict) else {}
    if observation != AUTO:
        if observation not in entries:
            has = f"has {', '.join(entries)}" if entries else "is no dictionary"
            raise UserError(
                f"environment.observation={observation} is no entry of {env}'s observation, which {has}: set it to "
                "one, to auto or to render."
            )
        if not _is_image(entries[observation], 1):
            raise _no_image(environment, env, {observation: entries[observation]})
        return observation
    found = [key for key, entry in entries.items() if _is_image(entry)]
    if len(found) > 1:
        raise UserError(f"{env} shows several images: set environment.observation to one of {', '.join(found)}.")
    if not found and not _is_image(space):
        raise _no_image(environment, env, entries)
    return found[0] if found else None


def _is_image(space: spaces.Space[Any], smallest: int = _SMALLEST) -> bool:
    shape = space.shape or ()
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))) and min(shape[:2]) >= smallest


def _no_image(environment: Env[Any, Any], env: str, entries: Mapping[str, spaces.Space[Any]]) -> UserError:
    shown = entries or {"": environment.observation_space}
    words = ", ".join(f"{key} {_kind(entry)}".strip() for key, entry in shown.items())
    return UserError(
        f"{env} shows no image: its observation is {words}, not uint8 (height, width) or (height, width, 1 or 3) of at "
        f"least {_SMALLEST} pixels a side: {_advice(environment)}."
    )


def _kind(space: spaces.Space[Any]) -> str:
    return f"{space.dtype} {space.shape}" if isinstance(space, spaces.Box) else type(space).__name__


def _advice(environment: Env[Any, Any]) -> str:
    if _draws(environment):
        return f"set environment.observation={RENDER} to see what it draws"
    return "wrap it, or choose another environment"


def _draws(environment: Env[Any, Any]) -> bool:
    return "rgb_array" in (environment.metadata.get("render_modes") or ())


def grey(image: Any, env: str) -> Grey:
    """An image (H, W), (H, W, 1) or (H, W, 3) uint8 in grey (H, W), weighted as ITU-R BT.601 does.

    Raises UserError when it is none, whatever the observation space promised.
    """
    pixels: NDArray[Any] = image if isinstance(image, np.ndarray) else np.zeros(0)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))):
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(
            f"{env} gave {what} where a uint8 image (height, width) or (height, width, 1 or 3) was expected: set "
            "environment.observation to another place, or wrap the environment."
        )
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def screen(image: Grey, crop: Sequence[int] | None, interpolation: str) -> Grey:
    """(H, W) → (84, 84) uint8: cut off [top, bottom, left, right] pixels, then resize. UserError if nothing is left."""
    top, bottom, left, right = crop or (0, 0, 0, 0)
    height, width = image.shape
    if top + bottom >= height or left + right >= width:
        raise UserError(f"environment.crop={list(crop or ())} leaves nothing of an image of {height}×{width} pixels.")
    kept = image[top : height - bottom, left : width - right]
    return np.asarray(cv2.resize(kept, SCREEN[::-1], interpolation=_INTERPOLATIONS[interpolation]), np.uint8)
