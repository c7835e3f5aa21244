"""What a behaviour policy is: someone who plays while we record."""

from __future__ import annotations

from typing import Any, Protocol

from jowa.envs.single import SingleAtari


class Behaviour(Protocol):
    """A player that may read the emulator's memory, deterministic under the seed it was made with.

    watchful: it must be asked at every step, since it estimates velocities, even if its choice isn't played.
    """

    watchful: bool

    def reset(self, progress: float = 1.0) -> None:
        """Begin an episode. `progress` is the fraction of the recording that is done: a learner gets better with it."""
        ...

    def act(self, env: SingleAtari) -> int:
        """The action to play now, an index into the full 18, legal in the game."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-compatible facts about this episode's policy, stored with the episode."""
        ...
