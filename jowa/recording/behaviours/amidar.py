"""An Amidar player."""

from __future__ import annotations

from typing import Any

from jowa.envs.single import SingleAtari

_UP, _LEFT, _DOWN = 2, 4, 5
_ROUTE = (_LEFT, _UP, _LEFT, _DOWN)
_LEG = 20


class AmidarController:
    """Walks left, turning up and down by turns, and so paints far more of the maze than random steps: 50 to 100."""

    watchful = False

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, progress: float = 1.0) -> None:
        """Nothing to forget."""

    def act(self, env: SingleAtari) -> int:
        """LEFT, UP or DOWN, by the number of the step."""
        return _ROUTE[env.steps // _LEG % len(_ROUTE)]

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "scripted"}
