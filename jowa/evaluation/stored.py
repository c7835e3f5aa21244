"""Evaluations on disk: which one is of a given agent, and what its results.json holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.evaluation.folder import EVALUATIONS, RESULTS

_KEYS = ("created", "command", "checkpoint", "protocol", "seed", "bootstrap", "modes", "roms", "versions", "warnings")
_SCORE = ("episodes", "repeated", "median", "minimum", "maximum", "mean_agent_steps")


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation's folder and the content of its results.json."""

    folder: Path
    results: dict[str, Any]

    def is_of(self, weights: str) -> bool:
        """Whether it played the agent whose weights have that hash."""
        return bool(self.results.get("weights") == weights)


def read_evaluation(folder: Path) -> StoredEvaluation:
    """Raises UserError when there is no results.json, or it is damaged or another program's."""
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(f"evaluation={folder} holds no {RESULTS}: give the folder of a finished evaluation.")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in _KEYS if key not in results]
        reason = f"it lacks {lacking[0]}" if lacking else _flaw(results)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error)
    if reason is not None:
        raise UserError(
            f"{path} is damaged, or of another jowa ({reason}): choose another evaluation, or evaluation=none."
        )
    return StoredEvaluation(folder, results)


def find_evaluation(run: Path, weights: str) -> tuple[StoredEvaluation | None, str]:
    """The latest finished evaluation in a run's folder that is of this agent, or else why there is none.

    A folder that was exported is an evaluation itself.
    """
    numbered = [path for path in (run / EVALUATIONS).glob("*") if path.name.isdigit()]
    folders = [*sorted(numbered, key=lambda path: int(path.name), reverse=True), run]
    finished = [path for path in folders if (path / RESULTS).is_file()]
    for folder in finished:
        evaluation = read_evaluation(folder)
        if evaluation.is_of(weights):
            return evaluation, ""
    if not finished:
        return None, f"{run} holds no finished evaluation"
    return None, f"the evaluations in {run} are of other checkpoints"


def _flaw(results: dict[str, Any]) -> str | None:
    """What a card needs and isn't there, or isn't a number."""
    try:
        scores = [score for mode in results["modes"] for score in mode["games"]]
        numbers = {
            f"{score['game']}'s {key}": values[key]
            for score in scores
            for values, keys in ((score, _SCORE), (score["mean"], ("value", "low", "high")))
            for key in keys
        }
        numbers["confidence"] = results["bootstrap"]["confidence"]
        mappings = [results[key] for key in ("protocol", "roms", "versions")]
        mappings += [mode["planner"] for mode in results["modes"]]
        sentences = [*results["warnings"], *(mode["mode"] for mode in results["modes"])]
    except (KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    wrong = [name for name, number in numbers.items() if not isinstance(number, int | float)]
    if wrong:
        return f"{wrong[0]} is no number"
    plain = all(isinstance(one, dict) for one in mappings) and all(isinstance(one, str) for one in sentences)
    return None if plain else "parts of it are not what they should be"
