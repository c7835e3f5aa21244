"""Imagination while training (paper, section 5.4 and appendix): what it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jowa.errors import UserError
from jowa.training.config import StageConfig, TrainingConfig


@dataclass(frozen=True)
class ImaginationConfig:
    """From a stage's step `from_step` on (null: never) half of every batch is imagined.

    An imagined sequence is a real prefix and then `horizon` frames along the best beam of `width`. Every step imagines
    half a batch of new ones, from which with the last `replay` ones the step draws; they enter the Q losses only.
    use_termination: whether a predicted end ends a future and its sequence; the paper's authors ignore it.
    """

    from_step: int | None = None
    width: int = 2
    horizon: int = 2
    replay: int = 4096
    use_termination: bool = True

    def halves(self, step: int) -> int:
        """In how many parts a step's batch is shared: 2 if it imagines, else 1."""
        return 1 if self.from_step is None or step < self.from_step else 2

    def imagined(self, steps: int, batch_size: int) -> int:
        """How many sequences have been imagined once so many steps of a stage are done."""
        return 0 if self.from_step is None else max(0, steps - self.from_step) * (batch_size // 2)


NEVER = ImaginationConfig()


def check_imagination(
    config: ImaginationConfig, training: TrainingConfig, stages: Mapping[str, StageConfig], ranks: int
) -> None:
    """Raises UserError for settings that can't work, naming the key."""
    if config.from_step is None:
        return
    if config.from_step < 0:
        raise UserError(f"imagination.from_step must not be negative, but is {config.from_step}.")
    for key in ("width", "horizon"):
        if getattr(config, key) < 1:
            raise UserError(f"imagination.{key} must be at least 1, not {getattr(config, key)}.")
    for name, stage in stages.items():
        if not stage.trains_q:
            raise UserError(
                f"imagination.from_step={config.from_step} needs Q networks that learn, which imagined sequences are "
                f"for: set {name}.td_weight above 0, or imagination.from_step=null."
            )
    half, odd = divmod(training.batch_size, 2)
    if odd or half % ranks:
        raise UserError(
            f"training.batch_size={training.batch_size} can't be half imagined by {ranks} "
            f"process{'es' if ranks > 1 else ''}: take a multiple of {2 * ranks}."
        )
    if training.micro_batch is not None and training.micro_batch % 2:
        raise UserError(
            f"training.micro_batch={training.micro_batch} can't be half imagined: take an even number of sequences."
        )
    if config.replay < half:
        raise UserError(
            f"imagination.replay={config.replay} doesn't hold the {half} sequences that a step imagines: take {half} "
            "or more."
        )


def check_horizon(config: ImaginationConfig, blocks: int) -> None:
    """Raises UserError when no real frame would be left to imagine from."""
    if config.from_step is not None and config.horizon >= blocks:
        raise UserError(
            f"imagination.horizon={config.horizon} leaves no real frame of the model's {blocks}: set "
            f"imagination.horizon to at most {blocks - 1}."
        )
