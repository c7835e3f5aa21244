"""Who is shown beside whom: ways of playing or runs in columns, published baselines beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.results.baselines import baselines
from jowa.evaluation.results.labels import label
from jowa.evaluation.results.protocol_names import rules
from jowa.evaluation.results.results import ModeResult, Results
from jowa.evaluation.results.tuning_notes import how_tuned
from jowa.evaluation.statistics.improvement import Contender, Improvement
from jowa.evaluation.statistics.profiles import Profile
from jowa.evaluation.statistics.scores import AggregateScore, BootstrapConfig, Normalisation, aggregate_score
from jowa.games import ReferenceScores

KINDS: dict[Normalisation, str] = {"human": "human-normalised", "dqn": "DQN-normalised"}
MODE_COLOURS = {RANDOM: "random", NO_PLANNING: "greedy", PLANNING: "planning"}


@dataclass(frozen=True)
class Column:
    """One player's scores: its name in `improvements`, a label, the run they are of, how it plays, and its colour."""

    name: str
    label: str
    run: str
    mode: ModeResult
    colour: str


@dataclass(frozen=True)
class Scoreboard:
    """Players side by side with published baselines.

    `games` are the table's rows, `conditions` the rules of play in a sentence, `labels` what the names in
    `improvements` are shown as where that is not `label`'s answer. `differences` make runs hard to compare, `warnings`
    are what a reader must know before believing the numbers.
    """

    columns: tuple[Column, ...]
    baselines: tuple[Contender, ...]
    games: tuple[str, ...]
    references: Mapping[str, ReferenceScores]
    bootstrap: BootstrapConfig
    conditions: str
    improvements: tuple[Improvement, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def label(self, name: str) -> str:
        """What someone who is compared is called."""
        return self.labels.get(name) or label(name)


def board_of(results: Results) -> Scoreboard:
    """One evaluation's ways of playing."""
    return Scoreboard(
        columns=tuple(
            Column(mode.mode, label(mode.mode), results.name, mode, MODE_COLOURS.get(mode.mode, "planning"))
            for mode in results.modes
        ),
        baselines=tuple(baselines(tuple(results.baselines), [results.model], results.games)),
        games=results.games,
        references=results.references,
        bootstrap=results.bootstrap,
        conditions=conditions(results),
        improvements=results.improvements,
        warnings=results.warnings,
    )


def conditions(results: Results) -> str:
    """The rules of play, and on what the planner was tuned."""
    return " ".join([rules(results.protocol), *([how_tuned(results.tuning)] if results.tuned else [])])


def aggregate(mode: ModeResult, kind: Normalisation) -> AggregateScore | None:
    """A way of playing's summaries in one normalisation."""
    return mode.human_normalised if kind == "human" else mode.dqn_normalised


def baseline_aggregate(board: Scoreboard, one: Contender, kind: Normalisation) -> AggregateScore | None:
    """A baseline's summaries over the games of the players' own, None unless it has all of these."""
    wanted = {aggregated.games for column in board.columns if (aggregated := aggregate(column.mode, kind))}
    if len(wanted) != 1 or not set(next(iter(wanted))) <= set(one.returns):
        return None
    returns = {game: one.returns[game] for game in next(iter(wanted))}
    return aggregate_score(returns, board.references, kind, board.bootstrap)


def profile(mode: ModeResult, kind: Normalisation) -> Profile | None:
    """A way of playing's performance profile in one normalisation."""
    return mode.human_profile if kind == "human" else mode.dqn_profile
