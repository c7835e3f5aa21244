"""Figures as SVG that sits inside a page and takes the page's colours, so that light and dark both read well."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jowa.evaluation.curves import Curve
from jowa.evaluation.scores import Estimate

# Drawn in colours that occur nowhere else and name a CSS variable each.
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "line": "#010103",
    "random": "#010104",
    "data": "#010105",
    "greedy": "#010106",
    "planning": "#010107",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid.axis": "x",
    "axes.formatter.limits": (-4, 6),
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
}


@dataclass(frozen=True)
class Bar:
    """One row of a score figure: an estimate with its episodes' returns, or a bare value."""

    label: str
    colour: str
    value: float
    interval: Estimate | None = None
    episodes: Sequence[float] = ()


def score_bars(game: str, bars: Sequence[Bar]) -> str:
    """Mean returns of one game as bars, with intervals and a dot for every episode."""
    with matplotlib.rc_context(_STYLE | {"axes.grid": True, "svg.hashsalt": game}):
        figure = Figure(figsize=(4.6, 0.55 + 0.42 * len(bars)))
        axes = figure.add_axes((0.26, 0.36 / figure.get_figheight(), 0.70, 1 - 0.42 / figure.get_figheight()))
        for row, bar in enumerate(bars):
            colour = COLOURS[bar.colour]
            axes.barh(row, bar.value, height=0.62, color=colour, alpha=0.32, linewidth=0)
            axes.plot([bar.value] * 2, [row - 0.31, row + 0.31], color=colour, linewidth=2)
            spread = (np.arange(len(bar.episodes)) % 5 - 2) * 0.1  # dots of equal returns stay countable
            axes.plot(bar.episodes, row + spread, "o", color=colour, markersize=2.6, alpha=0.55, markeredgewidth=0)
            if bar.interval is not None:
                ends = [bar.interval.low, bar.interval.high]
                axes.plot(ends, [row, row], color=COLOURS["ink"], linewidth=1.4, solid_capstyle="butt")
                axes.plot(ends, [row, row], "|", color=COLOURS["ink"], markersize=6)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
        axes.margins(x=0.04)
        axes.locator_params(axis="x", nbins=5)
        axes.set_axisbelow(True)
        return _svg(figure, f"bars-{game}", f"{game}: mean return by way of playing")


def training_curve(name: str, curves: Sequence[Curve]) -> str:
    """One metric over training steps, its stages one after the other."""
    with matplotlib.rc_context(_STYLE | {"axes.grid": True, "axes.grid.axis": "y", "svg.hashsalt": name}):
        figure = Figure(figsize=(4.2, 1.7))
        axes = figure.add_axes((0.13, 0.17, 0.84, 0.76))
        start = 0.0
        for index, curve in enumerate(curves):
            alone = "o" if len(curve.steps) == 1 else None
            colour = COLOURS["greedy" if index % 2 == 0 else "planning"]
            axes.plot(start + curve.steps, curve.values, color=colour, linewidth=1.5, marker=alone, markersize=3)
            if index:
                axes.axvline(start, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
            start += float(curve.steps[-1])
        _tidy(axes)
        return _svg(figure, f"curve-{name}", f"{name} over training steps")


def _tidy(axes: Axes) -> None:
    axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=4)
    axes.margins(x=0.01)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str, description: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    # Several figures share one page: their ids must not meet.
    prefix = re.sub(r"\W+", "-", name).lower()
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{label}"', text, count=1)
