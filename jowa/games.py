"""The 60 Atari games: task ids, legal actions, published reference scores, and how the paper divides them."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

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


@dataclass(frozen=True)
class ReferenceScores:
    """Published mean returns of random play, a human tester and DQN; None where unknown."""

    random: float | None
    human: float | None
    dqn: float | None


def check_game(name: str) -> str:
    """Return `name` if it is one of the 60 games, else raise UserError with the closest name."""
    if name in GAMES:
        return name
    by_plain_name = {_plain(game): game for game in GAMES}
    close = difflib.get_close_matches(_plain(str(name)), by_plain_name, n=1, cutoff=0.5)
    advice = f"did you mean '{by_plain_name[close[0]]}'?" if close else f"choose among {', '.join(GAMES)}."
    raise UserError(f"Unknown game '{name}' (key 'game'): {advice}")


def task_id(game: str) -> int:
    """The game's index in `GAMES`; raises UserError for an unknown game."""
    return GAMES.index(check_game(game))


def rom_name(game: str) -> str:
    """ALE's file name of a game's ROM, without `.bin`: 'MsPacman' becomes 'ms_pacman'."""
    return re.sub(r"(?<=[a-zA-Z])(?=[A-Z])", "_", check_game(game)).lower()


def packaged_rom(game: str) -> Path:
    """The game's ROM file inside ale-py."""
    # Not ale_py.roms.get_rom_path: ALE_ROMS_DIR would change what is played without a trace.
    return Path(ale_py.roms.__file__).parent / f"{rom_name(game)}.bin"


@cache
def legal_actions(game: str) -> tuple[int, ...]:
    """The game's minimal action set, ascending, as indices into the full 18. The first call loads the ROM (0.1 s)."""
    # The minimal set, since ALE's own "legal" set is no fixed 18 either: Skiing's has 9.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.loadROM(packaged_rom(game))
    return tuple(sorted(action.value for action in emulator.getMinimalActionSet()))


def legal_mask(game: str) -> NDArray[np.bool_]:
    """(18,) bool, True at the game's legal actions."""
    mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
    mask[list(legal_actions(game))] = True
    return mask


def reference(game: str) -> ReferenceScores:
    """The scores that human- and DQN-normalised scores are made with (paper, appendix); None for unknown ones."""
    scores = _reference_table().get(check_game(game), {})
    return ReferenceScores(scores.get("random"), scores.get("human"), scores.get("dqn"))


@cache
def _reference_table() -> dict[str, dict[str, float | None]]:
    text = resources.files("jowa").joinpath("reference_scores.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, float | None]] = json.loads(text)
    return table


def _plain(name: str) -> str:
    """A spelling in which 'ms-pacman', 'ALE/MsPacman-v5' and 'mspacman' look alike."""
    return re.sub(r"^ale/|-v\d+$|noframeskip|[^a-z0-9]", "", name.lower())
