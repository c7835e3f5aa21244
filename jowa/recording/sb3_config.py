"""What can be asked of stable-baselines3's agents; needs only the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jowa.errors import UserError
from jowa.files import require_writable_folder

ALGORITHMS = ("DQN", "PPO")
_LEAST = 2
"""Agent steps in each environment without which there is nothing to learn from."""


@dataclass(frozen=True)
class Sb3Config:
    """Agents of stable-baselines3. algorithm: DQN or PPO. load: play the agent in this .zip, which may run code of its
    maker's, instead of training one. save: a folder for the trained agents, <game>.zip. buffer: agent steps that
    DQN remembers, 28 kB each.
    """

    algorithm: str = "DQN"
    load: str | None = None
    save: str | None = None
    buffer: int = 100_000


def check_sb3(config: Sb3Config, games: Sequence[str], steps: int, environments: int) -> None:
    """Raise UserError unless stable-baselines3 is there and the values make sense; makes the folder `save`."""
    if find_spec("stable_baselines3") is None:
        raise UserError("policy=sb3 needs stable-baselines3: install it with pip install 'jowa[sb3]'.")
    if config.algorithm not in ALGORITHMS:
        raise UserError(f"sb3.algorithm={config.algorithm} is unknown: choose {' or '.join(ALGORITHMS)}.")
    if config.buffer < 1:
        raise UserError(f"sb3.buffer must be at least 1, not {config.buffer}.")
    if config.load is not None:
        return
    for key, value in (("steps", steps), *([("sb3.buffer", config.buffer)] if config.algorithm == "DQN" else [])):
        if value < _LEAST * environments:
            raise UserError(f"{key} must be at least {_LEAST * environments} to train in {environments} environments.")
    if config.save is not None:
        for game in games:
            file = Path(config.save) / f"{game}.zip"
            if file.exists():
                raise UserError(f"{file} is there already and is not overwritten: set sb3.save to another folder.")
        require_writable_folder(config.save, "sb3.save")
