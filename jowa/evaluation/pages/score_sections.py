"""The report's sections on scores over games: summaries, performance profiles, and who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from jowa.evaluation.pages import page
from jowa.evaluation.pages.plots import Bar
from jowa.evaluation.pages.score_figures import Line, estimates, profiles
from jowa.evaluation.pages.score_tables import MEASURES, OF_EPISODES
from jowa.evaluation.results.scoreboard import KINDS, Scoreboard, aggregate, baseline_aggregate, profile
from jowa.evaluation.statistics.improvement import Improvement
from jowa.evaluation.statistics.scores import Estimate, Normalisation

NOTHING_NORMALISED = (
    '<p class="note">No published reference scores are known for these games, so nothing is normalised.</p>'
)
_READING = {
    "pooled_interquartile_mean": "Mean of the middle half of all episodes in one list: what the package rliable calls "
    "the IQM.",
    "interquartile_mean": "Mean of the middle half of the games, each counting with its mean: the paper's headline. "
    "With fewer than four games none is left out.",
    "median": "The game in the middle.",
    "mean": "One very good game can lift it alone.",
    "optimality_gap": "By how much episodes fall short of 1, on average: lower is better, and beyond 1 nothing is "
    "gained.",
}


def summaries(board: Scoreboard) -> str:
    """Every summary over games, in both normalisations."""
    kinds = [kind for kind in KINDS if any(aggregate(column.mode, kind) for column in board.columns)]
    if not kinds:
        return page.section("Over all games", "One number for all games.", NOTHING_NORMALISED)
    explanation = (
        "One number for all games, from normalised scores: 0 is random play, 1 the human tester or DQN. No summary is "
        "the right one: they differ in what they leave out. <b>Lines</b> are intervals: episodes are drawn anew within "
        "each game, the games stay the same."
    )
    first, *others = ((kind, _summary(board, kind)) for kind in kinds)
    folded = (page.details(f"The same {KINDS[kind]}", content) for kind, content in others)
    return page.section("Over all games", explanation, first[1], *folded)


def _summary(board: Scoreboard, kind: Normalisation) -> str:
    rows = _rows(board, kind)
    title = f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}"
    cards = []
    for measure, name in MEASURES.items():
        bars = [Bar(row.label, row.colour, one.value, one) for row in rows if (one := row.estimates.get(measure))]
        spoken = "; ".join(f"{bar.label} {bar.value:.3f}" for bar in bars)
        drawing = estimates(f"{kind}-{measure}", bars, f"{name}, {KINDS[kind]}: {spoken}")
        cards.append(page.figure(name, drawing, _READING[measure]))
    cells = [[page.cell(row.label), *(_cell(row.estimates.get(measure)) for measure in MEASURES)] for row in rows]
    table = page.table([title, *MEASURES.values()], cells)
    return _of_games(board, kind, title) + page.grid(cards) + page.details("As a table", table)


def _of_games(board: Scoreboard, kind: Normalisation, title: str) -> str:
    """Which games are summed up."""
    found = next(one for column in board.columns if (one := aggregate(column.mode, kind)))
    text = f"{title}: {', '.join(found.games)}."
    if found.left_out:
        text += f" Not among them, for want of a reference score: {', '.join(found.left_out)}."
    return f'<p class="note">{escape(text)}</p>'


@dataclass(frozen=True)
class _Row:
    """Someone's summaries by measure."""

    label: str
    colour: str
    estimates: Mapping[str, Estimate]


def _rows(board: Scoreboard, kind: Normalisation) -> list[_Row]:
    """Every player, and the baselines that have all their games; of mere means without what takes episodes."""
    rows = []
    for column in board.columns:
        found = aggregate(column.mode, kind)
        if found is not None:
            rows.append(_Row(column.label, column.colour, {name: getattr(found, name) for name in MEASURES}))
    for one in board.baselines:
        found = baseline_aggregate(board, one, kind)
        if found is not None:
            known = [name for name in MEASURES if not (one.means_only and name in OF_EPISODES)]
            rows.append(_Row(board.label(one.name), "published", {name: getattr(found, name) for name in known}))
    return rows


def performance(board: Scoreboard) -> str:
    """The performance profiles."""
    figures = []
    for kind, name in KINDS.items():
        found = [(column, profile(column.mode, kind)) for column in board.columns]
        lines = [Line(column.label, column.colour, one) for column, one in found if one is not None]
        if lines:
            halves = ", ".join(f"{line.label} {page.share(_above(line, 0.5))}" for line in lines)
            text = f"Above half of the way to 1: {halves}."
            figures.append(page.figure(f"{name[0].upper()}{name[1:]}", profiles(kind, lines, f"{name}. {text}"), text))
    if not figures:
        return ""
    explanation = (
        "Which share of all episodes scores <b>more than τ</b>, for every normalised score τ: the higher the line, the "
        "better, and where it crosses 50 % lies the median episode. Bands are intervals, each for its own τ."
    )
    legend = page.legend([(column.label, column.colour) for column in board.columns])
    return page.section("Performance profiles", explanation, legend, page.grid(figures))


def _above(line: Line, threshold: float) -> float:
    return line.profile.share[line.profile.thresholds.index(threshold)]


def beating(board: Scoreboard) -> str:
    """One player's probabilities of improvement over the others, or the others' over one."""
    found = board.improvements
    if not found:
        return ""
    by_one = len({one.ours for one in found}) == 1
    names = [one.theirs if by_one else one.ours for one in found]
    rows = [
        Bar(board.label(name), _colour(board, name), one.probability.value, one.probability)
        for name, one in zip(names, found, strict=True)
    ]
    ours, theirs = (board.label(found[0].ours), "…") if by_one else ("…", board.label(found[0].theirs))
    spoken = "; ".join(f"{bar.label} {page.share(bar.value)}" for bar in rows)
    drawing = estimates("improvement", rows, f"Probability of improvement, {ours} over {theirs}: {spoken}", middle=0.5)
    title = f"{ours} over {theirs} ({_games(found)})"
    reading = explanation_of_improvement(board, found)
    return page.section("Who beats whom", reading, page.grid([page.figure(title, drawing)]), by_game(board, found))


def explanation_of_improvement(board: Scoreboard, found: Sequence[Improvement]) -> str:
    """How to read a probability of improvement (HTML)."""
    text = (
        "The <b>probability of improvement</b>: how likely one episode of the one scores more than one of the other in "
        "the same game, equal scores counting half, on average over the games both have. 50 % is as good as each "
        "other; it says how often, not by how much. Intervals draw the episodes of both anew."
    )
    means = dict.fromkeys(board.label(one.theirs) for one in found if one.means_only)
    if means:
        text += (
            f" Of {escape(', '.join(means))} only means were published: episodes are compared with the mean, which "
            "stays as it is."
        )
    return text


def by_game(board: Scoreboard, found: Sequence[Improvement]) -> str:
    """The probabilities' parts, shown on demand."""
    games = dict.fromkeys(game for one in found for game in one.games)
    pairs = [f"{board.label(one.ours)} over {board.label(one.theirs)}" for one in found]
    rows = [
        [page.cell(game), *(page.share(one.by_game.get(game)) for one in found)]
        for game in games
    ]  # fmt: skip
    return page.details("Game by game", page.table(["Game", *pairs], rows))


def _colour(board: Scoreboard, name: str) -> str:
    return next((column.colour for column in board.columns if column.name == name), "published")


def _games(found: Sequence[Improvement]) -> str:
    numbers = sorted({len(one.games) for one in found})
    span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return f"{span} game{'s' if span != '1' else ''}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return page.cell(page.number(estimate.value), f"{page.number(estimate.low)} … {page.number(estimate.high)}")
