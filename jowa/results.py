"""Rebuild the paper's tables from the scores its authors published, and show what else their episodes tell.

    python -m jowa.results
    python -m jowa.results out=published

Prints the tables. With out=<new folder> it also writes report.html, results.md and results.json there. Needs no model
and no data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from jowa import __version__
from jowa.cli import run
from jowa.errors import UserError
from jowa.evaluation.pages.published_formats import as_html, as_markdown, as_text
from jowa.evaluation.results.published import PublishedTables, published_tables
from jowa.evaluation.statistics.scores import BootstrapConfig, check_bootstrap
from jowa.files import require_writable_folder, write_json, write_text


@dataclass(frozen=True)
class ResultsConfig:
    """out: a folder to write to, new or empty; nothing is written if null."""

    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    out: str | None = None


def main(config: ResultsConfig) -> None:
    check_bootstrap(config.bootstrap)
    folder = None if config.out is None else output_folder(config.out)
    tables = published_tables(config.bootstrap)
    print(as_text(tables))
    if folder is None:
        print("\nAs a page, Markdown and JSON: python -m jowa.results out=<new folder>")
    else:
        write(folder, tables)
        print(f"\nReport: {folder / 'report.html'}\nMarkdown: {folder / 'results.md'}")
        print(f"Numbers: {folder / 'results.json'}")


def output_folder(out: str) -> Path:
    """The folder, made if need be. Raises UserError when it can't be written or isn't empty."""
    folder = require_writable_folder(out, "out")
    if any(folder.iterdir()):
        raise UserError(f"out={out} isn't empty: choose another out.")
    return folder


def write(folder: Path, tables: PublishedTables) -> None:
    """The tables as numbers, as Markdown and as a page. Equal settings make equal files."""
    write_json(folder / "results.json", {"jowa": __version__, "paper": "arXiv 2410.00564", **asdict(tables)})
    write_text(folder / "results.md", as_markdown(tables))
    write_text(folder / "report.html", as_html(tables))


if __name__ == "__main__":
    run(main, ResultsConfig, "results")
