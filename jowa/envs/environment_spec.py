"""How an environment of Gymnasium is turned into a game: its settings, their checks, its description and command."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jowa.errors import UserError
from jowa.games import ACTION_NAMES, FRESH, NUM_ACTIONS, CustomGame
from jowa.overrides import assignment

AUTO, RENDER = "auto", "render"
INTERPOLATIONS = ("area", "nearest", "linear")
COLOUR, FRAMES = "colour", "frames"
LAYERS = (AUTO, COLOUR, FRAMES)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class EnvironmentConfig:
    """What `env=<id>` is played like.

    Its rewards are stored as they are; the losses take their signs, as they do for Atari. An episode is cut at
    protocol.max_episode_frames environment steps, or sooner where the environment itself truncates it.

    Attributes:
        name: the game's name in folders, tables and keys; null makes one of the id.
        kwargs: what `gymnasium.make` gets beside the id.
        actions: `fresh`, a set of actions of its own, action i being the environment's i; or a list of ALE's names, one
            for each action, by which it shares the 18 actions of the Atari games.
        observation: where the image is: `auto` (the observation, or its only image), the path to an entry of a
            dictionary or tuple (`camera`, `eyes/left`, `0`), or `render` (what the environment draws).
        layers: what an image's third axis is: `colour`, `frames` (of which the last counts), or `auto`: colour where it
            has 1 or 3 entries, or 4 of which the last is opaque; frames where it has 2 or 5 to 8.
        frame_skip: environment steps an action is held: one agent step. protocol.frame_skip is for Atari only.
        max_pool: take the pixelwise maximum of the last two environment steps' grey images.
        crop: pixels to cut off: [top, bottom, left, right].
        interpolation: how images become 84×84: area, nearest or linear.
    """

    name: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    actions: Any = FRESH
    observation: str = AUTO
    layers: str = AUTO
    frame_skip: int = 1
    max_pool: bool = False
    crop: list[int] | None = None
    interpolation: str = "area"

    def check(self) -> EnvironmentConfig:
        """Return self if every value makes sense by itself, else raise UserError naming the key."""
        if self.frame_skip < 1:
            raise UserError(f"environment.frame_skip must be at least 1 environment step, not {self.frame_skip}.")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"environment.interpolation must be one of {', '.join(INTERPOLATIONS)}, not '{self.interpolation}'."
            )
        if self.layers not in LAYERS:
            raise UserError(f"environment.layers must be one of {', '.join(LAYERS)}, not '{self.layers}'.")
        if self.crop is not None and (len(self.crop) != 4 or min(self.crop) < 0):
            raise UserError(
                f"environment.crop must be four numbers of pixels, [top, bottom, left, right], not {self.crop}."
            )
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UserError(
                f"environment.name={self.name} can't name a folder: take letters, digits, '.', '_' and '-' only."
            )
        self._check_kwargs()
        return self

    def _check_kwargs(self) -> None:
        if "render_mode" in self.kwargs:
            raise UserError("environment.kwargs can't hold render_mode: set environment.observation=render instead.")
        try:
            json.dumps(self.kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(
                "environment.kwargs must hold what JSON can, for it is kept with the episodes: finite numbers, text, "
                f"true, false, null, lists and dictionaries ({error})."
            ) from error


def game_name(env: str, config: EnvironmentConfig) -> str:
    """The game's name: the one that was set, else the id without its module: 'minigrid:A/B-v0' becomes 'A-B-v0'."""
    return config.name or re.sub(r"[^A-Za-z0-9._-]+", "-", env.rpartition(":")[2]).strip("-.")


def game_from(env: str, config: EnvironmentConfig, count: int) -> CustomGame:
    """The game that an environment with `count` actions is. Raises UserError unless the actions can be mapped so."""
    named = action_indices(env, config.actions, count)
    legal, actions = (tuple(range(count)), count) if named is None else (tuple(sorted(named)), NUM_ACTIONS)
    settings = {key: value for key, value in asdict(config).items() if key != "name"}
    return CustomGame(game_name(env, config), legal, actions, {"id": env, **settings})


def settings_of(game: CustomGame) -> tuple[str, EnvironmentConfig]:
    """The environment's id and settings that a game was made of. Raises UserError when the description is damaged."""
    settings: Mapping[str, Any] = {key: value for key, value in game.environment.items() if key != "id"}
    try:
        return str(game.environment["id"]), EnvironmentConfig(game.name, **settings).check()
    except (KeyError, TypeError) as error:
        raise UserError(
            f"The description of {game.name}'s environment is damaged or of a newer jowa ({error}): choose another "
            "checkpoint, or record its episodes again."
        ) from error


def record_command(game: CustomGame, out: str, *more: str) -> str:
    """What records random play of the game into the store `out`, to be pasted into a shell; `more` is put at its end.

    Raises UserError when the game's description is damaged.
    """
    env, settings = settings_of(game)
    plain = EnvironmentConfig(game_name(env, replace(settings, name=None)))
    changed = {key: value for key, value in asdict(settings).items() if value != getattr(plain, key)}
    words = [assignment("env", env), *(assignment(f"environment.{key}", value) for key, value in changed.items())]
    return " ".join(
        ["python -m jowa.data.record", *words, "policy=random", "steps=10000", assignment("out", out), *more]
    )


def action_indices(env: str, actions: Any, count: int) -> list[int] | None:
    """ALE's index of each of the environment's `count` actions; None if they are a set of their own.

    Raises:
        UserError: an unknown or repeated name, or another number of names.
    """
    if actions == FRESH:
        return None
    if not isinstance(actions, list | tuple):
        raise UserError(f"environment.actions must be '{FRESH}' or a list of ALE's action names, not '{actions}'.")
    for name in actions:
        if name not in ACTION_NAMES:
            close = difflib.get_close_matches(str(name).upper(), ACTION_NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"choose among {', '.join(ACTION_NAMES)}."
            raise UserError(f"environment.actions has the unknown name '{name}': {hint}")
    repeated = [name for name in dict.fromkeys(actions) if list(actions).count(name) > 1]
    if repeated:
        raise UserError(f"environment.actions names {repeated[0]} twice: each action needs a name of its own.")
    if len(actions) != count:
        raise UserError(f"environment.actions has {len(actions)} names, and {env} has {count} actions: name each once.")
    return [ACTION_NAMES.index(name) for name in actions]
