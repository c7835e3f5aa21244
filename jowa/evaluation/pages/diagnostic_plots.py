"""Figures about what the model knows: curves over horizons, reliability diagrams, Q beside returns, codebook use."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jowa.evaluation.diagnostics.calibration import Bin, Reliability
from jowa.evaluation.diagnostics.q_calibration import QCalibration
from jowa.evaluation.pages.plots import COLOURS, drawing, svg
from jowa.evaluation.statistics.scores import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR = 3e-4
"""Where a reliability diagram's axes begin; what is below is drawn there."""
_STRIP_COLUMNS = 64
_LETTER = 4.3
"""Width of a letter of a diagram's labels, points."""
_USED = (106, 118, 224)  # stands out on light and on dark paper


@dataclass(frozen=True)
class Line:
    """One line of a figure over horizons: its colour's name and an estimate at each, None where there is none."""

    colour: str
    estimates: Sequence[Estimate | None]
    dashed: bool = False


def over_horizons(name: str, steps: Sequence[int], lines: Sequence[Line], description: str, whole: bool) -> str:
    """Estimates over agent steps ahead, their intervals as bars; `whole` shows all of 0 … 1."""
    with drawing(name, (3.6, 1.9), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.14, 0.2, 0.83, 0.74))
        for number, line in enumerate(lines):
            known = [(step, one) for step, one in zip(steps, line.estimates, strict=True) if one is not None]
            if not known:
                continue
            # Intervals stand beside each other, or the last would hide the others.
            places = np.array([step for step, _ in known]) + 0.05 * (number - (len(lines) - 1) / 2)
            values = [one.value for _, one in known]
            colour, style = COLOURS[line.colour], (0, (4, 2)) if line.dashed else "-"
            axes.plot(places, values, "o", linestyle=style, color=colour, markersize=4, linewidth=1.5)
            axes.vlines(places, [one.low for _, one in known], [one.high for _, one in known], colour, linewidth=1.2)
        axes.set_xticks(list(steps))
        axes.set_xlim(min(steps) - 0.3, max(steps) + 0.3)
        axes.margins(y=0.12)
        if whole:
            axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel("agent steps ahead")
        _quiet(axes)
        return svg(figure, name, description)


def reliability_diagram(name: str, reliability: Reliability, description: str) -> str:
    """Announced against observed shares of each bin on logarithmic axes, intervals as bars; the diagonal is honest."""
    with drawing(name, (3.6, 2.3), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.2, 0.18, 0.77, 0.77))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot([_FLOOR, 1], [_FLOOR, 1], color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        largest = max(one.steps for one in reliability.bins)
        for one in reliability.bins:
            place, height = max(one.announced, _FLOOR), max(one.observed, _FLOOR)
            axes.vlines(place, max(one.least, _FLOOR), max(one.most, _FLOOR), COLOURS["planning"], linewidth=1.3)
            size = 3 + 5 * np.sqrt(one.steps / largest)
            fill = COLOURS["planning"] if one.happened else "none"
            axes.plot(place, height, "o", color=COLOURS["planning"], markerfacecolor=fill, markersize=size)
        ticks = [1e-3, 1e-2, 1e-1, 1]
        axes.set_xticks(ticks, ["0.1 %", "1 %", "10 %", "100 %"])
        axes.set_yticks(ticks, ["0.1 %", "1 %", "10 %", "100 %"])
        axes.minorticks_off()
        axes.set_xlim(_FLOOR / 1.3, 1.5)
        axes.set_ylim(_FLOOR / 1.3, 1.6)
        _label_bins(axes, reliability.bins)
        axes.set_xlabel("announced")
        axes.set_ylabel("happened")
        _quiet(axes)
        return svg(figure, name, description)


def _label_bins(axes: Axes, bins: Sequence[Bin]) -> None:
    """How often it happened beside each dot; a label that has no room is left out, the table and bars remain."""
    from matplotlib.transforms import Bbox

    def seen(announced: float, share: float) -> NDArray[np.float64]:
        """In points from the figure's lower left corner."""
        place = axes.transData.transform((max(announced, _FLOOR), max(share, _FLOOR))) * 72 / axes.figure.dpi
        return np.asarray(place)

    bars = [(seen(one.announced, one.least), seen(one.announced, one.most)) for one in bins]
    taken = [Bbox([low - 4, high + 4]) for low, high in bars]
    inside = Bbox([seen(0, 0), seen(1.4, 1.4)])
    for one in bins:
        x, y = seen(one.announced, one.observed)
        text = f"{one.happened} of {one.steps:,}"
        width = _LETTER * len(text)
        for left, up in ((6, 5), (6, -11), (-6 - width, 5), (-6 - width, -11)):
            box = Bbox.from_bounds(x + left, y + up, width, 8)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0
            if fits and not box.count_overlaps(taken):
                taken.append(box)
                axes.annotate(
                    text, (max(one.announced, _FLOOR), max(one.observed, _FLOOR)), (left, up),
                    textcoords="offset points", fontsize=7.5, color=COLOURS["muted"],
                )  # fmt: skip
                break


def q_diagram(name: str, calibration: QCalibration, description: str) -> str:
    """Realised returns against Q: decisions as points, bins as dots with their middle halves, the diagonal."""
    with drawing(name, (3.6, 2.3), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.17, 0.18, 0.8, 0.77))
        points = np.array(calibration.points)
        colour = COLOURS["planning"]
        axes.plot(points[:, 0], points[:, 1], "o", color=COLOURS["random"], markersize=2.4, alpha=0.5)
        for one in calibration.bins:
            axes.vlines(one.q, one.lower_quartile, one.upper_quartile, colour, linewidth=1.4)
        q, realised = [one.q for one in calibration.bins], [one.realised for one in calibration.bins]
        axes.plot(q, realised, "o-", color=colour, markersize=4.5, linewidth=1.1)
        low, high = float(points.min()), float(points.max())
        room = 0.06 * max(high - low, 1e-3)
        axes.plot([low, high], [low, high], color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xlim(low - room, high + room)
        axes.set_ylim(low - room, high + room)
        axes.locator_params(nbins=5)
        axes.set_xlabel("expected Q of the action played")
        axes.set_ylabel("what followed")
        _quiet(axes)
        return svg(figure, name, description)


def usage_strip(counts: Sequence[int], order: Sequence[int], scale: int = 6) -> bytes:
    """A PNG with a cell for each code in `order`, row by row: the oftener (logarithm) it occurs, the fuller."""
    use = np.log1p(np.asarray(counts, np.float64)[list(order)])
    columns = min(_STRIP_COLUMNS, len(use))
    rows = -(-len(use) // columns)
    cells = np.zeros(rows * columns)
    cells[: len(use)] = 0.08 + 0.92 * use / max(use.max(), 1e-9)
    picture = np.zeros((rows, columns, 4), np.uint8)
    picture[..., :3] = _USED
    picture[..., 3] = (255 * cells).reshape(rows, columns)
    buffer = io.BytesIO()
    Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _quiet(axes: Axes) -> None:
    axes.tick_params(axis="both", labelcolor=COLOURS["muted"])
    axes.set_axisbelow(True)
