"""Training curves out of a run's metrics file: one JSON object a line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOT_METRICS = ("stage", "step", "time")
POINTS = 200
_HELD_OUT, _LOSS = "held_out/", "loss/"
_MEANINGS = {
    "total": "The weighted sum of the stage's losses. Stages sum different ones, so it may jump between them.",
    "reconstruction": "Mean absolute error of the tokenizer's reconstruction, pixels running from −1 to 1.",
    "quantisation": "Squared distance between what the tokenizer's encoder says and the codes it is rounded to.",
    "squared_error": "Mean squared error of the same, in which large mistakes weigh more.",
    "perceptual": "Distance between screen and reconstruction in the features of an image classifier (LPIPS).",
    "observation": "Cross-entropy of the next code, in nats a code. Guessing evenly costs the vocabulary's logarithm.",
    "reward": "Cross-entropy of the next reward's sign, in nats an agent step.",
    "end": "Cross-entropy of whether the episode ends, in nats an agent step.",
    "td": "Distance of predicted returns from reward plus discounted later return (temporal difference).",
    "conservative_all": "The penalty's first half: the soft maximum (logsumexp) of the Q values of all actions.",
    "conservative_data": "The penalty's second half: minus the Q value of the action in the data.",
    "world/code_accuracy": "Share of codes predicted right, each from the true codes before it.",
    "world/reward_f1": "F1 of the reward's sign, mean over the signs that occur: 0 if no reward was foreseen rightly.",
    "world/end_f1": "F1 of the episode's end: 0 if no end was foreseen rightly.",
    "codes/used": "Share of the vocabulary that occurs at all.",
    "codes/perplexity": "How many codes, used equally often, would be as varied.",
    "evaluation/score": "Mean human-normalised score of the games played, or the mean return of a game without one.",
    "speed/step_seconds": "Seconds a training step takes.",
    "speed/loader_wait": "Seconds of each step that were spent waiting for data.",
    "memory/host_gb": "Main memory the process takes, in GB.",
    "speed/sequences_per_second": "Sequences of eight agent steps trained on in a second.",
    "speed/tokens_per_second": "Tokens (a screen's codes and an action for each agent step) trained on in a second.",
    "gradient_norm/model": "Length of the world-action model's gradient before it is clipped.",
    "gradient_norm/tokenizer": "Length of the tokenizer's gradient before it is clipped.",
}


@dataclass(frozen=True)
class Curve:
    """One metric in one stage: training steps and values, both (P,), thinned to averages over equal spans.

    `last_step` is the last one measured, which thinning averages with those before it.
    """

    name: str
    stage: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    last_step: float

    @property
    def held_out(self) -> bool:
        """Whether this was measured on held-out episodes."""
        return self.name.startswith(_HELD_OUT)

    @property
    def subject(self) -> str:
        """What was measured, the same for training and held-out data: "loss/td" and "held_out/td" are both "td"."""
        return self.name.removeprefix(_HELD_OUT).removeprefix(_LOSS)


def stage_spans(curves: Sequence[Curve]) -> dict[str, tuple[float, float]]:
    """From which to which of the run's training steps each stage lasted, in their order, one after the other."""
    lengths: dict[str, float] = {}
    for curve in curves:
        lengths[curve.stage] = max(lengths.get(curve.stage, 0.0), curve.last_step)
    ends = np.cumsum([0.0, *lengths.values()]).tolist()
    return dict(zip(lengths, pairwise(ends), strict=True))


def meaning(subject: str) -> str:
    """A sentence on what a metric says; empty for one that explains itself."""
    return _MEANINGS.get(subject, "")


def read_curves(path: Path) -> list[Curve]:
    """The curves of a metrics.jsonl in order of appearance; none if there is no file."""
    return [_thin(name, stage, points) for (name, stage), points in read_series(path).items()]


def read_series(path: Path) -> dict[tuple[str, str], dict[float, float]]:
    """{(metric, stage): {step: value}} of a metrics.jsonl in order of appearance; nothing if there is no file.

    A line that is no JSON object is skipped (a stopped run may have left half of one), as are values that are no
    finite numbers. Where a resumed run wrote a step again, the later value counts.
    """
    if not path.is_file():
        return {}
    series: dict[tuple[str, str], dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        record = _parse(line)
        if record is None or not _is_number(record.get("step")):
            continue
        stage = str(record.get("stage", ""))
        for name, value in record.items():
            if name not in _NOT_METRICS and _is_number(value):
                series.setdefault((name, stage), {})[float(record["step"])] = float(value)
    return series


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
    spans = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    thinned_steps, thinned = (np.array([numbers[span].mean() for span in spans]) for numbers in (steps, values))
    return Curve(name, stage, thinned_steps, thinned, float(steps[-1]))
