"""From what an environment shows to the grey 84×84 screens that agents see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from gymnasium import Env, spaces

from jowa.envs.atari import SCREEN
from jowa.envs.environment_spec import AUTO, RENDER, EnvironmentConfig
from jowa.envs.images import MOST_LAYERS, Grey, ImageFormat, sides
from jowa.errors import UserError

_SMALLEST = 16
"""Pixels below which a side isn't a picture's but a table's: MiniGrid's 7×7×3 numbers name objects, not colours."""

_INTERPOLATIONS = {"area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR}

Keys = tuple[str | int, ...]
"""What leads from an observation to an entry of it."""


@dataclass(frozen=True)
class ImagePlace:
    """Where an environment shows its image: at the end of `path` in its observation, or what it draws (None)."""

    path: Keys | None
    format: ImageFormat

    def grey(self, shown: Any) -> Grey:
        """The image in grey (H, W) uint8, of an observation or of what was drawn. UserError when there is none."""
        for key in self.path or ():
            try:
                shown = shown[key]
            except (KeyError, IndexError, TypeError) as error:
                raise UserError(
                    f"{self.format.env} gave an observation without the entry {_written(self.path or ())} that its "
                    "space promises: mend the environment, or set environment.observation to another place."
                ) from error
        return self.format.grey(shown)


def find_image(environment: Env[Any, Any], env: str, settings: EnvironmentConfig) -> ImagePlace:
    """Where the environment `env` shows its image, as `settings.observation` says.

    Raises:
        UserError: it isn't there, or nowhere, or at several places.
    """
    if settings.observation == RENDER:
        if not _draws(environment):
            raise UserError(f"{env} draws no rgb_array: set environment.observation to where its images are, or auto.")
        return ImagePlace(None, ImageFormat(env, settings.layers))
    space = getattr(environment, "observation_space", None)
    if not isinstance(space, spaces.Space):
        raise UserError(f"{env} doesn't say what it shows (it has no observation_space): {_advice(environment)}.")
    entries = {_written(path): (path, entry) for path, entry in _entries(space)}
    name = settings.observation if settings.observation != AUTO else _only_image(environment, env, entries)
    if name not in entries or (name == "" and settings.observation != AUTO):
        has = f"has {', '.join(entries)}" if "" not in entries else "is no dictionary"
        raise UserError(
            f"environment.observation={name} is no entry of {env}'s observation, which {has}: set it to one, to auto "
            "or to render."
        )
    path, entry = entries[name]
    if not _is_image(entry, 1):
        raise _no_image(environment, env, {name: (path, entry)})
    bounds = None if entry.dtype == np.uint8 else _bounds(entry)
    return ImagePlace(path, ImageFormat(env, settings.layers, bounds))


def _entries(space: spaces.Space[Any], path: Keys = ()) -> Iterable[tuple[Keys, spaces.Space[Any]]]:
    """Everything in a space that isn't made of others, by the keys that lead there."""
    inner: Iterable[tuple[str | int, spaces.Space[Any]]] | None = None
    if isinstance(space, spaces.Dict):
        inner = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        inner = enumerate(space.spaces)
    if inner is None:
        yield path, space
        return
    for key, entry in inner:
        yield from _entries(entry, (*path, key))


def _written(path: Keys) -> str:
    return "/".join(map(str, path))


_Entries = Mapping[str, tuple[Keys, spaces.Space[Any]]]


def _only_image(environment: Env[Any, Any], env: str, entries: _Entries) -> str:
    images = {name: entry for name, (_, entry) in entries.items() if _is_image(entry)}
    # Beside a picture floats are a map of depths or the like.
    found = [name for name, entry in images.items() if entry.dtype == np.uint8] or list(images)
    if len(found) > 1:
        raise UserError(f"{env} shows several images: set environment.observation to one of {', '.join(found)}.")
    if not found:
        raise _no_image(environment, env, entries)
    return found[0]


def _is_image(space: spaces.Space[Any], smallest: int = _SMALLEST) -> bool:
    if not isinstance(space, spaces.Box) or (space.dtype != np.uint8 and _bounds(space) is None):
        return False
    size = sides(space.shape)
    return size is not None and min(size) >= smallest


def _bounds(space: spaces.Space[Any]) -> tuple[float, float] | None:
    """The lowest and the highest value of a box of floats; None for what has no such bounds."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating) or not space.low.size:
        return None
    low, high = float(space.low.min()), float(space.high.max())
    return (low, high) if np.isfinite(high - low) and high > low else None


def _no_image(environment: Env[Any, Any], env: str, entries: _Entries) -> UserError:
    words = ", ".join(f"{name} {_kind(entry)}".strip() for name, (_, entry) in entries.items()) or "empty"
    return UserError(
        f"{env} shows no image that can be read: its observation is {words}, not uint8 or bounded floats of the shape "
        f"(height, width), or with up to {MOST_LAYERS} colours or frames as first or last axis, of at least "
        f"{_SMALLEST} pixels a side: {_advice(environment)}."
    )


def _kind(space: spaces.Space[Any]) -> str:
    if not isinstance(space, spaces.Box):
        return type(space).__name__
    unbounded = np.issubdtype(space.dtype, np.floating) and _bounds(space) is None
    return f"{space.dtype} {space.shape}{' without bounds' if unbounded else ''}"


def _advice(environment: Env[Any, Any]) -> str:
    if _draws(environment):
        return f"set environment.observation={RENDER} to see what it draws"
    return "wrap it, or choose another environment"


def _draws(environment: Env[Any, Any]) -> bool:
    return "rgb_array" in ((environment.metadata or {}).get("render_modes") or ())


def pooled(images: Sequence[Grey], env: str) -> Grey:
    """The pixelwise maximum of images (H, W). Raises UserError when they are of different sizes."""
    shapes = list(dict.fromkeys(image.shape for image in images))
    if len(shapes) > 1:
        sizes = " and then ".join(f"{height}×{width}" for height, width in shapes)
        raise UserError(
            f"{env} gave images of {sizes} pixels, whose maximum can't be taken: set environment.max_pool=false, or "
            "wrap the environment."
        )
    return np.asarray(np.maximum.reduce(list(images)), np.uint8)


def screen(image: Grey, crop: Sequence[int] | None, interpolation: str) -> Grey:
    """(H, W) → (84, 84) uint8: cut off [top, bottom, left, right] pixels, then resize. UserError if nothing is left."""
    top, bottom, left, right = crop or (0, 0, 0, 0)
    height, width = image.shape
    if top + bottom >= height or left + right >= width:
        raise UserError(f"environment.crop={list(crop or ())} leaves nothing of an image of {height}×{width} pixels.")
    kept = image[top : height - bottom, left : width - right]
    return np.asarray(cv2.resize(kept, SCREEN[::-1], interpolation=_INTERPOLATIONS[interpolation]), np.uint8)
