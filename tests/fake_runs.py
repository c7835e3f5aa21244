"""Runs with evaluations that never happened, for tests of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_results import fake_results, write_metrics

from jowa.evaluation.play.modes import RANDOM
from jowa.evaluation.results.baselines import with_comparisons
from jowa.evaluation.results.results import ModeResult, Results, write_results
from jowa.evaluation.statistics.profiles import performance_profile
from jowa.evaluation.statistics.scores import BootstrapConfig, aggregate_score, game_score
from jowa.games import reference

RENAMED = {"Pong": "Phoenix", "Breakout": "Assault", "Pooyan": "Pong"}
"""Two games that the paper's tables have, and one that they don't."""


def evaluation(games: Sequence[str] = tuple(RENAMED.values()), better: float = 0.0, **changes: Any) -> Results:
    """Three ways of playing; `better` is added to all returns but chance's."""
    results = fake_results()
    modes = tuple(_renamed(mode, games, 0.0 if mode.mode == RANDOM else better) for mode in results.modes)
    references = {game: reference(game) for game in games}
    roms = dict.fromkeys(games, "60e0")
    return replace(results, **({"modes": modes, "references": references, "roms": roms} | changes))


def _renamed(mode: ModeResult, games: Sequence[str], better: float) -> ModeResult:
    played = [replace(one, game=RENAMED[one.game], episode_return=one.episode_return + better) for one in mode.episodes]
    return rescored(replace(mode, episodes=tuple(one for one in played if one.game in games)), games)


def rescored(mode: ModeResult, games: Sequence[str]) -> ModeResult:
    """The statistics anew after a change of the episodes."""
    bootstrap = BootstrapConfig(resamples=200)
    returns = {game: [one.episode_return for one in mode.of(game)] for game in games}
    lengths = {game: [one.agent_steps for one in mode.of(game)] for game in games}
    references = {game: reference(game) for game in games}
    return replace(
        mode,
        games=tuple(game_score(game, returns[game], lengths[game], references[game], bootstrap) for game in games),
        human_normalised=aggregate_score(returns, references, "human", bootstrap),
        dqn_normalised=aggregate_score(returns, references, "dqn", bootstrap),
        human_profile=performance_profile(returns, references, "human", bootstrap),
        dqn_profile=performance_profile(returns, references, "dqn", bootstrap),
    )


def stored(run: Path, results: Results | None = None, number: str = "001") -> Path:
    """A run's folder with metrics and an evaluation; the evaluation's folder."""
    folder = run / "evaluations" / number
    folder.mkdir(parents=True)
    write_metrics(run / "metrics.jsonl")
    evaluated = results or evaluation()
    checkpoint = str(run / "checkpoints" / "stage2-00000004")
    write_results(folder / "results.json", with_comparisons(replace(evaluated, checkpoint=checkpoint), None))
    return folder
