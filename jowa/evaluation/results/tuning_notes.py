"""What a reader of a tuned result must know: on which episodes the planner's settings were chosen, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CHOSEN = "context, width and horizon were chosen"


def how_tuned(tuning: Mapping[str, Any]) -> str:
    """On which episodes, in a sentence; `tuning` is that of the results."""
    first, number = tuning["first_seed"], tuning["episodes"]
    episodes, seeds = (
        ("episode", f"seed {first}") if number == 1 else ("episodes", f"seeds {first} to {first + number - 1}")
    )
    return f"The planner's {_CHOSEN} for each game on {number} other {episodes} of it, {seeds}."


def tuning_warnings(tuning: Mapping[str, Any]) -> list[str]:
    """Why the settings may be unfit, or favoured more than they should be."""
    sentences = []
    if not tuning.get("same_weights", True):
        sentences.append(f"The planner's {_CHOSEN} for other weights than those that were evaluated.")
    if not tuning.get("same_protocol", True):
        sentences.append(f"The planner's {_CHOSEN} under other rules of play than those of the reported episodes.")
    repeated = tuning.get("repeated_episodes", 0)
    if repeated:
        equal = "1 reported episode equals" if repeated == 1 else f"{repeated} reported episodes equal"
        sentences.append(
            f"{equal} one that the settings were chosen on: the game, the return and the length are the same, so that "
            "it may be the same play, and the scores favour the settings."
        )
    return sentences
