"""What ways of playing and published algorithms are called where people read them."""

from __future__ import annotations

from jowa.evaluation.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.published import algorithm_label

LABELS = {RANDOM: "Random play", NO_PLANNING: "Without planning", PLANNING: "With planning"}


def label(name: str) -> str:
    """A way of playing's or a published algorithm's."""
    return LABELS.get(name) or algorithm_label(name)
