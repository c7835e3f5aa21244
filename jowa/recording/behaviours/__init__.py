"""Who plays while we record: random play, controllers that read the console's memory, look-ahead, mixes of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from jowa.errors import UserError
from jowa.recording.behaviours.amidar import AmidarController
from jowa.recording.behaviours.base import Behaviour
from jowa.recording.behaviours.boxing import BoxingController
from jowa.recording.behaviours.breakout import BreakoutController
from jowa.recording.behaviours.freeway import FreewayController
from jowa.recording.behaviours.look_ahead import LookAhead
from jowa.recording.behaviours.mixture import SCHEDULES, EpsilonMixture, learning_history
from jowa.recording.behaviours.phoenix import PhoenixController
from jowa.recording.behaviours.pong import PongController
from jowa.recording.behaviours.uniform import UniformRandom

__all__ = [
    "BEHAVIOURS", "CONTROLLERS", "POLICIES", "SCHEDULES", "Behaviour", "check_behaviour", "check_schedule",
    "make_behaviour",
]  # fmt: skip

BEHAVIOURS = ("random", "scripted", "lookahead", "mix")
"""The policies that play inside the emulator."""

POLICIES = (*BEHAVIOURS, "sb3")
"""All that have a name; the others are agents on disk."""

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
    """Raise UserError unless the behaviour policy exists and can play the game."""
    if name not in BEHAVIOURS:
        close = difflib.get_close_matches(name, POLICIES, n=1, cutoff=0.5)
        advice = f"did you mean '{close[0]}'?" if close else f"choose among {', '.join(POLICIES)},"
        also = "" if close else " or name the folder of a JOWA run or checkpoint, or a published file."
        raise UserError(f"Unknown policy '{name}' (key 'policy'): {advice}{also}")
    if name == "scripted" and game not in CONTROLLERS:
        raise UserError(
            f"There is no scripted controller for {game}, only for {', '.join(CONTROLLERS)}: "
            "set policy to lookahead, mix or random."
        )


def check_schedule(name: str) -> None:
    """Raise UserError unless there is a quality schedule of that name."""
    if name not in SCHEDULES:
        raise UserError(f"Unknown schedule '{name}' (key 'schedule'): choose among {', '.join(SCHEDULES)}.")


def make_behaviour(name: str, game: str, seed: int, epsilon: float = 0.0, schedule: str = "constant") -> Behaviour:
    """The behaviour policy called `name` for `game`, deterministic under `seed`.

    `epsilon` is the share of random actions added to scripted and look-ahead play, at the recording's end if the
    schedule is rising. A mix has its own schedule; its good player is the game's controller or, without one,
    look-ahead.

    Raises:
        UserError: the policy or the schedule doesn't exist, or there is no controller for the game.
    """
    check_behaviour(name, game)
    check_schedule(schedule)
    if name == "random":
        return UniformRandom(seed)
    look_ahead = name == "lookahead" or game not in CONTROLLERS
    good: Behaviour = LookAhead(seed) if look_ahead else CONTROLLERS[game](seed)
    return EpsilonMixture(good, learning_history if name == "mix" else SCHEDULES[schedule](epsilon), seed + 1)
