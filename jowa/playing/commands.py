"""What a page may ask of a session: small JSON objects, checked before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jowa.errors import UserError
from jowa.games import LARGEST_ACTION_SET
from jowa.planning.config import PLANNERS, PlannerConfig
from jowa.playing.keys import KEYS
from jowa.playing.session import AGENT, HUMAN, SPEEDS, Session

LONGEST = 4096
"""Bytes of a message."""

MOST_FUTURES, MOST_IMAGINED = 16, 64
"""Futures kept and steps imagined a decision that a page may ask of a planner: beyond these it takes minutes."""

Check = Callable[[str, Any], Any]
"""Takes a key and its value, returns the value or raises UserError."""


@dataclass(frozen=True)
class Command:
    """A checked message: what is to be done, and its values by name."""

    do: str
    values: Mapping[str, Any]

    def apply(self, session: Session) -> None:
        """Do it. Raises UserError for what the session refuses."""
        _COMMANDS[self.do].act(session, **self.values)


def read_command(text: str, tab: int = 0) -> Command:
    """What a tab asks, each of which has a number. Raises UserError, one sentence, for whatever isn't a command."""
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST:
        raise UserError(f"A message may have {LONGEST:,} bytes, and this one has more.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("A message must be a JSON object, and this one can't be read.") from None
    if not isinstance(message, dict):
        raise UserError("A message must be a JSON object with the key 'do'.")
    do = message.pop("do", None)
    if not isinstance(do, str) or do not in _COMMANDS:
        raise UserError(f"do must be one of {', '.join(_COMMANDS)}, not {_short(do)}.")
    kind = _COMMANDS[do]
    for key in message:
        if key not in kind.needs and key not in kind.takes:
            raise UserError(f"'{do}' takes {', '.join([*kind.needs, *kind.takes]) or 'nothing'}, not {_short(key)}.")
    for key in kind.needs:
        if key not in message:
            raise UserError(f"'{do}' needs {key}.")
    checks = kind.needs | kind.takes
    values = {key: checks[key](key, value) for key, value in message.items()}
    return Command(do, values | {"tab": tab} if do == "hold" else values)


@dataclass(frozen=True)
class _Kind:
    """A kind of command: what it does, the keys it needs and those it takes besides."""

    act: Callable[..., None]
    needs: dict[str, Check]
    takes: dict[str, Check]


def _number(low: float, high: float, whole: bool = False) -> Check:
    def check(key: str, value: Any) -> Any:
        kind = int if whole else int | float
        if value is None:
            raise UserError(f"{key} is empty: give it a {'whole ' * whole}number from {low:g} to {high:g}.")
        # True is an int to Python; NaN is within no bounds.
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            raise UserError(f"{key} must be a {'whole ' * whole}number from {low:g} to {high:g}, not {_short(value)}.")
        return value

    return check


def _choice(*names: str) -> Check:
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in names:
            raise UserError(f"{key} must be one of {', '.join(names)}, not {_short(value)}.")
        return value

    return check


def _flag(key: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false, not {_short(value)}.")
    return value


def _text(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not value.isprintable():
        raise UserError(f"{key} must be a name, not {_short(value)}.")
    return value


def _keys(key: str, value: Any) -> Any:
    if not isinstance(value, list) or len(value) > len(KEYS) or not all(one in KEYS for one in value):
        raise UserError(f"{key} must be a list of some of {', '.join(KEYS)}, not {_short(value)}.")
    return value


def _optional(check: Check) -> Check:
    return lambda key, value: None if value is None else check(key, value)


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _later(key: str, value: Any) -> Any:
    """For what depends on the model."""
    return value


def _plan_with(session: Session, **values: Any) -> None:
    for key, low, high in (("context", 1, session.blocks), ("horizon", 0, session.blocks - 1)):
        if key in values:
            _number(low, high, whole=True)(key, values[key])
    asked = replace(session.planner, **values)
    if _imagined(asked) > MOST_IMAGINED:
        raise UserError(
            f"width={asked.width} and horizon={asked.horizon} imagine up to {_imagined(asked)} agent steps a decision, "
            f"more than the {MOST_IMAGINED} that this page allows: lower one of them."
        )
    session.plan_with(**values)


def _imagined(planner: PlannerConfig) -> int:
    """Agent steps a decision of beam search, at most; what others imagine is limited already."""
    if planner.name != "beam" or planner.horizon == 0:
        return 0
    return planner.width + (planner.horizon - 1) * planner.width**2


_ACTION = _optional(_number(0, LARGEST_ACTION_SET - 1, whole=True))

_COMMANDS: dict[str, _Kind] = {
    "run": _Kind(Session.run, {"running": _flag}, {}),
    "step": _Kind(Session.step, {}, {"action": _ACTION}),
    "restart": _Kind(Session.restart, {}, {}),
    "speed": _Kind(Session.set_speed, {"speed": _number(*SPEEDS)}, {}),
    "drive": _Kind(Session.drive, {"driver": _choice(AGENT, HUMAN)}, {}),
    "hold": _Kind(Session.hold, {"keys": _keys}, {"action": _ACTION}),
    "show_plan": _Kind(Session.show_plan, {"shown": _flag}, {}),
    "dream": _Kind(Session.dream, {}, {"elsewhere": _flag}),
    "wake": _Kind(Session.wake, {}, {}),
    "temperature": _Kind(Session.set_temperature, {"temperature": _number(0, 10)}, {}),
    "plan_with": _Kind(
        _plan_with,
        {},
        {
            "name": _choice(*PLANNERS),
            "width": _number(1, MOST_FUTURES, whole=True),
            "horizon": _later,
            "context": _later,
            "simulations": _number(1, MOST_IMAGINED, whole=True),
        },
    ),
    "game": _Kind(Session.choose_game, {"game": _text}, {}),
}
