"""What all stages of a run share, and what looks at a run now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jowa.training.config import TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.imagination_config import NEVER, ImaginationConfig
from jowa.training.metrics import MetricsLog

Hook = Callable[[str, int], dict[str, float]]
"""Called on every process with (stage, steps done); returns metrics to log."""


class Regularly(NamedTuple):
    """A hook and how often it is called; at a stage's end it always is."""

    hook: Hook
    every: int


@dataclass(frozen=True)
class Run:
    """What all stages of a run share. `facts` go into every checkpoint's description."""

    folder: Path
    seed: int
    config: TrainingConfig
    distribution: Distribution
    log: MetricsLog
    facts: dict[str, Any]
    imagination: ImaginationConfig = NEVER
