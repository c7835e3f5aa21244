"""Who plays while we record: random play, controllers that read the console's memory, look-ahead, mixtures."""

from __future__ import annotations

from collections.abc import Callable

from jowa.data.behaviours.amidar import AmidarController
from jowa.data.behaviours.base import Behaviour
from jowa.data.behaviours.boxing import BoxingController
from jowa.data.behaviours.breakout import BreakoutController
from jowa.data.behaviours.freeway import FreewayController
from jowa.data.behaviours.look_ahead import LookAhead
from jowa.data.behaviours.mixture import EpsilonMixture, constant, learning_history
from jowa.data.behaviours.phoenix import PhoenixController
from jowa.data.behaviours.pong import PongController
from jowa.data.behaviours.uniform import UniformRandom
from jowa.errors import UserError

__all__ = ["BEHAVIOURS", "CONTROLLERS", "Behaviour", "check_behaviour", "make_behaviour"]

BEHAVIOURS = ("random", "scripted", "lookahead", "mixture")

CONTROLLERS: dict[str, Callable[[int], Behaviour]] = {
    "Amidar": AmidarController,
    "Pong": PongController,
    "Breakout": BreakoutController,
    "Boxing": BoxingController,
    "Freeway": FreewayController,
    "Phoenix": PhoenixController,
}
"""The games that have a scripted controller."""


def check_behaviour(name: str, game: str) -> None:
    """Raise UserError unless the behaviour exists and can play the game."""
    if name not in BEHAVIOURS:
        raise UserError(f"Unknown behaviour '{name}' (key 'behaviour'): choose among {', '.join(BEHAVIOURS)}.")
    if name == "scripted" and game not in CONTROLLERS:
        raise UserError(
            f"There is no scripted controller for {game}, only for {', '.join(CONTROLLERS)}: "
            "set behaviour to lookahead, mixture or random."
        )


def make_behaviour(name: str, game: str, seed: int, epsilon: float = 0.0) -> Behaviour:
    """The behaviour policy called `name` for `game`, deterministic under `seed`.

    `epsilon` is the share of random actions added to scripted and look-ahead play. A mixture's good player is the
    game's controller or, without one, look-ahead.
    """
    check_behaviour(name, game)
    if name == "random":
        return UniformRandom(seed)
    look_ahead = name == "lookahead" or game not in CONTROLLERS
    good: Behaviour = LookAhead(seed) if look_ahead else CONTROLLERS[game](seed)
    return EpsilonMixture(good, learning_history if name == "mixture" else constant(epsilon), seed + 1)
