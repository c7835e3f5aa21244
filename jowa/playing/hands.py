"""What players hold: every tab has hands of its own, and all of them play the one game."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jowa.playing.keys import action_for


@dataclass(frozen=True)
class Grip:
    """Keys in the order pressed, and the button of one action."""

    keys: tuple[str, ...] = ()
    button: int | None = None


class Hands:
    """The hands of all tabs; where they disagree, those that moved last count before others."""

    def __init__(self) -> None:
        self._grips: dict[int, Grip] = {}  # the last to move comes last
        self._tapped = Grip()

    def hold(self, keys: Sequence[str], button: int | None, tab: int) -> None:
        """A tab's hands now hold this and nothing else."""
        held = self._held()
        self._grips.pop(tab, None)
        pressed = [key for key in keys if key not in held.keys and key not in self._tapped.keys]
        tapped = self._tapped.button if button is None or button == held.button else button
        self._tapped = Grip((*self._tapped.keys, *pressed), tapped)
        if keys or button is not None:
            self._grips[tab] = Grip(tuple(keys), button)

    def release(self) -> None:
        """Nothing is held any more, by nobody."""
        self._grips.clear()
        self._tapped = Grip()

    def holds(self, game: str) -> int | None:
        """The action that what is held means; None where it means none."""
        held = self._held()
        return action_for(held.keys, game) if held.button is None else held.button

    def take(self, game: str) -> int | None:
        """The action to play now, in which what was tapped since the last one counts as held."""
        held, tapped = self._held(), self._tapped
        self._tapped = Grip()
        button = held.button if tapped.button is None else tapped.button
        keys = [key for key in held.keys if key not in tapped.keys] + list(tapped.keys)
        return action_for(keys, game) if button is None else button

    def _held(self) -> Grip:
        keys = [key for grip in self._grips.values() for key in grip.keys]
        buttons = [grip.button for grip in self._grips.values() if grip.button is not None]
        return Grip(tuple(keys), buttons[-1] if buttons else None)
