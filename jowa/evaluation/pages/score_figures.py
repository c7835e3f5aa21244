"""Figures of scores: estimates with their intervals in rows, and performance profiles laid over one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jowa.evaluation.pages.plots import COLOURS, WIDTH, Bar, drawing, left_margin, shortened, svg
from jowa.evaluation.results.curves import Curve
from jowa.evaluation.statistics.profiles import Profile

RUN_COLOURS = tuple(name for name in COLOURS if name.startswith("run"))
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))


@dataclass(frozen=True)
class Line:
    """Someone's profile: a label, a colour, and the shares."""

    label: str
    colour: str
    profile: Profile


def run_colour(number: int) -> str:
    """The colour of a run by its number in the comparison; they come again after the last, dashed."""
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def estimates(name: str, rows: Sequence[Bar], description: str, middle: float | None = None) -> str:
    """Values as dots with their intervals, the number beside; with a `middle`, a line there and shares from 0 to 1."""
    height = 0.42 + 0.27 * len(rows)
    labels = [shortened(bar.label) for bar in rows]
    left = left_margin(labels)
    with drawing(name, (WIDTH, height), {"axes.grid": True}) as figure:
        axes = figure.add_axes((left, 0.3 / height, 0.98 - left, 1 - 0.34 / height))
        if middle is not None:
            axes.axvline(middle, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (3, 3)))
        for place, bar in enumerate(rows):
            low, high = (bar.interval.low, bar.interval.high) if bar.interval else (bar.value, bar.value)
            axes.plot([low, high], [place, place], color=COLOURS[bar.colour], linewidth=2, solid_capstyle="butt")
            axes.plot(bar.value, place, "o", color=COLOURS[bar.colour], markersize=5)
            beside, number = (high, f"{bar.value:.3f}") if middle is None else (1.02, f"{100 * bar.value:.1f} %")
            axes.annotate(number.replace("-", "−"), (beside, place), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        start, end = axes.get_xlim() if middle is None else (-0.02, 1.02)
        axes.set_xlim(start, end + 0.35 * (end - start))  # room for the last number
        if middle is None:
            axes.locator_params(axis="x", nbins=4)
        else:
            axes.set_xticks([0, middle, 1], ["0 %", f"{100 * middle:.0f} %", "100 %"])
        axes.set_axisbelow(True)
        return svg(figure, f"estimates-{name}", description)


def profiles(name: str, lines: Sequence[Line], description: str) -> str:
    """Shares of episodes above every threshold, each with the band of its interval."""
    with drawing(name, (WIDTH, 2.3), {"axes.grid": True, "axes.grid.axis": "both"}) as figure:
        axes = figure.add_axes((0.12, 0.19, 0.83, 0.77))
        for number, line in enumerate(lines):
            one, colour = line.profile, COLOURS[line.colour]
            axes.fill_between(one.thresholds, one.low, one.high, color=colour, alpha=0.18, linewidth=0, step="pre")
            axes.step(one.thresholds, one.share, color=colour, linewidth=1.6, linestyle=dashes(number), where="pre")
        axes.set_xlabel("normalised score τ")
        axes.set_ylim(-0.03, 1.03)
        start, end = lines[0].profile.thresholds[0], lines[0].profile.thresholds[-1]
        axes.set_xlim(start, end)
        axes.set_xticks(np.linspace(start, end, 5))
        axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.set_axisbelow(True)
        return svg(figure, f"profiles-{name}", description)


def overlaid(name: str, curves: Sequence[tuple[int, str, Sequence[tuple[Curve, float]]]]) -> str:
    """One metric of several runs over training steps: a run's number, colour, and curves with the steps before them."""
    with drawing(name, (WIDTH, 1.7), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.14, 0.16, 0.81, 0.79))
        for number, colour, parts in curves:
            for curve, before in parts:
                marker = "o" if len(curve.steps) == 1 else None
                axes.plot(before + curve.steps, curve.values, color=COLOURS[colour], linewidth=1.4,
                          linestyle=dashes(number), marker=marker, markersize=3)  # fmt: skip
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.locator_params(axis="both", nbins=5)
        axes.set_axisbelow(True)
        return svg(figure, f"overlaid-{name}", f"{name} over training steps, run by run")


def dashes(number: int) -> object:
    """How a run's lines are dashed: its colour may come a second time."""
    return _DASHES[number // len(RUN_COLOURS) % len(_DASHES)]
