"""The page that shows several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jowa.evaluation.comparison.comparison import Entry
from jowa.evaluation.pages import page, score_sections
from jowa.evaluation.pages.plots import Bar, score_bars
from jowa.evaluation.pages.score_figures import overlaid, run_colour
from jowa.evaluation.results.baselines import nothing_published
from jowa.evaluation.results.curves import Curve, meaning, read_curves, stage_spans
from jowa.evaluation.results.labels import label
from jowa.evaluation.results.results import distinct_episodes
from jowa.evaluation.results.scoreboard import Scoreboard
from jowa.evaluation.statistics.improvement import Improvement
from jowa.evaluation.statistics.scores import Estimate
from jowa.training.metrics import FILE as METRICS

_CURVES_SHOWN = 6


def render(title: str, entries: Sequence[Entry], board: Scoreboard) -> str:
    """The page's HTML."""
    body = [
        _header(title, entries),
        _cautions(board),
        _scores(board),
        _bars(board),
        score_sections.summaries(board),
        score_sections.performance(board),
        _beating(board),
        _training(entries),
        _sources(entries),
    ]
    return page.page(f"{title}: comparison", body)


def _header(title: str, entries: Sequence[Entry]) -> str:
    rows = "; ".join(
        f"<b>{escape(entry.label)}</b> {escape(label(entry.mode.mode).lower())}, evaluated "
        f"{escape(entry.results.created)}"
        for entry in entries
    )
    return f'<header><h1>{escape(title)}</h1><p class="note">Side by side: {rows}.</p></header>'


def _cautions(board: Scoreboard) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in (*board.differences, *board.warnings))
    if not items:
        return ""
    return f'<div class="warning"><p><b>Compare these scores with care.</b></p><ul>{items}</ul></div>'


def _scores(board: Scoreboard) -> str:
    head = ["Game", *(column.label for column in board.columns), *(board.label(one.name) for one in board.baselines)]
    rows = []
    for game in board.games:
        cells = [page.cell(game)]
        for column in board.columns:
            score = column.mode.game(game)
            cells.append(_estimate(score.mean, f"{distinct_episodes(score)} distinct") if score else "–")
        means = (one.mean(game) for one in board.baselines)
        rows.append([*cells, *("–" if mean is None else page.cell(page.number(mean)) for mean in means)])
    explanation = (
        f"Mean return of each game's episodes in <b>raw game points</b>, below it the "
        f"<b>{100 * board.bootstrap.confidence:g} % interval</b> and how many episodes differ from all earlier ones in "
        "return or length. A dash: not played."
    )
    if board.baselines:
        explanation += " The last columns are <b>published</b> means, under their authors' own rules."
    elif nothing := nothing_published(board.games):
        explanation += f" {nothing}"
    return page.section("Scores", explanation, page.table(head, rows))


def _estimate(estimate: Estimate, more: str) -> str:
    detail = f"{page.number(estimate.low)} … {page.number(estimate.high)}"
    return page.cell(page.number(estimate.value), detail) + f"<small>{escape(more)}</small>"


def _bars(board: Scoreboard) -> str:
    figures = []
    for game in board.games:
        bars = []
        for column in board.columns:
            score = column.mode.game(game)
            if score is not None:
                returns = [episode.episode_return for episode in column.mode.of(game)]
                bars.append(Bar(column.label, column.colour, score.mean.value, score.mean, returns))
        means = ((one.name, one.mean(game)) for one in board.baselines)
        bars += [Bar(board.label(name), "published", mean) for name, mean in means if mean is not None]
        figures.append(page.figure(game, score_bars(game, bars)))
    explanation = "Bars are mean returns in raw game points, lines their intervals, dots single episodes."
    if board.baselines:
        explanation += " Grey bars are published means."
    return page.section("Returns, game by game", explanation, page.grid(figures))


def _beating(board: Scoreboard) -> str:
    """A table of everybody over everybody, or a figure where all are compared with one."""
    found = board.improvements
    if len({one.ours for one in found}) == 1 or len({one.theirs for one in found}) == 1:
        return score_sections.beating(board)
    by_pair = {(one.ours, one.theirs): one for one in found}
    ours = [column.label for column in board.columns]
    theirs = list(dict.fromkeys([*ours, *(one.theirs for one in found)]))
    rows = [[page.cell(row), *(_pair(by_pair, row, column) for column in theirs)] for row in ours]
    reading = score_sections.explanation_of_improvement(board, found) + " Read: the row over the column."
    table = page.table(["over …", *map(board.label, theirs)], rows)
    return page.section("Who beats whom", reading, table, score_sections.by_game(board, found)) if found else ""


def _pair(found: dict[tuple[str, str], Improvement], ours: str, theirs: str) -> str:
    if (ours, theirs) in found:
        value = found[ours, theirs].probability
    elif (theirs, ours) in found:
        other = found[theirs, ours].probability
        value = Estimate(1 - other.value, 1 - other.high, 1 - other.low)
    else:
        return "–"
    return page.cell(page.share(value.value), f"{page.share(value.low)} … {page.share(value.high)}")


def _training(entries: Sequence[Entry]) -> str:
    """The losses that at least two runs logged, over one another."""
    logged = [read_curves(entry.run / METRICS) if entry.run else [] for entry in entries]
    # One metric a loss: those of every single game and layer are in each run's own report.
    every = dict.fromkeys(curve.name for curves in logged for curve in curves)
    names = [name for name in every if name.count("/") < 2 and name.startswith(("loss/", "held_out/"))]
    figures = []
    for name in names:
        lines = [(number, run_colour(number), _placed(curves, name)) for number, curves in enumerate(logged)]
        lines = [line for line in lines if line[2]]
        if len(lines) > 1:
            subject = lines[0][2][0][0].subject
            figures.append(page.figure(name, overlaid(name, lines), meaning(subject)))
    if not figures:
        return ""
    shown, more = figures[:_CURVES_SHOWN], figures[_CURVES_SHOWN:]
    explanation = (
        "What the runs logged, over their training steps (updates of the weights), stage after stage. Values of runs "
        "with other data, sizes or losses can't be compared."
    )
    legend = page.legend([(entry.label, run_colour(number)) for number, entry in enumerate(entries)])
    folded = page.details(f"{len(more)} more metrics", page.grid(more)) if more else ""
    return page.section("Training", explanation, legend, page.grid(shown), folded)


def _placed(curves: Sequence[Curve], name: str) -> list[tuple[Curve, float]]:
    """One metric's curves, each with the training steps of the stages before its own."""
    spans = stage_spans(curves) if curves else {}
    return [(curve, spans[curve.stage][0]) for curve in curves if curve.name == name]


def _sources(entries: Sequence[Entry]) -> str:
    details = []
    for entry in entries:
        results = entry.results
        pairs = [("Folder", str(entry.folder)), ("Checkpoint", results.checkpoint), ("Command", results.command)]
        pairs += [("First seed", str(results.seed)), ("Way of playing", label(entry.mode.mode))]
        settings = {**results.protocol, **{f"planner {key}": value for key, value in entry.mode.planner.items()}}
        pairs += [(key.replace("_", " "), str(value)) for key, value in settings.items()]
        details.append(page.details(entry.label, page.definitions(pairs)))
    return page.section("Where the numbers come from", "Each run's own report tells more.", *details)
