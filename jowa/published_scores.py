"""What the paper's authors published of their evaluation: per-game means, planner settings and raw episode returns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

PUBLISHED_SIZES = ("40M", "70M", "150M")


@dataclass(frozen=True)
class OfficialEvaluation:
    """How the authors evaluated one model on one game with planning, and what came out.

    Attributes:
        context: real frames given, the present one included.
        width: futures the beam keeps.
        horizon: agent steps looked ahead.
        returns: raw game points of the 16 episodes.
    """

    context: int
    width: int
    horizon: int
    returns: tuple[float, ...]


def published_means() -> dict[str, dict[str, float]]:
    """Mean raw return by algorithm and game, 13 algorithms on the 15 pretraining games (paper, appendix)."""
    means: dict[str, dict[str, float]] = _table()["means"]
    return means


def official_evaluation(size: str) -> dict[str, OfficialEvaluation]:
    """The authors' evaluation of one model by game; empty for a size they did not publish."""
    games: dict[str, dict[str, Any]] = _table()["official_evaluation"].get(size, {})
    return {
        game: OfficialEvaluation(entry["context"], entry["width"], entry["horizon"], tuple(entry["returns"]))
        for game, entry in games.items()
    }


@cache
def _table() -> dict[str, Any]:
    text = resources.files("jowa").joinpath("published_scores.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
