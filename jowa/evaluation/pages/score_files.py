"""The tables of scores as files: CSV to plot from, Markdown to read, LaTeX to print."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jowa.evaluation.pages.published_report import Cell, Table
from jowa.evaluation.pages.score_tables import MEASURES, board_table
from jowa.evaluation.results.scoreboard import KINDS, Column, Scoreboard, aggregate
from jowa.evaluation.statistics.improvement import Improvement
from jowa.evaluation.statistics.scores import Estimate, GameScore
from jowa.files import write_text

ALL_GAMES = "all games"
HEAD = ("run", "mode", "game", "measure", "value", "low", "high", "episodes", "distinct")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "–": "--", "…": r"\ldots{}", "×": r"$\times$", "ε": r"$\varepsilon$",
}  # fmt: skip


def write_tables(folder: Path, board: Scoreboard, title: str) -> None:
    """Writes scores.csv, scores.md and scores.tex."""
    table = board_table(board, title)
    texts = {"scores.csv": as_csv(board), "scores.md": as_markdown(table), "scores.tex": as_latex(table)}
    for name, text in texts.items():
        write_text(folder / name, text)


def as_csv(board: Scoreboard) -> str:
    """A line for every number, units in the measures' names; full precision, empty where there is no interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEAD)
    for column in board.columns:
        for score in column.mode.games:
            writer.writerows(_game_lines(column, score))
        writer.writerows(_summary_lines(column))
    for one in board.baselines:
        writer.writerows((one.name, "published", game, "mean_return_points", one.mean(game), "", "", "", "")
                         for game in one.returns)  # fmt: skip
    writer.writerows(_improvement_line(board, found) for found in board.improvements)
    return buffer.getvalue()


def as_markdown(table: Table) -> str:
    """A Markdown document of the table."""
    rows = [table.head, ("---", *("--:" for _ in table.head[1:])), *(map(_one_line, row) for row in table.rows)]
    lines = "\n".join(
        f"| {' | '.join(cell if i == 1 else _markdown(cell) for cell in row)} |" for i, row in enumerate(rows)
    )
    return "\n\n".join([f"# {_markdown(table.title)}", lines, *map(_markdown, table.text)]) + "\n"


def as_latex(table: Table) -> str:
    r"""A table environment for \input, in booktabs' style; needs \usepackage{booktabs}."""
    rows = [" & ".join(map(latex, map(_one_line, row))) + r" \\" for row in table.rows]
    reading, *notes = table.text
    return "\n".join([
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(table.title)}. {latex(reading)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex, table.head)) + r" \\",
        r"    \midrule",
        *(f"    {row}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\smallskip\footnotesize {latex(note)}" for note in notes),
        r"\end{table}",
        "",
    ])  # fmt: skip


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))


def _one_line(cell: Cell) -> str:
    return f"{cell.value} {cell.detail}".strip()


Line = Sequence[object]


def _game_lines(column: Column, score: GameScore) -> Iterator[Line]:
    def line(measure: str, value: Estimate | float) -> Line:
        numbers = (value.value, value.low, value.high) if isinstance(value, Estimate) else (value, "", "")
        return (column.run, column.mode.mode, score.game, measure, *numbers, score.episodes, score.distinct)

    yield line("mean_return_points", score.mean)
    yield line("median_return_points", score.median)
    yield line("mean_length_agent_steps", score.mean_agent_steps)
    for measure, value in (("human_normalised", score.human_normalised), ("dqn_normalised", score.dqn_normalised)):
        if value is not None:
            yield line(measure, value)


def _improvement_line(board: Scoreboard, found: Improvement) -> Line:
    ours = next(column for column in board.columns if column.name == found.ours)
    measure = f"probability_of_improvement_over {found.theirs}"
    value = found.probability
    return (ours.run, ours.mode.mode, ALL_GAMES, measure, value.value, value.low, value.high, "", "")


def _summary_lines(column: Column) -> Iterator[Line]:
    for kind in KINDS:
        found = aggregate(column.mode, kind)
        if found is None:
            continue
        distinct = sum(score.distinct for score in column.mode.games if score.game in found.games)
        for measure in MEASURES:
            value: Estimate = getattr(found, measure)
            name = f"{kind}_normalised_{measure}"
            yield (column.run, column.mode.mode, ALL_GAMES, name, value.value, value.low, value.high,
                   found.episodes, distinct)  # fmt: skip
