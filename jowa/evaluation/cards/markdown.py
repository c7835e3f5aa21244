"""What an evaluation card is made of, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """A table whose first `text` columns are text and whose others are numbers."""
    lines = [head, [*["---"] * text, *["---:"] * (len(head) - text)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(entries: Sequence[tuple[str, str]]) -> str:
    """Names and what they stand for, one a line."""
    return "\n".join(f"- {name}: {value}" for name, value in entries)


def grouped(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Rows whose first cells are equal one after another, in the order in which the first of each comes."""
    return [row for first in dict.fromkeys(row[0] for row in rows) for row in rows if row[0] == first]
