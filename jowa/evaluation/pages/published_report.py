"""What the report on the published scores says: its tables and its sentences, whatever they are shown in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jowa.evaluation.results.published import AlgorithmRow, Comparison, GameRow, ModelRow, PublishedTables
from jowa.evaluation.statistics.scores import Estimate

TITLE = "JOWA's published scores, rebuilt"


@dataclass(frozen=True)
class Cell:
    """One entry of a table, and what stands smaller beside or below it."""

    value: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table with paragraphs of plain text, the first of which says how to read it.

    The first column names the rows.
    """

    title: str
    text: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def introduction(tables: PublishedTables) -> list[str]:
    """What this is made of, and whether what was published fits together."""
    first = tables.models[0]
    sizes = [model.size for model in tables.models]
    return [
        "Computed from what the authors of the paper (arXiv 2410.00564) published: the raw returns of "
        f"{first.episodes_per_game} episodes in each of {first.games} games for JOWA {', '.join(sizes[:-1])} and "
        f"{sizes[-1]} with planning, and mean returns by game for everything else. Nothing was played again.",
        _agreement(tables),
    ]


def cautions(tables: PublishedTables) -> list[str]:
    """What a reader must know before believing the numbers."""
    first, *others = tables.models
    counts = ", ".join(f"{model.size}: in {model.one_score_games}" for model in others)
    return [
        f"Episodes repeat. JOWA {first.size}: in {first.one_score_games} of {first.games} games at least "
        f"{first.majority} of the {first.episodes_per_game} episodes have the same score ({counts}). There are no "
        "sticky actions and no random starts, only one random action in a thousand, so play is nearly deterministic, "
        "and many episodes are likely the same game played again. The intervals count them as new trials and are "
        "narrower than episodes that truly differ would make them. Only scores can be compared: lengths were not "
        "published, and a score like 0 can be had in many ways.",
        f"Context ({_span(row.context for row in tables.games)} frames), beam width "
        f"({_span(row.width for row in tables.games)}) and horizon ({_span(row.horizon for row in tables.games)} agent "
        "steps) were picked for each model and game on the same episodes that are reported. That favours the scores "
        "with planning; these data can't tell by how much.",
        "Each row is one trained model. No interval here says what another training run would score.",
    ]


def all_tables(tables: PublishedTables) -> list[Table]:
    """The published table, the two ways of summing up the episodes, and a table of games for each model."""
    return [_published(tables), _compared(tables), *(_by_game(tables, model) for model in tables.models)]


def three(value: float | None) -> str:
    """A normalised score with three decimals and a true minus sign, or a dash."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _agreement(tables: PublishedTables) -> str:
    total = len(tables.games)
    if not tables.disagreements:
        return f"In all {total} cases (models × games) the episodes' mean is the published mean, but for rounding."
    cases = "; ".join(
        f"{row.size} {row.game}: {_raw(row.mean)} from the episodes, {_as_given(row)} published"
        for row in tables.disagreements
    )
    return f"In {len(tables.disagreements)} of {total} cases the episodes' mean is NOT the published one ({cases})."


def _published(tables: PublishedTables) -> Table:
    games = tables.models[0].games
    cut = games // 4
    text = (
        "The paper's headline: each game counts with the mean of its episodes, normalised as (score − random) / "
        "(reference − random), where the reference is a human tester (HNS) or DQN (DNS). The interquartile mean "
        f"(IQM) leaves out the lowest and the highest quarter of the {games} games, rounded down to {cut} each, "
        f"and averages the other {games - 2 * cut}."
    )
    head = ("Algorithm", "IQM HNS", "Median HNS", "IQM DNS", "Computed from")
    return Table("The published table", (text,), head, tuple(map(_algorithm, tables.algorithms)))


def _algorithm(row: AlgorithmRow) -> tuple[Cell, ...]:
    numbers = (row.human_iqm, row.human_median, row.dqn_iqm)
    return (Cell(row.label), *(Cell(three(value)) for value in numbers), Cell(row.source))


def _compared(tables: PublishedTables) -> Table:
    first, bootstrap = tables.models[0], tables.bootstrap
    reading = (
        f"Pooled: all {first.episodes} normalised episodes of a model in one list, the lowest and the highest "
        f"{first.episodes // 4} left out. In brackets the {100 * bootstrap.confidence:g} % bootstrap interval "
        f"({bootstrap.resamples:,} resamples, seed {bootstrap.seed}): episodes are drawn anew, with repetition, within "
        "each game; the games stay. Repeated: episodes whose score an earlier episode of their game had."
    )
    head = ("Model", "IQM over games", "Pooled IQM", "Pooled game means", "Repeated")
    rows = [_comparison(model, "HNS", model.human) for model in tables.models]
    rows += [_comparison(model, "DNS", model.dqn) for model in tables.models]
    return Table("The same episodes, pooled", (reading, *_why_they_differ(tables)), head, tuple(rows))


def _comparison(model: ModelRow, score: str, one: Comparison) -> tuple[Cell, ...]:
    repeated = Cell(f"{model.repeated} of {model.episodes}")
    name = Cell(f"{model.size}, {score}")
    return (name, _estimate(one.over_games), _estimate(one.pooled), Cell(three(one.pooled_game_means)), repeated)


def _why_they_differ(tables: PublishedTables) -> list[str]:
    first = tables.models[0]
    human, dqn = first.human, first.dqn
    cut, pooled_cut = first.games // 4, first.episodes // 4
    normalised = {row.game: row.human_normalised or 0.0 for row in tables.of(first.size)}
    best_counted = sorted(normalised, key=normalised.__getitem__)[-1 - cut]
    return [
        f"Why HNS of {first.size} is {three(human.pooled.value)} pooled and {three(human.over_games.value)} over "
        f"games: first, pooling leaves out more. A quarter of {first.games} games is rounded down to {cut} at each "
        f"end; a quarter of the episodes is worth {pooled_cut / first.episodes_per_game:g} games, and most of the best "
        f"game that the headline still counts ({best_counted}, {three(normalised[best_counted])}) drops out. With "
        "every episode replaced by its game's mean nothing else differs, and the result is "
        f"{three(human.pooled_game_means)} (pooled game means). Second, episodes are ranked and left out one by one, "
        f"not with their game: from {three(human.pooled_game_means)} to {three(human.pooled.value)}.",
        f"Neither number is the true one, and pooling does not always lower a score: DNS of {first.size} goes from "
        f"{three(dqn.over_games.value)} to {three(dqn.pooled.value)}. Quote a score with its way of summing up.",
    ]


def _by_game(tables: PublishedTables, model: ModelRow) -> Table:
    text = (
        f"In {model.one_score_games} of {model.games} games at least {model.majority} of the "
        f"{model.episodes_per_game} episodes have the same score."
    )
    if model is tables.models[0]:
        text += (
            " Mean: of the episodes' raw game points; published: the same as the paper gives it. Different: how many "
            "different scores the episodes have; same: how many episodes have the most frequent one. Context: frames "
            "given to the planner; width: futures kept; horizon: agent steps looked ahead."
        )
    head = ("Game", "Mean", "Published", "HNS", "DNS", "Different", "Same", "Context", "Width", "Horizon")
    title = f"JOWA {model.size} with planning, game by game"
    return Table(title, (text,), head, tuple(map(_game, tables.of(model.size))))


def _game(row: GameRow) -> tuple[Cell, ...]:
    cells = (
        row.game,
        _raw(row.mean),
        _as_given(row) + ("" if row.agrees else " (differs)"),
        three(row.human_normalised),
        three(row.dqn_normalised),
        f"{row.distinct}",
        f"{row.commonest} of {row.episodes}",
        f"{row.context}",
        f"{row.width}",
        f"{row.horizon}",
    )
    return tuple(map(Cell, cells))


def _estimate(estimate: Estimate) -> Cell:
    return Cell(three(estimate.value), f"[{three(estimate.low)}, {three(estimate.high)}]")


def _raw(points: float) -> str:
    """Two decimals show that means of 16 whole scores were rounded to one."""
    return f"{points:,.2f}".replace("-", "−")


def _as_given(row: GameRow) -> str:
    return f"{row.published_mean:,}".replace("-", "−")


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
