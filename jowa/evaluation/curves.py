"""Training curves out of a run's metrics file: one JSON object a line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOT_METRICS = ("stage", "step", "time")
_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """One metric in one stage: training steps and values, both (P,), thinned to averages over equal spans."""

    name: str
    stage: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def read_curves(path: Path) -> list[Curve]:
    """The curves of a metrics.jsonl in order of appearance; none if there is no file.

    A line that is no JSON object is skipped (a stopped run may have left half of one), as are values that are no
    finite numbers. Where a resumed run wrote a step again, the later value counts.
    """
    if not path.is_file():
        return []
    series: dict[tuple[str, str], dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        record = _parse(line)
        if record is None or not _is_number(record.get("step")):
            continue
        stage = str(record.get("stage", ""))
        for name, value in record.items():
            if name not in _NOT_METRICS and _is_number(value):
                series.setdefault((name, stage), {})[float(record["step"])] = float(value)
    return [_thin(name, stage, points) for (name, stage), points in series.items()]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _thin(name: str, stage: str, points: dict[float, float]) -> Curve:
    steps = np.array(sorted(points))
    values = np.array([points[step] for step in steps])
    spans = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    return Curve(name, stage, np.array([steps[s].mean() for s in spans]), np.array([values[s].mean() for s in spans]))
