"""The report's page: its frame, its style, and small pieces of HTML. Nothing in it is fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from string import Template

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2430; --muted: #667085; --line: #e3e1da;
  --random: #98a2b3; --data: #b08a3e; --greedy: #2f7f86; --planning: #4a56c4;
  --published: #667085; --run1: #4a56c4; --run2: #c2571a; --run3: #2f7f86; --run4: #a8327e; --run5: #7a6a12;
  --run6: #3f7d3a; --run7: #c0293f; --run8: #1f7fc4; --run9: #7c4a2d; --run10: #5b6470;
  --good: #1e7d4f; --warn-bg: #fdf3dc;
  --warn: #7a4f01; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171c; --card: #1b1f26; --ink: #e6e8ec; --muted: #98a1af; --line: #2d333d;
  --random: #8791a1; --data: #d3ab5c; --greedy: #55b3ba; --planning: #8f9bff;
  --published: #98a1af; --run1: #8f9bff; --run2: #f08c4f; --run3: #55b3ba; --run4: #e57fbf; --run5: #cbb84a;
  --run6: #7cc276; --run7: #ff7d8c; --run8: #6db8f0; --run9: #c79a7b; --run10: #b4bcc8;
  --good: #63c493; --warn-bg: #33290f;
  --warn: #f0c876; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 56px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
.note { color: var(--muted); font-size: 14px; }
.note b { color: var(--ink); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 26px 0 8px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.card .label { color: var(--muted); font-size: 13px; }
.card .value { font-size: 30px; font-weight: 650; letter-spacing: -0.02em; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.card .detail { color: var(--muted); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 14px;
  margin: 16px 0; }
.grid .card .detail { margin: 4px 0 6px; line-height: 1.4; }
.grid .card { padding: 14px 14px 8px; min-width: 0; }
.grid svg { display: block; width: 100%; height: auto; max-width: 480px; }
svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 16px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--muted); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
td:first-child { font-weight: 600; }
td small { display: block; font-weight: 400; color: var(--muted); font-size: 12px; }
.yes { color: var(--good); font-weight: 600; }
.no { color: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 13px; color: var(--muted); margin: 8px 0 0; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
.legend .again { mask: repeating-linear-gradient(90deg, #000 0 3px, transparent 3px 4px); }
.warning { background: var(--warn-bg); color: var(--warn); border-radius: 10px; padding: 12px 16px; margin: 16px 0;
  font-size: 14px; }
.warning p { max-width: none; margin: 0; } .warning ul { margin: 6px 0 0; padding-left: 20px; }
figure { margin: 0 0 14px; } figcaption { color: var(--muted); font-size: 13px; margin-top: 6px; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 14px;
  margin: 16px 0; }
.films video, .films img { display: block; width: 100%; border-radius: 6px; background: #000;
  image-rendering: pixelated; }
.wide { overflow-x: auto; } .wide img { display: block; width: 100%; min-width: 620px; }
.rows { display: grid; grid-template-columns: max-content 1fr; gap: 12px; }
.rows .names { display: grid; grid-template-rows: repeat(3, 1fr); align-items: center; color: var(--muted);
  font-size: 13px; }
details { border: 1px solid var(--line); border-radius: 10px; background: var(--card); padding: 10px 16px;
  margin: 12px 0; }
summary { cursor: pointer; font-weight: 500; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.5; margin: 10px 0 4px; }
code { font-size: 0.92em; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; font-size: 14px; margin: 12px 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) { main { padding: 24px 14px 60px; } dl { grid-template-columns: 1fr;
  } dd { margin-bottom: 6px; }
  th, td { padding: 8px 10px; } th { white-space: normal; overflow-wrap: anywhere; min-width: 11ch; }
  th:first-child, td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 26vw; max-width: 36vw; }
  }
@media print { .card, .scroll, details { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML document around ready pieces of HTML."""
    return _PAGE.substitute(title=escape(title), style=_STYLE, body="\n".join(piece for piece in body if piece))


def section(title: str, explanation: str, *content: str) -> str:
    """A titled section: what one looks at in a sentence or two (HTML), then the thing itself."""
    return "\n".join(
        (f"<section>\n<h2>{escape(title)}</h2>", f'<p class="note">{explanation}</p>', *content, "</section>")
    )


def card(label: str, value: str, detail: str) -> str:
    """A headline number with its name and one line about it; plain text."""
    return (
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{escape(value)}</div>'
        f'<div class="detail">{escape(detail)}</div></div>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready HTML cells; the first column is the row's name."""
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def cell(value: str, detail: str = "") -> str:
    """A number with a smaller line below it; plain text."""
    return escape(value) + (f"<small>{escape(detail)}</small>" if detail else "")


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """Names and values; plain text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items) + "</dl>"


def figure(title: str, drawing: str, explanation: str = "") -> str:
    """A titled drawing (HTML) on a card of its own, with a line of plain text below it."""
    line = f'<p class="detail">{escape(explanation)}</p>' if explanation else ""
    return f'<div class="card"><h3>{escape(title)}</h3>{drawing}{line}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names (plain text) and the colours that stand for them; one that comes again is hatched, as its lines are."""
    colours = [colour for _, colour in entries]
    names = "".join(
        f'<span><i{" class=again" if colour in colours[:number] else ""} style="background: var(--{colour})"></i>'
        f"{escape(name)}</span>"
        for number, (name, colour) in enumerate(entries)
    )
    return f'<div class="legend">{names}</div>'


def grid(cards: Sequence[str]) -> str:
    """Cards (HTML) side by side, as many as fit."""
    return f'<div class="grid">{"".join(cards)}</div>'


def image(content: bytes, description: str, media_type: str = "image/png") -> str:
    """An embedded picture."""
    return f'<img alt="{escape(description)}" src="{data_url(media_type, content)}">'


def captioned(content: str, caption: str) -> str:
    """Ready HTML with a line of plain text below it."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def details(summary: str, content: str) -> str:
    """Ready HTML that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def data_url(media_type: str, content: bytes) -> str:
    """Bytes as an address that needs no file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def number(value: float) -> str:
    """A number for reading: about four digits, thousands separated, a true minus sign."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def share(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"
