"""Scores as tables: one row a game and a row for each summary over games, a column for each player."""

from __future__ import annotations

from jowa.evaluation.pages.published_report import Cell, Table
from jowa.evaluation.results.results import distinct_episodes
from jowa.evaluation.results.scoreboard import KINDS, Scoreboard, aggregate, baseline_aggregate
from jowa.evaluation.statistics.scores import AggregateScore, Estimate, GameScore, Normalisation

MEASURES = {
    "pooled_interquartile_mean": "IQM of episodes",
    "interquartile_mean": "IQM of game means",
    "median": "Median of game means",
    "mean": "Mean of game means",
    "optimality_gap": "Optimality gap",
}
"""The summaries over games, by their names in results.json."""

OF_EPISODES = ("pooled_interquartile_mean", "optimality_gap")
"""Those that can't be known from the games' means."""


def board_table(board: Scoreboard, title: str) -> Table:
    """Raw means by game with intervals and counts of distinct episodes, then the normalised scores' summaries.

    Its text is the caption, then a note for every difference and warning.
    """
    head = ["Game"]
    for column in board.columns:
        head += [f"{column.label} (game points)", "Distinct episodes"]
    head += [f"{board.label(one.name)} (game points)" for one in board.baselines]
    rows = [_game_row(board, game) for game in board.games]
    for kind in KINDS:
        rows += _summary_rows(board, kind)
    notes = (f"Note: {text}" for text in (*board.differences, *board.warnings))
    return Table(title, (caption(board), *notes), tuple(head), tuple(rows))


def caption(board: Scoreboard) -> str:
    """How to read the table, and under which rules the scores came about."""
    bootstrap = board.bootstrap
    text = (
        f"Mean return in raw game points with its {100 * bootstrap.confidence:g} % interval in brackets (stratified "
        f"bootstrap over episodes, {bootstrap.resamples:,} resamples, seed {bootstrap.seed}), and how many episodes "
        "differ from all earlier ones in return or length. Normalised scores have no unit: 0 is random play, 1 the "
        "human tester or DQN. IQM, interquartile mean; an optimality gap is a mean shortfall from 1, the lower the "
        f"better. {board.conditions}"
    )
    means = [board.label(one.name) for one in board.baselines if one.means_only]
    if board.baselines:
        text += " Published scores are the paper's, under its own rules."
    return text + (f" Only means were published of {', '.join(means)}." if means else "")


def bracketed(estimate: Estimate, digits: int) -> Cell:
    """The number and its interval in brackets."""
    return Cell(_text(estimate.value, digits), f"[{_text(estimate.low, digits)}, {_text(estimate.high, digits)}]")


def _game_row(board: Scoreboard, game: str) -> tuple[Cell, ...]:
    cells = [Cell(game)]
    for column in board.columns:
        cells += _game_cells(column.mode.game(game))
    for one in board.baselines:
        mean = one.mean(game)
        cells.append(Cell("–" if mean is None else _text(mean, 1)))
    return tuple(cells)


def _game_cells(score: GameScore | None) -> tuple[Cell, Cell]:
    return (Cell("–"), Cell("–")) if score is None else (bracketed(score.mean, 1), Cell(distinct_episodes(score)))


def _summary_rows(board: Scoreboard, kind: Normalisation) -> list[tuple[Cell, ...]]:
    found = [aggregate(column.mode, kind) for column in board.columns]
    if not any(found):
        return []
    games = max(len(one.games) for one in found if one)
    theirs = [baseline_aggregate(board, one, kind) for one in board.baselines]
    rows = []
    for measure, label in MEASURES.items():
        cells = [Cell(f"{label}, {KINDS[kind]}", f"({games} game{'s' if games != 1 else ''})")]
        for one in found:
            cells += [_summary_cell(one, measure), Cell("")]
        for one, baseline in zip(theirs, board.baselines, strict=True):
            unknown = baseline.means_only and measure in OF_EPISODES
            cell = _summary_cell(None if unknown else one, measure)
            cells.append(Cell(cell.value) if baseline.means_only else cell)
        rows.append(tuple(cells))
    return rows


def _summary_cell(one: AggregateScore | None, measure: str) -> Cell:
    return Cell("–") if one is None else bracketed(getattr(one, measure), 3)


def _text(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")
