"""What ways of playing and published algorithms are called where people read them."""

from __future__ import annotations

from collections.abc import Sequence

from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.results.published import algorithm_label

LABELS = {RANDOM: "Random play", NO_PLANNING: "Without planning", PLANNING: "With planning"}


def label(name: str) -> str:
    """A way of playing's or a published algorithm's."""
    return LABELS.get(name) or algorithm_label(name)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def not_published(names: Sequence[str], games: Sequence[str]) -> str:
    """Says of published algorithms that they have no scores in any of the games."""
    return f"No scores of {listed([label(name) for name in names])} were published for {listed(games)}."
