"""The report on the published scores as text for the terminal, as Markdown and as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

from jowa.evaluation.pages import page
from jowa.evaluation.pages.plots import Bar, intervals
from jowa.evaluation.pages.published_report import TITLE, Cell, Table, all_tables, cautions, introduction, three
from jowa.evaluation.results.published import Comparison, ModelRow, PublishedTables

CAUTION = "Read these scores with care"
_COLUMNS = 110


def as_text(tables: PublishedTables) -> str:
    """Aligned columns and wrapped paragraphs."""
    published, compared, *games = all_tables(tables)
    care = [textwrap.fill(f"- {text}", _COLUMNS, subsequent_indent="  ") for text in cautions(tables)]
    parts = [_underlined(TITLE, "="), *map(_wrapped, introduction(tables)), _text(published), _text(compared)]
    parts += [_underlined(CAUTION), "\n".join(care), *map(_text, games)]
    return "\n\n".join(parts)


def as_markdown(tables: PublishedTables) -> str:
    """The same as a Markdown document."""
    published, compared, *games = all_tables(tables)
    care = "\n".join(f"- {text}" for text in cautions(tables))
    parts = [f"# {TITLE}", *introduction(tables), _markdown(published), _markdown(compared)]
    parts += [f"## {CAUTION}", care, *map(_markdown, games)]
    return "\n\n".join(parts) + "\n"


def as_html(tables: PublishedTables) -> str:
    """The same as a page that fetches nothing, with a figure of the intervals."""
    published, compared, *games = all_tables(tables)
    paragraphs = "".join(f'<p class="note">{escape(text)}</p>' for text in introduction(tables))
    care = "".join(f"<li>{escape(text)}</li>" for text in cautions(tables))
    body = [
        f"<header><h1>{escape(TITLE)}</h1>{paragraphs}</header>",
        _cards(tables.models[0]),
        f'<div class="warning"><p><b>{CAUTION}.</b></p><ul>{care}</ul></div>',
        _section(published),
        _section(compared, _figures(tables)),
        *map(_section, games),
    ]
    return page.page(TITLE, body)


def _text(table: Table) -> str:
    rows = [table.head, *map(_one_line, table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = "\n".join(_padded(row, widths) for row in rows)
    return "\n\n".join([_underlined(table.title), lines, *map(_wrapped, table.text)])


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join((row[0].ljust(widths[0]), *others))


def _markdown(table: Table) -> str:
    rows = [table.head, ("---", *("--:" for _ in table.head[1:])), *map(_one_line, table.rows)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([f"## {table.title}", lines, *table.text])


def _section(table: Table, figures: str = "") -> str:
    reading, *more = map(escape, table.text)
    rows = [[page.cell(cell.value, cell.detail) for cell in row] for row in table.rows]
    paragraphs = (f"<p>{text}</p>" for text in more)
    return page.section(table.title, reading, figures, page.table(table.head, rows), *paragraphs)


def _cards(model: ModelRow) -> str:
    cards = [
        page.card(
            f"{model.size}, IQM over games", three(model.human.over_games.value), "human-normalised, as published"
        ),
        page.card(f"{model.size}, pooled IQM", three(model.human.pooled.value), "human-normalised, same episodes"),
        page.card(
            f"{model.size}, games with one main score",
            f"{model.one_score_games} of {model.games}",
            f"the same in at least {model.majority} of {model.episodes_per_game} episodes",
        ),
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _figures(tables: PublishedTables) -> str:
    drawings = [
        _figure("Human-normalised score", [(model.size, model.human) for model in tables.models]),
        _figure("DQN-normalised score", [(model.size, model.dqn) for model in tables.models]),
    ]
    return page.legend([("IQM over games", "planning"), ("pooled IQM", "data")]) + page.grid(drawings)


def _figure(title: str, models: Sequence[tuple[str, Comparison]]) -> str:
    rows = []
    for size, one in models:
        rows.append(Bar(size, "planning", one.over_games.value, one.over_games))
        rows.append(Bar("", "data", one.pooled.value, one.pooled))
    drawing = intervals(title, rows, f"{title}: IQM over games and pooled IQM with their intervals")
    return page.figure(title, drawing, "Lines are the intervals. The axis does not start at 0.")


def _one_line(row: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(f"{cell.value} {cell.detail}".rstrip() for cell in row)


def _underlined(title: str, line: str = "-") -> str:
    return f"{title}\n{line * len(title)}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _COLUMNS)
