"""Figures about recorded data, in the style of the report's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.evaluation.pages.plots import COLOURS, drawing, svg


@dataclass(frozen=True)
class ReturnsOverTime:
    """How returns went, over P places (checkpoints, or spans of episodes).

    Attributes:
        axis: what the places are.
        places: (P,) float64.
        low, mean, high: (P,) float64, of the returns there: a tenth lies below low and a tenth above high.
    """

    axis: str
    places: NDArray[np.float64]
    low: NDArray[np.float64]
    mean: NDArray[np.float64]
    high: NDArray[np.float64]


def returns_figure(game: str, returns: ReturnsOverTime) -> str:
    """Mean returns as a line with dots, in the band that eight tenths of the episodes lie in."""
    with drawing(game, (3.6, 2.1), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.15, 0.2, 0.81, 0.76))
        axes.fill_between(returns.places, returns.low, returns.high, color=COLOURS["data"], alpha=0.22, linewidth=0)
        axes.plot(returns.places, returns.mean, "o-", color=COLOURS["data"], linewidth=1.4, markersize=2.6)
        axes.set_xlabel(returns.axis)
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.margins(x=0.03)
        axes.set_axisbelow(True)
        return svg(figure, f"returns-{game}", f"{game}: returns by {returns.axis}")


def lengths_figure(game: str, lengths: NDArray[np.int64]) -> str:
    """How many episodes (E,) have about which length."""
    with drawing(game, (3.6, 2.1), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.15, 0.2, 0.81, 0.76))
        axes.hist(lengths, bins=min(30, max(5, len(lengths) // 3)), color=COLOURS["data"], alpha=0.7, rwidth=0.93)
        axes.set_xlabel("agent steps")
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.locator_params(axis="y", nbins=5, integer=True)
        axes.set_axisbelow(True)
        return svg(figure, f"lengths-{game}", f"{game}: episodes by length in agent steps")


def action_bars(game: str, shares: Mapping[str, float]) -> str:
    """How often each action was taken: a bar for each name, with its per cent."""
    height = 0.1 + 0.19 * len(shares)
    with drawing(game, (3.6, height), {"axes.grid": False, "font.size": 8.0}) as figure:
        axes = figure.add_axes((0.31, 0.03, 0.55, 0.94))
        rows = range(len(shares))
        axes.barh(rows, list(shares.values()), height=0.7, color=COLOURS["data"], alpha=0.7, linewidth=0)
        for row, value in zip(rows, shares.values(), strict=True):
            label = f"{100 * value:.1f} %"
            axes.annotate(label, (value, row), (4, 0), textcoords="offset points", va="center", color=COLOURS["muted"])
        axes.set_yticks(rows, list(shares))
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, max(shares.values()))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        return svg(figure, f"actions-{game}", f"{game}: share of each action")
