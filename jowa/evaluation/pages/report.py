"""The report: one HTML file that shows an evaluation and explains every number in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jowa.errors import UserError
from jowa.evaluation.films.film import Film
from jowa.evaluation.pages import page, score_sections, sections
from jowa.evaluation.pages.calibration_sections import calibration, q_calibration
from jowa.evaluation.pages.codebook_section import codebook
from jowa.evaluation.pages.curve_section import training
from jowa.evaluation.pages.horizon_section import horizons
from jowa.evaluation.pages.plots import Bar, score_bars
from jowa.evaluation.play.modes import RANDOM
from jowa.evaluation.results.baselines import nothing_published
from jowa.evaluation.results.curves import Curve
from jowa.evaluation.results.labels import LABELS, label
from jowa.evaluation.results.results import ModeResult, Results, distinct_episodes
from jowa.evaluation.results.scoreboard import MODE_COLOURS, board_of
from jowa.evaluation.statistics.scores import AggregateScore, Estimate, separated
from jowa.files import write_text
from jowa.games import GAMES
from jowa.planning.strips import Strip


@dataclass(frozen=True)
class Exhibits:
    """What a report shows beside the results: training curves, films of play, strips, and PNG files of the run."""

    curves: Sequence[Curve] = ()
    films: Sequence[Film] = ()
    strips: Sequence[Strip] = ()
    pictures: Sequence[Path] = ()


def write_report(path: Path, results: Results, exhibits: Exhibits | None = None) -> None:
    """Writes the report to a file that does not exist yet.

    Raises:
        UserError: the file exists.
    """
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: move it away or evaluate into another folder.")
    write_text(path, render(results, exhibits or Exhibits()))


def render(results: Results, exhibits: Exhibits) -> str:
    """The report's HTML."""
    board = board_of(results)
    body = [
        _header(results),
        _cards(results),
        _warnings(results),
        _score_table(results),
        _score_figures(results),
        score_sections.summaries(board),
        score_sections.performance(board),
        score_sections.beating(board),
        sections.films(exhibits.films),
        sections.world_model(results.world_model, results.held_out),
        *_diagnostics(results),
        sections.strips(exhibits.strips, exhibits.pictures),
        training(exhibits.curves),
        sections.conditions(results),
    ]
    return page.page(f"{results.name}: evaluation", body)


def _diagnostics(results: Results) -> list[str]:
    found = results.diagnostics
    parts = [q_calibration(results.q_calibration)]
    if found is None:
        return parts
    return [
        horizons(found.horizons),
        calibration(found.calibration, found.dreamed_calibration),
        *parts,
        codebook(found.codebook),
    ]


def above_random(results: Results, mode: ModeResult, game: str) -> bool | None:
    """Whether a game's mean return lies above random play's with intervals apart; None if that can't be told.

    It can't where either was not played, nor from one episode of random play, whose interval is a point, nor where the
    agent's episodes are all alike: they may be one and the same. Chance doesn't repeat itself, though returns may.
    """
    chance = results.mode(RANDOM)
    ours, theirs = mode.game(game), chance.game(game) if chance else None
    if ours is None or theirs is None or min(ours.distinct, theirs.episodes) < 2:
        return None
    return ours.mean.value > theirs.mean.value and separated(ours.mean, theirs.mean)


def _header(results: Results) -> str:
    kind = "Atari game" if set(results.games) <= set(GAMES) else "game"
    games = f"{len(results.games)} {kind}{'s' if len(results.games) != 1 else ''}"
    size = results.model.get("name")
    model = f"a world-action model of size {size}" if size else "a world-action model"
    return (
        f"<header><h1>{escape(results.name)}</h1>"
        f'<p class="note">How well {escape(model)} plays {games}, and how well it knows them. '
        f"Evaluated {escape(results.created)}, checkpoint <code>{escape(results.checkpoint)}</code>.</p></header>"
    )


def _cards(results: Results) -> str:
    mode = results.best
    cards = []
    if mode is not None:
        verdicts = [above_random(results, mode, game) for game in results.games]
        known = [verdict for verdict in verdicts if verdict is not None]
        if known:
            text = f"{sum(known)} of {len(known)}"
            cards.append(page.card("Games above random play", text, "mean return above, intervals apart"))
        for name, aggregate in (
            ("Human-normalised score", mode.human_normalised),
            ("DQN-normalised score", mode.dqn_normalised),
        ):
            if aggregate is not None:
                cards.append(_aggregate_card(name, aggregate))
    episodes = sum(len(one.episodes) for one in results.modes)
    ways = f"{len(results.modes)} way{'s' if len(results.modes) != 1 else ''} of playing"
    cards.append(page.card("Episodes played", f"{episodes:,}", f"{ways}, {_minutes(results.wall_seconds)} in all"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _aggregate_card(name: str, aggregate: AggregateScore) -> str:
    value = aggregate.interquartile_mean
    games = f"{len(aggregate.games)} game{'s' if len(aggregate.games) != 1 else ''}"
    return page.card(name, page.number(value.value), f"interquartile mean of {games}, {_interval(value)}")


def _warnings(results: Results) -> str:
    if not results.warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in results.warnings)
    return f'<div class="warning"><p><b>Read these scores with care.</b></p><ul>{items}</ul></div>'


def _score_table(results: Results) -> str:
    mode = results.best
    head = ["Game", *(label(one.mode) for one in results.modes), "Recorded data"]
    if mode is not None:
        head += ["Distinct episodes", "Human-normalised", "DQN-normalised", "Above random"]
    head += [label(name) for name in _published(results)]
    rows = [_score_row(results, mode, game) for game in results.games]
    confidence = f"{100 * results.bootstrap.confidence:.0f} %"
    explanation = (
        f"Mean return of each game's episodes in <b>raw game points</b>, below it the <b>{confidence} interval</b>: "
        f"{results.bootstrap.resamples:,} times, as many episodes as were played are drawn from them, with repetition; "
        f"{confidence} of the means so obtained lie inside. <b>Recorded data</b> is the mean of all recorded "
        "episodes. <b>Human-normalised</b> is (score − random) / (human − random) with the published "
        "scores of random play and a human tester: 0 plays like chance, 1 like the human; <b>DQN-normalised</b> puts "
        f"DQN in the human's place. Both are of play {_how(mode)}, as are the <b>distinct episodes</b>: those that "
        "differ from all earlier ones in return or length. A dash: no published score. <b>Above random</b>: "
        "the mean lies above that of the random play measured here, and the two intervals have no point in common; a "
        "dash there: too few different episodes tell."
    )
    if _published(results):
        explanation += " The last columns are <b>published</b> means, in game points, under their authors' own rules."
    elif not results.baselines and (nothing := nothing_published(results.games)):
        explanation += f" {nothing}"
    return page.section("Scores", explanation, page.table(head, rows))


def _how(mode: ModeResult | None) -> str:
    return LABELS[mode.mode].lower() if mode is not None else "at random"


def _score_row(results: Results, mode: ModeResult | None, game: str) -> list[str]:
    row = [escape(game)]
    for one in results.modes:
        score = one.game(game)
        row.append(_estimate_cell(score.mean if score else None))
    data = results.data.get(game)
    row.append(page.cell(page.number(data.mean), f"{data.episodes:,} episodes") if data else "–")
    if mode is not None:
        score = mode.game(game)
        row.append(page.cell(distinct_episodes(score) if score else "–"))
        row.append(_estimate_cell(score.human_normalised if score else None))
        row.append(_estimate_cell(score.dqn_normalised if score else None))
        row.append(_verdict(above_random(results, mode, game)))
    means = (by_game.get(game) for by_game in _published(results).values())
    return [*row, *(page.cell("–" if mean is None else page.number(mean)) for mean in means)]


def _published(results: Results) -> dict[str, Mapping[str, float]]:
    """The baselines that have scores in any of the games."""
    return {name: by_game for name, by_game in results.baselines.items() if by_game}


def _verdict(above: bool | None) -> str:
    if above is None:
        return "–"
    return '<span class="yes">yes</span>' if above else '<span class="no">not shown</span>'


def _score_figures(results: Results) -> str:
    figures = [page.figure(game, score_bars(game, _bars(results, game))) for game in results.games]
    explanation = (
        "Bars are mean returns in raw game points, lines their intervals, dots single episodes. The recorded "
        "data's mean has no dots: it is a property of the training data, not of this evaluation."
        + (" Grey bars are published means." if _published(results) else "")
    )
    return page.section("Returns, game by game", explanation, page.grid(figures))


def _bars(results: Results, game: str) -> list[Bar]:
    bars = []
    for mode in results.modes:
        score = mode.game(game)
        if score is not None:
            returns = [episode.episode_return for episode in mode.of(game)]
            colour = MODE_COLOURS.get(mode.mode, "planning")
            bars.append(Bar(label(mode.mode), colour, score.mean.value, score.mean, returns))
    if game in results.data:
        bars.insert(1, Bar("Recorded data", "data", results.data[game].mean))
    means = ((name, by_game.get(game)) for name, by_game in results.baselines.items())
    return bars + [Bar(label(name), "published", mean) for name, mean in means if mean is not None]


def _estimate_cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else page.cell(page.number(estimate.value), _interval(estimate))


def _interval(estimate: Estimate) -> str:
    return f"{page.number(estimate.low)} … {page.number(estimate.high)}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
