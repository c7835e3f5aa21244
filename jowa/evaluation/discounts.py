"""The discount that an agent's Q was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from jowa.planning.config import PlannerConfig
from jowa.resuming import CONFIG


def discounts(run_folder: Path, planner: PlannerConfig, games: Sequence[str]) -> Mapping[str, float]:
    """Each game's discount an agent step: the training run's where its configuration is there, else the planner's."""
    trained = _objective_gamma(run_folder / CONFIG)
    return dict.fromkeys(games, planner.gamma if trained is None else trained)


def _objective_gamma(path: Path) -> float | None:
    try:
        gamma = OmegaConf.select(OmegaConf.load(path), "objective.gamma")
    except Exception:  # absent, damaged and other programs' files fail in many ways
        return None
    return float(gamma) if isinstance(gamma, int | float) and 0 < gamma <= 1 else None
