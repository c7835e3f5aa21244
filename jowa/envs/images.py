"""The images of environments: how they may lie in memory, and how they become grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from jowa.envs.environment_spec import AUTO, COLOUR, FRAMES
from jowa.errors import UserError

Grey = NDArray[np.uint8]

MOST_LAYERS = 8
"""More colours or frames than these are another thing: a table of features, a video."""

_COLOURS = (1, 3)


def layer_axis(shape: Sequence[int]) -> int | None:
    """Which axis of a three-dimensional image has its colours or frames, 2 or 0; None if there is no telling."""
    ends = [axis for axis in (2, 0) if len(shape) == 3]
    coloured = [axis for axis in ends if shape[axis] in _COLOURS]
    layered = [axis for axis in ends if 1 <= shape[axis] <= MOST_LAYERS]
    if coloured:
        return coloured[0]
    return layered[0] if len(layered) == 1 else None


def sides(shape: Sequence[int]) -> tuple[int, int] | None:
    """Height and width of an image of that shape; None if it is no image's."""
    if len(shape) == 2:
        return shape[0], shape[1]
    axis = layer_axis(shape)
    if axis is None:
        return None
    return (shape[0], shape[1]) if axis == 2 else (shape[1], shape[2])


@dataclass(frozen=True)
class ImageFormat:
    """What is known of an environment's images before the first one.

    Attributes:
        env: the environment's id, for errors.
        layers: `environment.layers`.
        bounds: black's and white's values where images are of floats; None where they are uint8.
    """

    env: str
    layers: str = AUTO
    bounds: tuple[float, float] | None = None

    def grey(self, image: Any) -> Grey:
        """An image in grey (H, W) uint8, of colours weighted as ITU-R BT.601 does, of frames the last one.

        Raises UserError when it is none, whatever the observation space promised.
        """
        pixels: NDArray[Any] = image if isinstance(image, np.ndarray) else np.zeros(0)
        kind_fits = pixels.dtype == np.uint8 if self.bounds is None else np.issubdtype(pixels.dtype, np.floating)
        size = sides(pixels.shape)
        if not kind_fits or size is None:
            self._refuse(image)
        if min(size) < 1:
            raise UserError(
                f"{self.env} gave an image of {size[0]}×{size[1]} pixels: mend the environment, or set "
                "environment.observation to another place."
            )
        stack = pixels[:, :, None] if pixels.ndim == 2 else np.moveaxis(pixels, layer_axis(pixels.shape) or 0, 2)
        chosen = np.ascontiguousarray(self._to_bytes(self._colours(stack)))
        if chosen.shape[2] == 1:
            return chosen[:, :, 0]
        return np.asarray(cv2.cvtColor(chosen, cv2.COLOR_RGB2GRAY), np.uint8)

    def _colours(self, stack: NDArray[Any]) -> NDArray[Any]:
        """(H, W, k) → (H, W, 1 or 3): the last frame, or the colours without their opacity."""
        count = stack.shape[2]
        if self.layers == FRAMES:
            return stack[:, :, -1:]
        if self.layers == COLOUR and count not in (*_COLOURS, 4):
            raise UserError(
                f"{self.env} gave an image of {count} layers where environment.layers={COLOUR} expects 1, 3 or 4: set "
                f"it to {FRAMES} or {AUTO}."
            )
        if count == 4:
            opaque = 255 if self.bounds is None else self.bounds[1]
            # Four grey frames have the same shape.
            if self.layers == AUTO and not (stack[:, :, 3] == opaque).all():
                raise UserError(
                    f"{self.env} gave an image of 4 layers, which may be colours with their opacity or 4 grey frames: "
                    f"set environment.layers to {COLOUR} or {FRAMES}."
                )
            return stack[:, :, :3]
        return stack if count in _COLOURS else stack[:, :, -1:]

    def _to_bytes(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if self.bounds is None:
            return pixels
        low, high = self.bounds
        shares = (pixels.astype(np.float64) - low) / (high - low)
        # Somebody's rounding is no lie; NaN fails both comparisons.
        if not (shares.min() >= -1e-3 and shares.max() <= 1 + 1e-3):
            raise UserError(
                f"{self.env} gave an image of values from {pixels.min()} to {pixels.max()}, and its space promises "
                f"{low} to {high}: mend the environment, or wrap it."
            )
        return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)

    def _refuse(self, image: Any) -> NoReturn:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(
            f"{self.env} gave {what} where a {'uint8' if self.bounds is None else 'float'} image (height, width), or "
            f"with up to {MOST_LAYERS} colours or frames as its first or last axis, was expected: set "
            "environment.observation to another place, or wrap the environment."
        )
