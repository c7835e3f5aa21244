"""The games: the 60 of Atari, how the paper divides them, and whatever else has been registered beside them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import ale_py
import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError

GAMES: tuple[str, ...] = (
    "AirRaid", "Alien", "Amidar", "Assault", "Asterix", "Asteroids", "Atlantis", "BankHeist", "BattleZone",
    "BeamRider", "Berzerk", "Bowling", "Boxing", "Breakout", "Carnival", "Centipede", "ChopperCommand",
    "CrazyClimber", "DemonAttack", "DoubleDunk", "ElevatorAction", "Enduro", "FishingDerby", "Freeway",
    "Frostbite", "Gopher", "Gravitar", "Hero", "IceHockey", "Jamesbond", "JourneyEscape", "Kangaroo", "Krull",
    "KungFuMaster", "MontezumaRevenge", "MsPacman", "NameThisGame", "Phoenix", "Pitfall", "Pong", "Pooyan",
    "PrivateEye", "Qbert", "Riverraid", "RoadRunner", "Robotank", "Seaquest", "Skiing", "Solaris",
    "SpaceInvaders", "StarGunner", "Tennis", "TimePilot", "Tutankham", "UpNDown", "Venture", "VideoPinball",
    "WizardOfWor", "YarsRevenge", "Zaxxon",
)  # fmt: skip
"""ALE names in alphabetical order: a game's index is its task id."""

PRETRAINING_GAMES: tuple[str, ...] = (
    "Phoenix", "Centipede", "SpaceInvaders", "Carnival", "NameThisGame", "Assault", "Atlantis", "BeamRider",
    "Seaquest", "TimePilot", "Berzerk", "Zaxxon", "DemonAttack", "ChopperCommand", "StarGunner",
)  # fmt: skip
"""The paper's 15 games."""

HELD_OUT_GAMES: tuple[str, ...] = ("Pong", "MsPacman", "Gravitar", "YarsRevenge", "Robotank")
"""The games the paper finetunes on."""

BORROWED_TASKS: dict[str, str] = {
    "Robotank": "Phoenix",
    "YarsRevenge": "ChopperCommand",
    "Gravitar": "TimePilot",
    "MsPacman": "Berzerk",
    "Pong": "Pong",
}
"""Whose task embedding a held-out game starts from when it is finetuned as the authors did."""

ACTION_NAMES: tuple[str, ...] = (
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE",
    "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
)  # fmt: skip
"""ALE's full set of actions, by index."""

NUM_ACTIONS = len(ACTION_NAMES)

ALE_ACTIONS = "ALE"
"""What the full set is called where there are others."""

LARGEST_ACTION_SET = 256
"""Actions are stored in a byte each."""

FRESH = "fresh"
"""What a registered game's environment says of its actions where they are a set of their own."""

RESERVED_NAMES = ("codes",)
"""What an episode store keeps in folders of its own beside those of its games."""


@dataclass(frozen=True)
class ReferenceScores:
    """Published mean returns of random play, a human tester and DQN; None where unknown."""

    random: float | None
    human: float | None
    dqn: float | None


@dataclass(frozen=True)
class CustomGame:
    """A game that is none of Atari's.

    Attributes:
        name: what folders, tables and keys call it.
        legal: its legal actions, ascending indices into its set of actions.
        actions: size of that set: 18 where its actions are mapped onto ALE's.
        environment: what `jowa.envs` plays it by; JSON values.
    """

    name: str
    legal: tuple[int, ...]
    actions: int
    environment: dict[str, Any]

    def spec(self) -> dict[str, Any]:
        """The same as JSON values: what an agent's description and a recording's provenance hold."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @staticmethod
    def of(spec: Mapping[str, Any]) -> CustomGame:
        """The game that a `spec` is of. Raises UserError when it is damaged."""
        try:
            return CustomGame(
                str(spec["name"]), tuple(map(int, spec["legal"])), int(spec["actions"]), dict(spec["environment"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"The description of an environment is damaged ({type(error).__name__}: {error}): choose another "
                "checkpoint, or record its episodes again."
            ) from error


_registered: dict[str, CustomGame] = {}


def register(game: CustomGame) -> int:
    """Make a game known to this process, as Gymnasium's `register` does; returns its task id.

    Games get the ids 60, 61, … in the order in which they come. The same game may come again, and keeps its id.

    Raises:
        UserError: its name is another game's or reserved, or its actions are impossible.
    """
    if game.name in GAMES:
        raise UserError(f"{game.name} is the name of an Atari game: set environment.name to another.")
    if game.name.lower() in RESERVED_NAMES:
        raise UserError(
            f"{game.name} is a folder that every episode store keeps for itself: set environment.name to another."
        )
    known = _registered.get(game.name)
    if known is not None and known.spec() != game.spec():
        raise UserError(
            f"The name {game.name} stands for two different environments here: {_difference(known, game)}; set "
            "environment.name to another name, or the environment's settings to those it was recorded with."
        )
    if not (game.legal and min(game.legal) >= 0 and max(game.legal) < game.actions <= LARGEST_ACTION_SET):
        raise UserError(f"{game.name} has {game.actions} actions: there must be 1 to {LARGEST_ACTION_SET}.")
    _registered[game.name] = game
    return task_id(game.name)


def register_rows(specs: Sequence[Mapping[str, Any]]) -> None:
    """Make the games known that an agent has its task rows 60, 61, … for.

    Raises:
        UserError: another agent or recording in this process has taken one of these rows for another game.
    """
    games = [CustomGame.of(spec) for spec in specs]
    for there, game in zip(_registered.values(), games, strict=False):
        if there.spec() != game.spec():
            raise UserError(
                f"Two agents disagree about a task row: here it is {there.name}'s, and the checkpoint to be opened has "
                f"it for {game.name} ({_difference(there, game)}): open them in separate processes, agents before data."
            )
    for game in games:
        register(game)


def registered() -> tuple[CustomGame, ...]:
    """The games of the task ids 60, 61, …"""
    return tuple(_registered.values())


def custom_game(name: str) -> CustomGame | None:
    """The registered game of that name, None for an Atari game or an unknown one."""
    return _registered.get(name)


def is_game(name: str) -> bool:
    """Whether it is one of the 60 games or a registered one."""
    return isinstance(name, str) and (name in GAMES or name in _registered)


def num_tasks() -> int:
    """How many games there are: task ids lie below."""
    return len(GAMES) + len(_registered)


def check_game(name: str, key: str = "game") -> str:
    """Return `name`, which `key` gives, if it is one of the 60 games or registered.

    Raises UserError with the closest name otherwise.
    """
    if is_game(name):
        return name
    by_plain_name = {_plain(game): game for game in (*GAMES, *_registered)}
    close = difflib.get_close_matches(_plain(str(name)), by_plain_name, n=1, cutoff=0.5)
    advice = f"did you mean '{by_plain_name[close[0]]}'?" if close else f"choose among {', '.join(GAMES)}."
    raise UserError(f"Unknown game '{name}' (key '{key}'): {advice}")


def task_id(game: str) -> int:
    """The game's index in `GAMES`, or 60 and what was registered before it; raises UserError for an unknown game."""
    return (*GAMES, *_registered).index(check_game(game))


def game_of(task: int) -> str:
    """The game of a task id; IndexError if there is none."""
    return (*GAMES, *_registered)[task]


def rom_name(game: str) -> str:
    """ALE's file name of an Atari game's ROM, without `.bin`: 'MsPacman' becomes 'ms_pacman'."""
    return re.sub(r"(?<=[a-zA-Z])(?=[A-Z])", "_", check_game(game)).lower()


def packaged_rom(game: str) -> Path:
    """The game's ROM file inside ale-py."""
    # Not ale_py.roms.get_rom_path: ALE_ROMS_DIR would change what is played without a trace.
    return Path(ale_py.roms.__file__).parent / f"{rom_name(game)}.bin"


def num_actions(game: str) -> int:
    """The size of the set that the game's actions are indices into: ALE's full 18, or a registered game's own."""
    custom = custom_game(check_game(game))
    return NUM_ACTIONS if custom is None else custom.actions


def action_set(game: str) -> str:
    """Whose actions the game's indices mean: `ALE_ACTIONS`, or the game's name for a set of its own."""
    custom = custom_game(check_game(game))
    own = custom is not None and (custom.actions != NUM_ACTIONS or custom.environment.get("actions") == FRESH)
    return game if own else ALE_ACTIONS


def legal_actions(game: str) -> tuple[int, ...]:
    """The game's legal actions, ascending, indices into its set. An Atari game's first call loads the ROM (0.1 s)."""
    custom = custom_game(check_game(game))
    return _minimal_set(game) if custom is None else custom.legal


@cache
def _minimal_set(game: str) -> tuple[int, ...]:
    # The minimal set, since ALE's own "legal" set is no fixed 18 either: Skiing's has 9.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.loadROM(packaged_rom(game))
    return tuple(sorted(action.value for action in emulator.getMinimalActionSet()))


def legal_mask(game: str) -> NDArray[np.bool_]:
    """(actions of the game's set,) bool, True at its legal ones."""
    mask = np.zeros(num_actions(game), dtype=np.bool_)
    mask[list(legal_actions(game))] = True
    return mask


def action_names(game: str) -> tuple[str, ...]:
    """What the actions of the game's set are called: ALE's names, or the numbers of a set of its own."""
    return ACTION_NAMES if action_set(game) == ALE_ACTIONS else tuple(map(str, range(num_actions(game))))


def reference(game: str) -> ReferenceScores:
    """The scores that human- and DQN-normalised scores are made with (paper, appendix); None for unknown ones."""
    scores = _reference_table().get(check_game(game), {})
    return ReferenceScores(scores.get("random"), scores.get("human"), scores.get("dqn"))


@cache
def _reference_table() -> dict[str, dict[str, float | None]]:
    text = resources.files("jowa").joinpath("reference_scores.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, float | None]] = json.loads(text)
    return table


def _difference(one: CustomGame, other: CustomGame) -> str:
    """The first setting in which two games' descriptions differ, in words."""
    ours, theirs = (game.environment | game.spec() for game in (one, other))
    keys = [key for key in ours | theirs if key != "environment" and ours.get(key) != theirs.get(key)]
    return f"{keys[0]} is {ours.get(keys[0])} in one and {theirs.get(keys[0])} in the other" if keys else "in name"


def _plain(name: str) -> str:
    """A spelling in which 'ms-pacman', 'ALE/MsPacman-v5' and 'mspacman' look alike."""
    return re.sub(r"^ale/|-v\d+$|noframeskip|[^a-z0-9]", "", name.lower())
