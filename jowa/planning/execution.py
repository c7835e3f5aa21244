"""How imagination is computed on the machine at hand. None of it changes what is chosen, up to rounding.

bfloat16 rounds most: see benchmarks/README.md for how many decisions it changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jowa.errors import UserError

DRAFT_ROWS = 16
"""On a CPU drafting saves time for so few rows: see benchmarks/README.md."""


@dataclass(frozen=True)
class ExecutionConfig:
    """draft_rows: guess a new frame from the present one and verify the guess, instead of decoding code by code, where
    so few frames (environments times futures) are imagined at once; 0 for never; null for 16 on a CPU and 0 on a GPU.
    With graphs, searches of 32 imagined frames and more are not drafted.

    graphs: on a GPU, replay one CUDA graph an imagined frame. compile: compile the trunk with torch.compile.
    precision: float32, or bf16, in which a copy of the model imagines; expected Q is computed in single precision.
    memory: GiB a plan may take, more environments than fit are planned for in parts; null for 90 % of what is free.
    """

    draft_rows: int | None = None
    graphs: bool = True
    compile: bool = False
    precision: str = "float32"
    memory: float | None = None


def check_execution(config: ExecutionConfig) -> None:
    """Raises UserError for settings that can't work, naming the key."""
    if config.draft_rows is not None and config.draft_rows < 0:
        raise UserError(f"execution.draft_rows must not be negative, but is {config.draft_rows}.")
    if config.precision not in ("float32", "bf16"):
        raise UserError(f"execution.precision must be float32 or bf16, not {config.precision}.")
    if config.memory is not None and not 0 < config.memory < math.inf:
        raise UserError(f"execution.memory must be above 0 GiB and finite, not {config.memory}.")
