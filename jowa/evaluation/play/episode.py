"""What is known of an episode once it has been played."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Episode:
    """One finished episode: raw return, length in agent steps, how it ended, who played."""

    game: str
    seed: int
    mode: str
    episode_return: float
    agent_steps: int
    terminated: bool
    truncated: bool
