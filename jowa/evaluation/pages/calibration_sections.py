"""The report's parts about announced probabilities and about Q: whether what they promise comes true."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jowa.evaluation.diagnostics.calibration import Calibration, Reliability
from jowa.evaluation.diagnostics.q_calibration import RECORDED, QCalibration
from jowa.evaluation.pages import page
from jowa.evaluation.pages.diagnostic_plots import q_diagram, reliability_diagram

_BLIND = 0.1
"""A correlation below which Q says nothing worth knowing."""


def calibration(given: Sequence[Calibration], dreamed: Sequence[Calibration]) -> str:
    """Announced rewards and ends."""
    if not given:
        return ""
    explanation = (
        "At every action the model announces with which probability a reward or the end follows. A dot is a group of "
        "steps with similar probabilities: across, the mean probability <b>announced</b>; up, the share in which it "
        "<b>happened</b>, with a 95 % interval. Good are dots on the dashed diagonal, and above all dots far to the "
        "right: a model that always announces the base rate lies on it too, but says nothing. A hollow dot: it never "
        f"happened in that group. {_verdict(given[0])}"
    )
    by_game: dict[str, list[Calibration]] = {}
    for one in (*given, *dreamed):
        by_game.setdefault(one.game, []).append(one)
    first, *others = by_game.values()
    note = (
        '<p class="note"><b>Calibration error</b>: by how much announced and observed shares differ, on average over '
        "steps. <b>Brier score</b>: mean squared distance of probability and event, the lower the better; to be worth "
        "anything it must be below that of always announcing the <b>base rate</b>. Rows of dreams: the frames "
        "before the action are the model's own, as far ahead as it can dream. A dash: it never happened, so nothing "
        "can be said. Intervals are Wilson's, for steps that are independent of each other; neighbouring steps of one "
        "episode are alike, so they are rather too narrow.</p>"
    )
    folded = [
        page.details(own[0].game, page.grid([card for one in own for card in _diagrams(one)]) + _table(own))
        for own in others
    ]
    return page.section(
        "Does it mean what it announces?",
        explanation,
        page.grid([card for one in first for card in _diagrams(one)]),
        _table(first),
        note,
        *folded,
    )


def _table(calibrations: Sequence[Calibration]) -> str:
    head = ["Event", "Happened", "Announced", "Calibration error", "Brier score", "Base rate's Brier"]
    return page.table(head, [_row(one, event) for one in calibrations for event in one.events])


def _verdict(one: Calibration) -> str:
    """Which events are announced better than by their base rate."""
    events = [event for event in one.events if event.happened and event.event != "any reward"]
    if not events:
        return "Here neither rewards nor ends occurred, so nothing can be said."
    better = [event.event for event in events if (event.brier or 0.0) < (event.base_brier or 0.0)]
    others = [event.event for event in events if event.event not in better]
    parts = [f"better than the base rate: {', '.join(better)}"] if better else []
    parts += [f"no better than the base rate: {', '.join(others)}"] if others else []
    return f"By the Brier score, here {'; '.join(parts)}."


def _diagrams(one: Calibration) -> list[str]:
    kind = f"after {one.agent_steps_dreamed} dreamed frames" if one.agent_steps_dreamed else "after true frames"
    return [
        page.figure(
            f"{event.event.capitalize()}, {kind}",
            reliability_diagram(
                f"reliability-{one.game}-{one.agent_steps_dreamed}-{event.event}", event,
                f"{one.game}, {event.event}, {kind}: announced and observed shares",
            ),
            f"{event.happened:,} in {event.steps:,} agent steps",
        )
        for event in one.events
        if event.happened and event.event != "any reward"
    ]  # fmt: skip


def _row(one: Calibration, event: Reliability) -> list[str]:
    kind = f", {one.agent_steps_dreamed} frames dreamed" if one.agent_steps_dreamed else ""
    return [
        page.cell(event.event, f"{one.game}{kind}"),
        page.cell(_percent(event.happened / event.steps), f"{event.happened:,} of {event.steps:,}"),
        page.cell(_percent(event.announced), "on average"),
        page.cell(_percent(event.error)),
        page.cell(_four(event.brier)),
        page.cell(_four(event.base_brier)),
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def q_calibration(games: Sequence[QCalibration]) -> str:
    """Q beside realised returns."""
    shown = [one for one in games if one.compared]
    if not shown:
        return ""
    explanation = (
        "Before each decision Q says which discounted return the action played is worth; here it stands beside what "
        "really followed, rewards clipped to −1, 0 and 1. Grey: single decisions; dots: groups of similar Q, with the "
        "middle half of their returns. Good are dots on the dashed diagonal; above it Q promised too little, below too "
        "much. Q is that of playing on <b>greedily</b>; what followed is of the play as it was, the planner's or that "
        f"of whoever was recorded. Q should also be higher before better times. {_q_verdict(shown)}"
    )
    cards = [
        page.figure(
            f"{one.game}, {_play(one)}",
            q_diagram(f"q-{one.game}-{one.play}", one, f"{one.game}: expected Q and what followed"),
            f"{one.compared:,} of {one.decisions:,} decisions in {_episodes(one)}",
        )
        for one in shown
    ]
    head = ["Game", "Mean Q", "Mean return", "Bias", "Root mean squared error", "Correlation", "Discount"]
    note = (
        '<p class="note"><b>Bias</b> is mean Q less mean return. Compared are decisions whose episode ended, or whose '
        "rest that wasn't seen is discounted to less than 5 %. Neighbouring decisions share most of what follows, so "
        "there are far fewer independent ones. <b>Distinct</b> episodes don't repeat an earlier one, action by action; "
        f"repeats count in every number here, but say nothing new.{_foreign_discount(shown)}</p>"
    )
    return page.section(
        "Does Q come true?", explanation, page.grid(cards), page.table(head, [_q_row(one) for one in shown]), note
    )


def _q_verdict(compared: Sequence[QCalibration]) -> str:
    """Where Q says nothing."""
    blind = [one for one in compared if one.correlation is None or one.correlation < _BLIND]
    if not blind:
        return ""
    where = ", ".join(f"{escape(one.game)} ({_play(one)})" for one in blind)
    return f"Here it does not in {len(blind)} of {len(compared)} comparisons (correlation below {_BLIND}): {where}."


def _foreign_discount(compared: Sequence[QCalibration]) -> str:
    """Says where returns aren't known to be discounted as in training."""
    if all(one.trained_gamma for one in compared):
        return ""
    return (
        " The discount that Q was trained with is not known here: the planner's was taken, and if they differ, so do Q "
        "and the returns."
    )


def _play(one: QCalibration) -> str:
    return "recorded play" if one.play == RECORDED else f"own play, {one.play}"


def _episodes(one: QCalibration) -> str:
    episodes = f"{one.episodes:,} episode{'s' if one.episodes != 1 else ''}"
    return episodes if one.distinct is None else f"{episodes}, {one.distinct:,} distinct"


def _q_row(one: QCalibration) -> list[str]:
    return [
        page.cell(one.game, _play(one)),
        page.cell(_signed(one.mean_q)),
        page.cell(_signed(one.mean_realised)),
        page.cell(_signed(one.bias)),
        page.cell(_signed(one.root_mean_squared_error)),
        page.cell(_signed(one.correlation)),
        page.cell(f"{one.gamma:g}", "an agent step" if one.trained_gamma else "the planner's, an agent step"),
    ]


def _signed(value: float | None) -> str:
    return "–" if value is None else page.number(value)
