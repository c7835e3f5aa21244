"""Figures as SVG that sits inside a page and takes the page's colours, so that light and dark both read well."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jowa.evaluation.results.curves import Curve
from jowa.evaluation.statistics.scores import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn in colours that occur nowhere else and name a CSS variable each.
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "line": "#010103",
    "random": "#010104",
    "data": "#010105",
    "greedy": "#010106",
    "planning": "#010107",
    "published": "#010108",
    "run1": "#010109",
    "run2": "#01010a",
    "run3": "#01010b",
    "run4": "#01010c",
    "run5": "#01010d",
    "run6": "#01010e",
    "run7": "#01010f",
    "run8": "#010110",
    "run9": "#010111",
    "run10": "#010112",
}
WIDTH = 3.6
"""Of figures, in inches."""
_LETTER, _LONGEST = 0.073, 22
STYLE: dict[Any, Any] = {
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


@contextmanager
def drawing(name: str, size: tuple[float, float], style: dict[Any, Any]) -> Iterator[Figure]:
    """A figure of that size in inches to draw on, in `STYLE` with changes; those of equal names get equal ids."""
    # Here, since most commands draw nothing and matplotlib takes half a second to import.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | style | {"svg.hashsalt": name}):
        yield Figure(figsize=size)


def score_bars(game: str, bars: Sequence[Bar]) -> str:
    """Mean returns of one game as bars, with intervals and a dot for every episode."""
    height = 0.36 + 0.36 * len(bars)
    labels = [shortened(bar.label) for bar in bars]
    left = left_margin(labels)
    with drawing(game, (WIDTH, height), {"axes.grid": True}) as figure:
        axes = figure.add_axes((left, 0.28 / height, 0.98 - left, 1 - 0.32 / height))
        for row, bar in enumerate(bars):
            colour = COLOURS[bar.colour]
            axes.barh(row, bar.value, height=0.62, color=colour, alpha=0.32, linewidth=0)
            axes.plot([bar.value] * 2, [row - 0.31, row + 0.31], color=colour, linewidth=2)
            spread = (np.arange(len(bar.episodes)) % 5 - 2) * 0.1  # dots of equal returns stay countable
            axes.plot(bar.episodes, row + spread, "o", color=colour, markersize=3.0, alpha=0.65, markeredgewidth=0)
            if bar.interval is not None:
                ends = [bar.interval.low, bar.interval.high]
                axes.plot(ends, [row, row], color=COLOURS["ink"], linewidth=1.4, solid_capstyle="butt")
                axes.plot(ends, [row, row], "|", color=COLOURS["ink"], markersize=6)
        axes.set_yticks(range(len(bars)), labels)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
        axes.margins(x=0.04)
        axes.locator_params(axis="x", nbins=5)
        axes.set_axisbelow(True)
        return svg(figure, f"bars-{game}", f"{game}: mean return by way of playing")


def intervals(name: str, rows: Sequence[Bar], description: str) -> str:
    """Values as dots with their intervals and numbers; a row without a label belongs to the one above it."""
    places = np.cumsum([1.0 if bar.label else 0.62 for bar in rows])
    height = 0.36 + 0.3 * float(places[-1])
    with drawing(name, (3.6, height), {"axes.grid": True}) as figure:
        axes = figure.add_axes((0.13, 0.28 / height, 0.85, 1 - 0.32 / height))
        for place, bar in zip(places, rows, strict=True):
            low, high = (bar.interval.low, bar.interval.high) if bar.interval else (bar.value, bar.value)
            axes.plot([low, high], [place, place], color=COLOURS[bar.colour], linewidth=2, solid_capstyle="butt")
            axes.plot(bar.value, place, "o", color=COLOURS[bar.colour], markersize=5.5)
            axes.annotate(f"{bar.value:.3f}", (high, place), (5, 0), textcoords="offset points", va="center")
        named = [(place, bar.label) for place, bar in zip(places, rows, strict=True) if bar.label]
        axes.set_yticks([place for place, _ in named], [label for _, label in named])
        axes.set_ylim(places[-1] + 0.6, 0.4)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.16 * (right - left))  # room for the last number
        axes.locator_params(axis="x", nbins=6)
        axes.set_axisbelow(True)
        return svg(figure, f"intervals-{name}", description)


def stage_colour(stage: str, stages: Sequence[str]) -> str:
    """The colour of one of a run's training stages."""
    return ("greedy", "planning")[stages.index(stage) % 2]


def training_curve(name: str, curves: Sequence[Curve], spans: Mapping[str, tuple[float, float]]) -> str:
    """One metric over the run's training steps; `spans` says from which to which of them each stage lasted.

    Measurements on held-out data are drawn as dots, in ink, over the training curve.
    """
    with drawing(name, (3.6, 1.6), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.14, 0.17, 0.81, 0.78))
        for curve in curves:
            steps = spans[curve.stage][0] + curve.steps
            if curve.held_out:
                axes.plot(steps, curve.values, "o-", color=COLOURS["ink"], markersize=2.6, linewidth=0.7)
            else:
                marker = "o" if len(steps) == 1 else None
                colour = COLOURS[stage_colour(curve.stage, list(spans))]
                axes.plot(steps, curve.values, color=colour, linewidth=1.5, marker=marker, markersize=3)
        for start, _ in list(spans.values())[1:]:
            axes.axvline(start, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", nbins=4)
        end = max(end for _, end in spans.values())
        axes.set_xlim(-0.02 * end, 1.02 * end)
        axes.set_axisbelow(True)
        return svg(figure, f"curve-{name}", f"{name} over training steps")


def shortened(label: str) -> str:
    """A label that fits beside a figure."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def left_margin(labels: Sequence[str]) -> float:
    """Which share of a figure's width its rows' labels take."""
    return (0.12 + _LETTER * max(map(len, labels))) / WIDTH


def svg(figure: Figure, name: str, description: str) -> str:
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
