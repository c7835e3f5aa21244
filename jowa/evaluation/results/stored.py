"""Evaluations on disk: which one is of a given agent, and what its results.json holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING
from jowa.evaluation.results.folder import EVALUATIONS, RESULTS
from jowa.evaluation.results.protocol_names import protocol_name
from jowa.evaluation.results.reading import read_results
from jowa.evaluation.results.results import content_of

QUICK = "quick"


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
        return StoredEvaluation(folder, content_of(read_results(path)))
    except UserError as error:
        raise UserError(f"{error} A card can do without it: choose another evaluation, or evaluation=none.") from error


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
