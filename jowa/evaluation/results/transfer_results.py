"""What the runs of a transfer comparison measured, read from their folders, and its files of numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.evaluation.results.curves import read_series
from jowa.evaluation.results.results import plain
from jowa.evaluation.statistics.transfer_statistics import MetricComparison, Series, compare
from jowa.files import write_json, write_text
from jowa.models.agent_files import read_description
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.metrics import FILE as METRICS

BASELINE = "scratch"
FOLDER = "comparisons"


@dataclass(frozen=True)
class Metric:
    """One thing that is compared. shared: whether it measures the same thing in all arms."""

    name: str
    label: str
    higher_is_better: bool
    shared: bool
    meaning: str


def metrics_of(game: str) -> tuple[Metric, ...]:
    """All that a finetuning run on the game may have measured besides its training losses."""
    own = "Each arm has codes of its own, so arms can't be compared by it: few different codes are easy to guess."
    return (
        Metric(f"evaluation/{game}/return", "Mean return", True, True, "Raw game points of the same few episodes."),
        Metric("held_out/reward", "Held-out reward loss", False, True,
               "Cross-entropy of the next reward's sign on held-out episodes, in nats an agent step."),
        Metric("held_out/end", "Held-out end loss", False, True,
               "Cross-entropy of whether the episode ends, on held-out episodes, in nats an agent step."),
        Metric("held_out/reconstruction", "Held-out reconstruction loss", False, True,
               "Mean absolute error of the tokenizer on held-out screens, pixels running from −1 to 1."),
        Metric("held_out/observation", "Held-out observation loss", False, False,
               f"Cross-entropy of the next code on held-out episodes, in nats a code. {own}"),
        Metric("held_out/world/code_accuracy", "Held-out code accuracy", True, False,
               f"Share of the next codes guessed rightly on held-out episodes. {own}"),
        Metric("held_out/td", "Held-out TD loss", False, False,
               "Distance of predicted returns from reward plus the agent's own later prediction, on held-out episodes. "
               "Each arm is its own judge, so arms can't be compared by it."),
    )  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """One finished run. seconds: of its training steps; start-up, evaluation and checkpoints aren't in it."""

    arm: str
    seed: int
    folder: str
    steps: int
    seconds: float
    series: Mapping[str, Series]


@dataclass(frozen=True)
class ArmCost:
    """What each run of an arm was given, and the mean seconds of its training steps.

    transitions: agent steps that all its sequences have room for, padding included.
    """

    arm: str
    runs: int
    steps: int
    sequences: int
    transitions: int
    seconds: float


@dataclass(frozen=True)
class Transfer:
    """A comparison; `config` is the command's, `data` says what all runs were trained on."""

    created: str
    command: str
    game: str
    checkpoint: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[tuple[Metric, MetricComparison], ...]
    cost: tuple[ArmCost, ...]
    data: Mapping[str, Any]
    config: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader must know before believing the numbers."""
        count, sentences = len(self.seeds), []
        if count == 1:
            sentences.append("One seed shows no spread: there are no intervals, and nothing is tested.")
        elif count <= 5:
            sentences.append(
                f"{count} seeds are few: the intervals are Student's t, {'very ' if count < 4 else ''}wide, and trust "
                "that runs spread about their mean like a normal distribution, which so few can't show. They cover "
                "the spread over seeds on this one choice of data, not over other episodes."
            )
        if count > 1 and self.tested > 1:
            sentences.append(f"{self.tested} differences are tested at 95 % each: of 20, one seems shown by chance.")
        if BASELINE not in self.arms:
            sentences.append(f"Without the arm {BASELINE} there is nothing to take differences from.")
        return tuple(sentences)

    @property
    def tested(self) -> int:
        """How many verdicts there are."""
        return sum(2 * len(comparison.differences) for metric, comparison in self.metrics if metric.shared)


def read_run(folder: Path, arm: str, seed: int, stage: str) -> RunRecord:
    """A finished run's measurements. Raises UserError when it has no checkpoint."""
    series = {name: points for (name, of), points in read_series(folder / METRICS).items() if of == stage}
    steps = int(read_description(latest_checkpoint(folder))["step"])
    before, seconds = 0.0, 0.0
    for step, each in sorted(series.get("speed/step_seconds", {}).items()):
        seconds, before = seconds + each * (step - before), step
    return RunRecord(arm, seed, str(folder), steps, seconds, series)


def data_of(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """What all runs were trained on. Raises UserError unless it is the same, naming a run that differs."""
    keys = ("data", "data_fingerprints", "selection", "holdout", "stride", "pad", "balance")
    found = [read_description(latest_checkpoint(Path(run.folder))) for run in runs]
    facts = [{key: description.get(key) for key in keys} for description in found]
    for run, theirs in zip(runs, facts, strict=True):
        if {**theirs, "data": None} != {**facts[0], "data": None}:
            raise UserError(
                f"{run.folder} was trained on other data than {runs[0].folder}: move it away, so that it is trained "
                "anew, or choose another out."
            )
    return facts[0]


def compare_runs(runs: Sequence[RunRecord], metrics: Sequence[Metric]) -> tuple[tuple[Metric, MetricComparison], ...]:
    """Every metric that all runs measured at a step in common."""
    arms = dict.fromkeys(run.arm for run in runs)
    found = []
    for metric in metrics:
        series = {arm: [run.series.get(metric.name, {}) for run in runs if run.arm == arm] for arm in arms}
        comparison = compare(metric.name, metric.higher_is_better, series, BASELINE)
        if comparison is not None:
            found.append((metric, comparison))
    return tuple(found)


def costs(runs: Sequence[RunRecord], batch_size: int, blocks: int) -> tuple[ArmCost, ...]:
    """What each arm's runs took."""
    arms = dict.fromkeys(run.arm for run in runs)
    found = []
    for arm in arms:
        ours = [run for run in runs if run.arm == arm]
        steps, sequences = ours[0].steps, ours[0].steps * batch_size
        mean = sum(run.seconds for run in ours) / len(ours)
        found.append(ArmCost(arm, len(ours), steps, sequences, sequences * blocks, mean))
    return tuple(found)


def new_comparison_folder(out: Path) -> Path:
    """Makes the first free <out>/comparisons/NNN, counting from 001, and returns it."""
    number = 1
    while True:
        folder = out / FOLDER / f"{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def write_numbers(folder: Path, transfer: Transfer) -> None:
    """transfer.json with everything, and transfer.csv with a line for every value: arm, seed, step, metric, value."""
    content = plain(transfer) | {"cautions": list(transfer.cautions)}
    content["metrics"] = [plain(metric) | plain(comparison) for metric, comparison in transfer.metrics]
    write_json(folder / "transfer.json", content)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(("arm", "seed", "step", "metric", "value"))
    for metric, comparison in transfer.metrics:
        for arm in comparison.arms:
            for step, mean in zip(comparison.steps, arm.curve, strict=True):
                for seed, value in zip(transfer.seeds, mean.seeds, strict=True):
                    writer.writerow((arm.arm, seed, f"{step:g}", metric.name, f"{value:.6g}"))
    write_text(folder / "transfer.csv", lines.getvalue())
