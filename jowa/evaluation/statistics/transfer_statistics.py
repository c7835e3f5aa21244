"""Means over a few seeds, their intervals, and what a difference between two ways to start shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Series = Mapping[float, float]
"""A metric's values by training step."""
CONFIDENCE = 0.95
BETTER, WORSE, NOT_SHOWN, UNTESTED = "better", "worse", "no difference shown", "not tested"


@dataclass(frozen=True)
class Mean:
    """The mean of one value a seed, and Student's t interval around it.

    low, high: None for a single seed, of which no spread can be known. A bootstrap of so few seeds would be far too
    narrow: it can't reach beyond the values it has; Student's t is as wide as a normal spread over seeds asks for.
    """

    value: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class ArmCurve:
    """One metric of one arm: its mean over seeds at every step, at the last one, and of the curve's mean height.

    area: the area under a seed's curve, divided by the steps it spans: in the metric's own unit.
    """

    arm: str
    curve: tuple[Mean, ...]
    final: Mean
    area: Mean


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, seed by seed, and the verdicts in the arm's favour or not."""

    arm: str
    baseline: str
    final: Mean
    area: Mean
    final_verdict: str
    area_verdict: str


@dataclass(frozen=True)
class MetricComparison:
    """One metric of all arms at the steps at which every run has measured it."""

    name: str
    higher_is_better: bool
    steps: tuple[float, ...]
    arms: tuple[ArmCurve, ...]
    differences: tuple[Difference, ...]


def mean_over_seeds(values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE) -> Mean:
    """The mean of one value a seed, with its t interval where there are two or more."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Mean(mean, None, None, tuple(data.tolist()))
    error = float(data.std(ddof=1)) / np.sqrt(len(data))
    half = float(stdtrit(len(data) - 1, (1 + confidence) / 2)) * error
    return Mean(mean, mean - half, mean + half, tuple(data.tolist()))


def mean_height(steps: Sequence[float], values: NDArray[np.float64]) -> float:
    """The area under a curve by the trapezoidal rule over the steps it spans; of a single point its value."""
    widths = np.diff(np.asarray(steps, dtype=np.float64))
    if not len(widths):
        return float(values[0])
    return float(((values[1:] + values[:-1]) / 2 * widths).sum() / widths.sum())


def verdict(difference: Mean, higher_is_better: bool) -> str:
    """What the interval of a difference shows; one that has 0 in it or at its edge shows none.

    Nothing is tested where there is no spread: of one seed, or of several that differ by the very same amount.
    """
    if difference.low is None or difference.high is None:
        return UNTESTED
    if difference.low <= 0 <= difference.high:
        return NOT_SHOWN
    if difference.low == difference.high:
        return UNTESTED
    return BETTER if (difference.value > 0) == higher_is_better else WORSE


def compare(
    name: str, higher_is_better: bool, series: Mapping[str, Sequence[Series]], baseline: str
) -> MetricComparison | None:
    """Compare one metric; `series` has each arm's runs in the order of seeds, the same for all.

    None where the runs have no step in common at which it was measured. Without the `baseline` among the arms there
    are no differences.
    """
    runs = [run for of_arm in series.values() for run in of_arm]
    steps = tuple(sorted(set.intersection(*(set(run) for run in runs))))
    if not steps:
        return None
    tables = {arm: np.array([[run[step] for step in steps] for run in of_arm]) for arm, of_arm in series.items()}
    areas = {arm: np.array([mean_height(steps, row) for row in table]) for arm, table in tables.items()}
    arms = tuple(
        ArmCurve(
            arm,
            tuple(mean_over_seeds(column) for column in table.T),
            mean_over_seeds(table[:, -1]),
            mean_over_seeds(areas[arm]),
        )
        for arm, table in tables.items()
    )
    differences = []
    for arm in tables if baseline in tables else ():
        if arm != baseline:
            final = mean_over_seeds(tables[arm][:, -1] - tables[baseline][:, -1])
            area = mean_over_seeds(areas[arm] - areas[baseline])
            verdicts = verdict(final, higher_is_better), verdict(area, higher_is_better)
            differences.append(Difference(arm, baseline, final, area, *verdicts))
    return MetricComparison(name, higher_is_better, steps, arms, tuple(differences))
