"""The discount that an agent's Q was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf

from jowa.planning.config import PlannerConfig
from jowa.resuming import CONFIG
from jowa.training.starting_point import StartingPoint


class Discount(NamedTuple):
    """gamma: an agent step's; trained: whether it is known to be that of training, or else the planner's."""

    gamma: float
    trained: bool


def discounts(start: StartingPoint, planner: PlannerConfig, games: Sequence[str]) -> Mapping[str, Discount]:
    """Each game's discount: the training run's where its configuration is in reach, else the planner's."""
    found = map(_objective_gamma, (start.checkpoint / CONFIG, start.folder / CONFIG))
    trained = next((gamma for gamma in found if gamma is not None), None)
    discount = Discount(planner.gamma, False) if trained is None else Discount(trained, True)
    return dict.fromkeys(games, discount)


def _objective_gamma(path: Path) -> float | None:
    try:
        gamma = OmegaConf.select(OmegaConf.load(path), "objective.gamma")
    except Exception:  # absent, damaged and other programs' files fail in many ways
        return None
    return float(gamma) if isinstance(gamma, int | float) and 0 < gamma <= 1 else None
