"""A Freeway player."""

from __future__ import annotations

from typing import Any

from jowa.envs.single import SingleAtari

_UP = 2


class FreewayController:
    """Always walks up: about 20 crossings."""

    watchful = False

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, progress: float = 1.0) -> None:
        """Nothing to forget."""

    def act(self, env: SingleAtari) -> int:
        """UP."""
        return _UP

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "scripted"}
