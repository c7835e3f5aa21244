"""Show several runs' evaluations side by side: tables, figures, who beats whom, and what makes them differ.

    python -m jowa.report 'runs=[runs/a,runs/b/evaluations/002]' out=comparison
    python -m jowa.report 'runs=[runs/a,runs/b]' 'labels=[with,without]' against=EDT_200M out=comparison

A run's folder stands for its latest evaluation. Writes report.html, comparison.json and the scores as CSV, Markdown and
LaTeX into the new folder `out`. Plays nothing: the evaluations are read from their results.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jowa.cli import run
from jowa.errors import UserError
from jowa.evaluation.comparison.comparison import check_against, open_entries, scoreboard
from jowa.evaluation.comparison.comparison_page import render
from jowa.evaluation.comparison.differences import differences
from jowa.evaluation.pages.score_files import write_tables
from jowa.evaluation.pages.score_tables import board_table
from jowa.evaluation.pages.table import aligned
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.results.baselines import check_baselines
from jowa.evaluation.results.labels import listed
from jowa.evaluation.results.results import plain
from jowa.evaluation.statistics.scores import BootstrapConfig, check_bootstrap
from jowa.files import require_writable_folder, write_json, write_text


@dataclass(frozen=True)
class ReportConfig:
    """runs: runs' folders (their latest evaluation counts), evaluations' folders, or results.json files. labels: what
    they are called, their folders' names if empty. mode: which way of playing is compared, the best each has if null.

    baselines: published algorithms to compare with, null for a few. against: the run or published algorithm that all
    are compared with, everybody with everybody if null. out: the folder to write to, new or empty.
    """

    runs: list[str] = field(default_factory=list)
    out: str = "???"
    labels: list[str] = field(default_factory=list)
    mode: str | None = None
    baselines: list[str] | None = None
    against: str | None = None
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)


def check(config: ReportConfig) -> None:
    """Everything that can be refused before anything is read. Raises UserError."""
    if not config.runs:
        raise UserError("runs is empty: name at least one, as in 'runs=[runs/a,runs/b]'.")
    if config.mode not in (None, RANDOM, NO_PLANNING, PLANNING):
        raise UserError(f"mode must be '{RANDOM}', '{NO_PLANNING}' or '{PLANNING}', not '{config.mode}'.")
    check_bootstrap(config.bootstrap)
    check_baselines(config.baselines)


def main(config: ReportConfig) -> None:
    check(config)
    entries = open_entries(config.runs, config.labels, config.mode)
    check_against(config.against, entries)
    folder = require_writable_folder(config.out, "out")
    if any(folder.iterdir()):
        raise UserError(f"out={config.out} isn't empty: choose another out.")
    board = scoreboard(entries, config.baselines, config.against, config.bootstrap)
    board = replace(board, differences=tuple(differences(entries)))
    title = listed([entry.label for entry in entries])
    write_tables(folder, board, title)
    sources = {entry.label: str(entry.folder) for entry in entries}
    write_json(folder / "comparison.json", {"sources": sources} | plain(board))
    write_text(folder / "report.html", render(title, entries, board))
    table = board_table(board, title)
    print(aligned([table.head, *([f"{cell.value} {cell.detail}".strip() for cell in row] for row in table.rows)]))
    for text in (*board.differences, *board.warnings):
        print(f"Note: {text}")
    print(f"Report: {folder / 'report.html'}\nNumbers: {folder / 'comparison.json'}")
    print(f"Tables: {folder / 'scores.csv'}, scores.md and scores.tex")


if __name__ == "__main__":
    run(main, ReportConfig, "report")
