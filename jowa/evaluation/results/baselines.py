"""The published algorithms an agent is compared with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jowa.errors import UserError
from jowa.evaluation.results.published import ALGORITHMS, with_planning
from jowa.evaluation.results.results import ModeResult, Results
from jowa.evaluation.statistics.improvement import Contender, improvement
from jowa.published_scores import PUBLISHED_SIZES, official_evaluation, published_means

_USUAL = (with_planning("150M"), "MGDT_200M", "EDT_200M")


def check_baselines(names: Sequence[str] | None) -> None:
    """Raises UserError for a name that nobody published under, or one given twice."""
    for name in names or ():
        if name not in ALGORITHMS:
            plain = {algorithm.lower(): algorithm for algorithm in ALGORITHMS}
            close = difflib.get_close_matches(name.lower().replace(" ", "_"), plain, n=1, cutoff=0.4)
            advice = f"did you mean '{plain[close[0]]}'?" if close else f"choose among {', '.join(ALGORITHMS)}."
            raise UserError(f"Unknown published algorithm '{name}' (key 'baselines'): {advice}")
    if names and len(set(names)) != len(names):
        raise UserError(f"baselines names an algorithm twice: {', '.join(names)}.")


def usual_baselines(models: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What is compared with if nobody says: JOWA of the models' sizes and its largest, and two of its rivals."""
    own = [with_planning(model["name"]) for model in models if model.get("name") in PUBLISHED_SIZES]
    return tuple(dict.fromkeys((*own, *_USUAL)))


def baselines(
    names: Sequence[str] | None, models: Sequence[Mapping[str, Any]], games: Sequence[str]
) -> list[Contender]:
    """The chosen ones (None: the usual ones) as far as scores in any of the games were published."""
    found = (published(name, games) for name in (usual_baselines(models) if names is None else names))
    return [one for one in found if one.returns]


def nothing_published(games: Sequence[str]) -> str:
    """Says so where published scores exist in none of the games; else empty."""
    known = set[str]().union(*published_means().values())
    return "" if known & set(games) else f"Published scores exist for {len(known)} games; none of them is among these."


def published(name: str, games: Sequence[str]) -> Contender:
    """One algorithm's raw returns where episodes were published, else its games' means."""
    sizes = {with_planning(size): size for size in PUBLISHED_SIZES}
    if name in sizes:
        evaluation = official_evaluation(sizes[name])
        return Contender(name, {game: evaluation[game].returns for game in games if game in evaluation})
    means = published_means()[name]
    return Contender(name, {game: (means[game],) for game in games if game in means}, means_only=True)


def contender(mode: ModeResult, name: str) -> Contender:
    """A way of playing under the name it is to have."""
    return Contender(name, {score.game: [one.episode_return for one in mode.of(score.game)] for score in mode.games})


def with_comparisons(results: Results, names: Sequence[str] | None) -> Results:
    """The results with the chosen baselines' means, and the agent's best way of playing against all others.

    Whoever was named and has no score in any of the games stays with none.
    """
    chosen = baselines(names, [results.model], results.games)
    named: dict[str, dict[str, float]] = {name: {} for name in names or ()}
    means = named | {one.name: {game: one.mean(game) or 0.0 for game in one.returns} for one in chosen}
    best = results.best
    if best is None:
        return replace(results, baselines=means)
    ours = contender(best, best.mode)
    others = [contender(mode, mode.mode) for mode in results.modes if mode is not best]
    found = [improvement(ours, theirs, results.bootstrap) for theirs in (*others, *chosen)]
    return replace(results, baselines=means, improvements=tuple(one for one in found if one is not None))
