"""The page of a transfer comparison, its table for the terminal, and the sentences both say."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np

from jowa.evaluation.pages import page
from jowa.evaluation.pages.plots import COLOURS, drawing, svg
from jowa.evaluation.results.results import plain
from jowa.evaluation.results.transfer_results import BASELINE, Metric, Transfer
from jowa.evaluation.statistics.transfer_statistics import (
    BETTER,
    NOT_SHOWN,
    UNTESTED,
    WORSE,
    Difference,
    Mean,
    MetricComparison,
)

ARM_COLOURS = {"pretrained": "planning", "tokenizer": "greedy", "scratch": "data"}
ARM_DASHES: dict[str, Any] = {"pretrained": "-", "tokenizer": (0, (4, 2)), "scratch": (0, (1.5, 1.5))}
ARM_MEANINGS = {
    "pretrained": "Begins with the whole checkpoint.",
    "tokenizer": "Begins with the checkpoint's tokenizer and a fresh world-action model.",
    "scratch": "Begins with nothing but the checkpoint's sizes.",
}


def render(transfer: Transfer) -> str:
    """The page's HTML."""
    body = [
        _header(transfer),
        _cautions(transfer),
        _verdicts(transfer),
        _curves(transfer),
        _values(transfer),
        _cost(transfer),
        _conditions(transfer),
    ]
    return page.page(f"{transfer.game}: what transfers", body)


def sentences(transfer: Transfer) -> list[str]:
    """One for each difference that is tested, at the end of training and over the whole of it."""
    return [
        _sentence(metric, difference, at_the_end)
        for metric, comparison in transfer.metrics
        if metric.shared
        for difference in comparison.differences
        for at_the_end in (True, False)
    ]


def _sentence(metric: Metric, difference: Difference, at_the_end: bool) -> str:
    mean = difference.final if at_the_end else difference.area
    found = difference.final_verdict if at_the_end else difference.area_verdict
    when = "after the last step" if at_the_end else "on average over training"
    conclusion = {
        BETTER: f"{difference.arm} is better than {difference.baseline}",
        WORSE: f"{difference.arm} is worse than {difference.baseline}",
        NOT_SHOWN: "no difference is shown",
        UNTESTED: "without any spread over seeds nothing is tested",
    }[found]
    amount = f"{difference.arm} − {difference.baseline} is {with_interval(mean)}"
    return f"{metric.label} {when}: {conclusion} ({amount})."


def with_interval(mean: Mean) -> str:
    """The value with its interval in brackets, if it has one."""
    if mean.low is None or mean.high is None:
        return short(mean.value)
    return f"{short(mean.value)} [{short(mean.low)}, {short(mean.high)}]"


def short(value: float) -> str:
    """About three digits and a true minus sign."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else "0"


def table(transfer: Transfer) -> str:
    """Final values and areas of every arm and metric, and all verdicts, for the terminal."""
    rows = [["metric", "arm", "at the end", "mean over training"]]
    for metric, comparison in transfer.metrics:
        for number, arm in enumerate(comparison.arms):
            label = "" if number else metric.label + ("" if metric.shared else " *")
            rows.append([label, arm.arm, with_interval(arm.final), with_interval(arm.area)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if any(not metric.shared for metric, _ in transfer.metrics):
        lines.append("* measured by each arm in its own terms: arms can't be compared by it.")
    if len(transfer.seeds) > 1:
        lines.append(f"Means over {len(transfer.seeds)} seeds [95 % intervals, Student's t].")
    return "\n".join([*lines, "", *sentences(transfer), *(f"Note: {caution}" for caution in transfer.cautions)])


def _header(transfer: Transfer) -> str:
    seeds = f"{len(transfer.seeds)} seed{'s' if len(transfer.seeds) != 1 else ''}"
    return (
        f"<header><h1>{escape(transfer.game)}: what transfers</h1>"
        f'<p class="note">Finetuned on the same episodes for the same number of steps, with {seeds} each, from '
        f"different starts. Compared {escape(transfer.created)}, checkpoint "
        f"<code>{escape(transfer.checkpoint)}</code>. {escape(transfer.data['episodes'])}</p></header>"
    )


def _cautions(transfer: Transfer) -> str:
    items = "".join(f"<li>{escape(caution)}</li>" for caution in transfer.cautions)
    return f'<div class="warning"><p><b>Read this with care.</b></p><ul>{items}</ul></div>' if items else ""


def _verdicts(transfer: Transfer) -> str:
    """The differences from the baseline."""
    rows = [
        [
            page.cell(metric.label, f"{difference.arm} − {difference.baseline}"),
            _difference_cell(difference.final), _verdict_cell(difference.final_verdict),
            _difference_cell(difference.area), _verdict_cell(difference.area_verdict),
        ]
        for metric, comparison in transfer.metrics
        if metric.shared
        for difference in comparison.differences
    ]  # fmt: skip
    if not rows:
        return ""
    explanation = (
        f"Each arm minus <b>{BASELINE}</b>, seed by seed, and the mean of these differences with its 95 % interval "
        "(Student's t). <b>At the end</b>: after the last step. <b>Over training</b>: the mean height of the curve, "
        "which is the area under it divided by the steps it spans. <b>Better</b> and <b>worse</b> are said where the "
        "interval leaves out 0; for losses, less is better."
    )
    head = ["", "At the end", "Verdict", "Over training", "Verdict"]
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(transfer))
    return page.section("Verdicts", explanation, page.table(head, rows), page.details("In words", f"<ul>{said}</ul>"))


def _difference_cell(mean: Mean) -> str:
    sign = "+" if mean.value > 0 else ""
    return page.cell(f"{sign}{short(mean.value)}", _interval(mean))


def _interval(mean: Mean) -> str:
    return "" if mean.low is None or mean.high is None else f"{short(mean.low)} … {short(mean.high)}"


def _verdict_cell(found: str) -> str:
    shown = {BETTER: f'<span class="yes">{found}</span>', WORSE: f"<b>{found}</b>"}
    return shown.get(found, f'<span class="no">{escape(found)}</span>')


def _curves(transfer: Transfer) -> str:
    shared = [page.figure(m.label, curve(m, c), m.meaning) for m, c in transfer.metrics if m.shared]
    others = [page.figure(m.label, curve(m, c), m.meaning) for m, c in transfer.metrics if not m.shared]
    several = len(transfer.seeds) > 1
    explanation = (
        "Over training steps, from before the first one where that was measured. <b>Bold</b>: the mean over seeds. "
        f"{'<b>Shaded</b>: its 95 % interval, cut off where it leaves the frame. ' if several else ''}"
        "<b>Thin</b>: single seeds. Before the first step those of an arm without fresh parts are one and the same "
        "agent."
    )
    colours = page.legend([(arm, ARM_COLOURS[arm]) for arm in transfer.arms])
    more = page.details("Measured by each arm in its own terms", page.grid(others)) if others else ""
    return page.section("Learning curves", explanation, colours, page.grid(shared), more)


def curve(metric: Metric, comparison: MetricComparison) -> str:
    """One metric of all arms over training steps."""
    with drawing(metric.name, (3.6, 2.1), {"axes.grid": True, "axes.grid.axis": "y"}) as figure:
        axes = figure.add_axes((0.15, 0.13, 0.81, 0.82))
        marker = "o" if len(comparison.steps) < 3 else None
        for arm in comparison.arms:
            colour, steps = COLOURS[ARM_COLOURS[arm.arm]], comparison.steps
            for seed in np.array([mean.seeds for mean in arm.curve]).T:
                axes.plot(steps, seed, color=colour, linewidth=0.7, alpha=0.6, marker=marker, markersize=2)
            # Dashes, since arms that share a tokenizer may have the very same curve.
            means, dashes = [mean.value for mean in arm.curve], ARM_DASHES[arm.arm]
            axes.plot(steps, means, color=colour, linestyle=dashes, linewidth=2, marker=marker, markersize=4)
        low, high = axes.get_ylim()
        for arm in comparison.arms:
            ends = [(mean.low, mean.high) for mean in arm.curve if mean.low is not None and mean.high is not None]
            if ends:
                colour = COLOURS[ARM_COLOURS[arm.arm]]
                lower, upper = np.array(ends).T
                axes.fill_between(comparison.steps, lower, upper, color=colour, alpha=0.15, linewidth=0)
        # A t interval of few seeds would leave the curves themselves a flat line.
        room = 0.25 * (high - low)
        axes.set_ylim(low - room, high + room)
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", nbins=5)
        axes.set_axisbelow(True)
        return svg(figure, f"transfer-{metric.name}", f"{metric.label} over training steps, by start")


def _values(transfer: Transfer) -> str:
    rows = []
    for metric, comparison in transfer.metrics:
        own = "" if metric.shared else ", own terms"
        for when, means in (
            ("at the end", [arm.final for arm in comparison.arms]),
            ("over training", [arm.area for arm in comparison.arms]),
        ):
            cells = [page.cell(short(mean.value), _interval(mean)) for mean in means]
            rows.append([page.cell(metric.label, f"{when}{own}"), *cells])
    explanation = (
        "The mean over seeds after the last step, and of the curve's mean height, with 95 % intervals over seeds. What "
        "is measured in <b>own terms</b> compares no arms."
    )
    return page.section("Values", explanation, page.table(["", *transfer.arms], rows))


def _cost(transfer: Transfer) -> str:
    rows = [
        [page.cell(cost.arm, ARM_MEANINGS[cost.arm]),
         *(page.cell(f"{value:,}") for value in (cost.runs, cost.steps, cost.sequences, cost.transitions)),
         page.cell(short(cost.seconds))]
        for cost in transfer.cost
    ]  # fmt: skip
    explanation = (
        "What each run was given: <b>optimiser steps</b>, <b>sequences</b> (steps times batch), and the "
        "<b>transitions</b> they have room for, padding included; all arms read the same episodes again and again. "
        "<b>Seconds</b> are the mean of a run's training steps without evaluation, and depend on what else the machine "
        "did. What pretraining had cost before isn't counted."
    )
    head = ["", "Runs", "Optimiser steps", "Sequences", "Transitions", "Seconds"]
    return page.section("Equal cost", explanation, page.table(head, rows))


def _conditions(transfer: Transfer) -> str:
    facts = [("Command", transfer.command), ("Seeds", ", ".join(map(str, transfer.seeds)))]
    facts += [(key.replace("_", " "), json.dumps(value)) for key, value in transfer.data.items()]
    return page.section(
        "How it was measured",
        "Runs of one seed share the order of the data and, where they are fresh, the first weights of the world-action "
        "model. Every evaluation plays the same episodes' seeds.",
        page.details("Data and seeds", page.definitions(facts)),
        page.details("Software", page.definitions([(key, str(value)) for key, value in transfer.versions.items()])),
        page.details("Configuration", f"<pre>{escape(json.dumps(plain(transfer.config), indent=2))}</pre>"),
    )
