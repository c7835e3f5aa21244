"""The report's part about training: what the run logged, theme by theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jowa.evaluation.pages import page
from jowa.evaluation.pages.plots import stage_colour, training_curve
from jowa.evaluation.results.curves import POINTS, Curve, meaning, stage_spans

_LOSSES = ("total", "observation", "reward", "end", "reconstruction", "squared_error", "perceptual", "quantisation")
_Q = ("td", "conservative_all", "conservative_data")
_MOST = 60


@dataclass(frozen=True)
class Theme:
    """Curves that belong together: those whose subject `takes` is true for; `folded` ones are shown on demand."""

    title: str
    explanation: str
    takes: Callable[[str], bool]
    folded: bool = False


_THEMES = (
    Theme(
        "Losses of the world model and the tokenizer",
        "What training minimises: falling is good, and so are dots (held-out episodes) that stay near their curve. "
        "Dots that rise while the curve falls mean learning by heart.",
        lambda subject: subject in _LOSSES,
    ),
    Theme(
        "Losses of Q",
        "Of the value of actions. These needn't fall: their targets move with Q itself.",
        lambda subject: subject in _Q,
    ),
    Theme(
        "Codes, rewards and ends",
        "What of the next step is predicted right, and how varied the codes are: rising is good.",
        lambda subject: subject.startswith(("world/", "codes/")),
    ),
    Theme(
        "Play while training",
        "Episodes played now and then during training: few, so they jump.",
        lambda subject: subject.startswith("evaluation/"),
    ),
    Theme("Game by game", "The same for single games.", lambda subject: subject.startswith("game/"), folded=True),
    Theme(
        "Speed and memory",
        "What training cost.",
        lambda subject: subject.startswith(("speed/", "memory/")),
        folded=True,
    ),
    Theme("Everything else", "Gradients, learning rates and other metrics.", lambda subject: True, folded=True),
)


def training(curves: Sequence[Curve]) -> str:
    """How training went."""
    if not curves:
        return ""
    spans = stage_spans(curves)
    legend = [(stage, stage_colour(stage, list(spans))) for stage in spans]
    if any(curve.held_out for curve in curves):
        legend.append(("held-out episodes", "ink"))
    explanation = (
        "What the run logged, over training steps (updates of the weights), with a dashed line where the next stage "
        f"begins. Curves of more than {POINTS} points show averages over equal spans."
    )
    content = [page.legend(legend)]
    for theme, subjects in themed(curves):
        figures = [
            page.figure(subject, training_curve(subject, parts, spans), meaning(subject))
            for subject, parts in list(subjects.items())[:_MOST]
        ]
        text = theme.explanation
        if len(subjects) > _MOST:
            text += f" The first {_MOST} of {len(subjects)} metrics; the rest are in metrics.jsonl."
        body = f'<p class="note">{text}</p>{page.grid(figures)}'
        named = f"{theme.title} ({len(subjects)} metrics)"
        content.append(
            page.details(named, body) if theme.folded else f'<h3 style="margin-top: 28px">{theme.title}</h3>{body}'
        )
    return page.section("Training", explanation, *content)


def themed(curves: Sequence[Curve]) -> list[tuple[Theme, dict[str, list[Curve]]]]:
    """The curves by theme and subject, each where it first fits, well-known losses in their usual order."""
    places = {subject: place for place, subject in enumerate((*_LOSSES, *_Q))}
    groups: list[tuple[Theme, dict[str, list[Curve]]]] = [(theme, {}) for theme in _THEMES]
    # Held-out curves come last, so that they are drawn over the others.
    for curve in sorted(curves, key=lambda curve: (places.get(curve.subject, len(places)), curve.held_out)):
        subjects = next(subjects for theme, subjects in groups if theme.takes(curve.subject))
        subjects.setdefault(curve.subject, []).append(curve)
    return [(theme, subjects) for theme, subjects in groups if subjects]
