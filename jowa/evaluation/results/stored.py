"""Evaluations on disk: which one is of a given agent, and what its results.json holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING
from jowa.evaluation.results.folder import EVALUATIONS, RESULTS
from jowa.evaluation.results.protocol_names import protocol_name

QUICK = "quick"
_KEYS = ("created", "command", "checkpoint", "protocol", "seed", "bootstrap", "modes", "roms", "versions", "warnings")
_TUNING = ("first_seed", "episodes", "same_weights", "same_protocol")
_SCORE = ("episodes", "repeated", "median", "minimum", "maximum", "mean_agent_steps")


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation's folder and the content of its results.json."""

    folder: Path
    results: dict[str, Any]

    def is_of(self, weights: str) -> bool:
        """Whether it played the agent whose weights have that hash."""
        return bool(self.results.get("weights") == weights)

    @property
    def protocol(self) -> str | None:
        """The name of its rules, None if they have none."""
        return protocol_name(self.results["protocol"])

    @property
    def episodes(self) -> int:
        """Those of all games in the agent's best way of playing."""
        modes = {mode["mode"]: mode for mode in self.results["modes"]}
        best = modes.get(PLANNING) or modes.get(NO_PLANNING)
        return sum(score["episodes"] for score in best["games"]) if best else 0

    @property
    def rank(self) -> tuple[bool, int]:
        """The higher, the more it says: a full protocol that has a name, then episodes."""
        return self.protocol not in (None, QUICK), self.episodes

    @property
    def label(self) -> str:
        """Its folder, rules and episodes in words."""
        return f"{self.folder} (protocol {self.protocol or 'without a name'}, {self.episodes:,} episodes)"


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


def find_evaluation(run: Path, checkpoint: Path, weights: str) -> tuple[StoredEvaluation | None, str]:
    """The finished evaluation of this agent that says most, and a sentence on the choice, or on why there is none.

    Those of a full protocol that has a name come first, then those of most episodes, then the latest. They are in the
    run's folder; a folder that was exported, as the checkpoint's may be, is an evaluation itself.

    Raises:
        UserError: none is of this agent, and one of them is damaged.
    """
    numbered = [path for path in (run / EVALUATIONS).glob("*") if path.name.isdigit()]
    folders = [*sorted(numbered, key=lambda path: int(path.name), reverse=True), *dict.fromkeys((run, checkpoint))]
    finished = [path for path in folders if (path / RESULTS).is_file()]
    found: list[StoredEvaluation] = []
    damage: list[UserError] = []
    for folder in finished:
        try:
            found.append(read_evaluation(folder))
        except UserError as error:
            damage.append(error)
    own = [evaluation for evaluation in found if evaluation.is_of(weights)]
    if own:
        best = max(own, key=lambda evaluation: evaluation.rank)
        return best, _choice(best, len(own) - 1, len(damage))
    if damage:
        raise damage[0]
    if not finished:
        return None, f"{run} holds no finished evaluation"
    return None, f"the evaluations in {run} are of other checkpoints"


def _choice(best: StoredEvaluation, others: int, damaged: int) -> str:
    """Which evaluation was taken, and what else there is."""
    kinds = ((others, "of this checkpoint too"), (damaged, "damaged, or of another jowa"))
    more = [f"{count} {'is' if count == 1 else 'are'} {what}" for count, what in kinds if count]
    rest = f" Of the others {' and '.join(more)}: evaluation=<folder> chooses." if more else ""
    return f"The card tells of the evaluation {best.label}.{rest}"


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
        tuning = results.get("tuning") or {}
        numbers |= {f"tuning's {key}": tuning[key] for key in _TUNING} if tuning else {}
        mappings = [results[key] for key in ("protocol", "roms", "versions")]
        mappings += [mode["planner"] for mode in results["modes"]]
        config = results.get("config", {})
        mappings += [config, config.get("planner", {})]
        sentences = [*results["warnings"], *(mode["mode"] for mode in results["modes"])]
    except (KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    wrong = [name for name, number in numbers.items() if not isinstance(number, int | float)]
    if wrong:
        return f"{wrong[0]} is no number"
    plain = all(isinstance(one, dict) for one in mappings) and all(isinstance(one, str) for one in sentences)
    return None if plain else "parts of it are not what they should be"
