"""Under which rules a game is played."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jowa.errors import UserError


@dataclass(frozen=True)
class ProtocolConfig:
    """The rules of play; the defaults are the paper's but for the cap on an episode's length.

    frame_skip: emulator frames an action is held: one *agent step*.
    repeat_action_probability: stickiness; each emulator frame repeats the previous action with this probability.
    max_episode_frames: emulator *frames* (not agent steps) after which an episode is truncated. 108 000 frames are
        27 000 agent steps, half an hour of play; the paper's authors allow 108 000 agent steps.
    max_no_op_frames: at most this many emulator frames of no-op before the first screen, drawn evenly (0 = none).
    random_action_probability: with which evaluation plays a random legal action instead of the policy's.
    rom_dir: folder of `<rom>.bin` files to play instead of those that come with ale-py.
    """

    frame_skip: int = 4
    repeat_action_probability: float = 0.0
    max_episode_frames: int = 108_000
    max_no_op_frames: int = 0
    random_action_probability: float = 0.001
    rom_dir: str | None = None

    @property
    def max_episode_steps(self) -> int:
        """The cap in agent steps, rounded up."""
        return -(-self.max_episode_frames // self.frame_skip)

    def check(self) -> ProtocolConfig:
        """Return self if every value makes sense, else raise UserError naming the key."""
        for key, smallest in (("frame_skip", 2), ("max_episode_frames", 1), ("max_no_op_frames", 0)):
            if getattr(self, key) < smallest:
                raise UserError(f"protocol.{key} must be at least {smallest}, not {getattr(self, key)}.")
        for key in ("repeat_action_probability", "random_action_probability"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise UserError(f"protocol.{key} must lie between 0 and 1, not {getattr(self, key)}.")
        return self


def episode_seed(seed: int, episode: int) -> int:
    """The emulator's seed (31 bits) for an environment's episode number `episode` (0, 1, …)."""
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0] >> 1)
