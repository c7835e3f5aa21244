"""Evaluate an agent: episodes of every game with and without planning, beside random play and the recorded data.

    python -m jowa.evaluate ckpt=runs/demo
    python -m jowa.evaluate ckpt=runs/demo protocol=machado episodes=100
    torchrun --nproc-per-node=2 -m jowa.evaluate ckpt=runs/demo episodes=32

All games' episodes run through shared batches; under torchrun the processes share the episodes. Writes results.json,
report.html, episodes.jsonl and the scores as CSV, Markdown and LaTeX into a new folder <run>/evaluations/NNN. The same
command goes on with an evaluation that was interrupted: episodes that are finished are not played again.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jowa.cli import run
from jowa.envs.environments import check_playable, identity
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.diagnostics.discounts import discounts
from jowa.evaluation.diagnostics.held_out import HeldOut
from jowa.evaluation.diagnostics.q_calibration import own_play
from jowa.evaluation.films.filming import Footage, Shoot, shoot
from jowa.evaluation.pages.report import Exhibits, write_report
from jowa.evaluation.pages.score_files import write_tables
from jowa.evaluation.pages.table import score_table
from jowa.evaluation.play.measured_play import Wanted, play_wanted, unseen_games
from jowa.evaluation.play.modes import (
    NO_PLANNING,
    PLANNING,
    RANDOM,
    Planners,
    Rules,
    planner_settings,
    planners_of,
)
from jowa.evaluation.play.rollout import Rollout, episode_seeds
from jowa.evaluation.results.baselines import check_baselines, with_comparisons
from jowa.evaluation.results.curves import read_curves
from jowa.evaluation.results.folder import EVALUATIONS, opened
from jowa.evaluation.results.recorded import data_scores, held_out_evidence, open_recorded
from jowa.evaluation.results.results import (
    ModeResult,
    Results,
    installed_versions,
    score_mode,
    write_results,
)
from jowa.evaluation.results.scoreboard import board_of
from jowa.evaluation.results.tuning import Tuning, read_tuning
from jowa.evaluation.statistics.scores import BootstrapConfig, check_bootstrap
from jowa.games import reference
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.planning.strips import dream_strips
from jowa.planning.tree_dream import TreeDream
from jowa.training.distribution import Distribution, distributed
from jowa.training.metrics import FILE as METRICS
from jowa.training.pictures import FOLDER as PICTURES
from jowa.training.session import use_threads
from jowa.training.starting_point import StartingPoint, open_agent


@dataclass(frozen=True)
class EvaluateConfig:
    """ckpt: a run's folder, one checkpoint's, or published files (a JOWA_<size>.pt or its folder). size: refuse a
    checkpoint of another size, any if null.

    games: the games to play, those of the training data if empty. episodes: for each game and way of playing.
    environments: how many episodes, of all games together, run side by side in each process; what is played doesn't
    depend on it. execution: how imagination is computed. data: the episode store to compare with and to take held-out
    sequences from, that of the training run if null.
    world_model_sequences: held-out sequences measured, 0 for none. film_agent_steps: agent steps of each game's film.
    report: whether to write report.html, and to play for its films; the numbers are written anyway.
    tuned: what jowa.tune left: its folder; context, width and horizon of each game are taken from there.
    baselines: published algorithms to compare with, null for a few, [] for none. out: where to write,
    <run>/evaluations/NNN if null. anew: begin another one, though the same was interrupted.
    """

    ckpt: str = "???"
    size: str | None = None
    games: list[str] = field(default_factory=list)
    episodes: int = 16
    environments: int = 64
    seed: int = 0
    modes: list[str] = field(default_factory=lambda: [RANDOM, NO_PLANNING, PLANNING])
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    tuned: str | None = None
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    data: str | None = None
    world_model_sequences: int = 512
    film_agent_steps: int = 300
    report: bool = True
    baselines: list[str] | None = None
    device: str = "auto"
    threads: int | None = None
    out: str | None = None
    anew: bool = False


def check(config: EvaluateConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    for key in ("episodes", "environments"):
        if getattr(config, key) < 1:
            raise UserError(f"{key} must be at least 1, not {getattr(config, key)}.")
    if len(set(config.games)) != len(config.games):
        raise UserError(f"games names a game twice: {', '.join(config.games)}.")
    if not config.modes or len(set(config.modes)) != len(config.modes):
        raise UserError(f"modes must name at least one way of playing and none twice, not {config.modes}.")
    for mode in config.modes:
        if mode not in (RANDOM, NO_PLANNING, PLANNING):
            raise UserError(f"modes may hold '{RANDOM}', '{NO_PLANNING}' and '{PLANNING}', not '{mode}'.")
    if config.seed < 0:
        raise UserError(f"seed must not be negative, but is {config.seed}.")
    check_bootstrap(config.bootstrap)
    check_baselines(config.baselines)
    config.protocol.check()
    check_planner(config.planner)
    check_execution(config.execution)


def main(config: EvaluateConfig) -> None:
    check(config)
    use_threads(config.threads)
    start = open_agent(config.ckpt, config.size)
    agent = start.agent
    # Not before the agent is there: which games there are beside Atari's is in its description.
    games = tuple(config.games or agent.description["games"])
    check_playable(games, config.protocol)
    tuning = read_tuning(Path(config.tuned).expanduser()) if config.tuned is not None else None
    wanted = what_is_wanted(config, agent, games, tuning)
    store = open_recorded(config.data, agent, games)
    with distributed(config.device, "device") as distribution, contextlib.ExitStack() as held:
        settings = wanted.what_decides(agent)
        folder = distribution.from_main(
            lambda: held.enter_context(opened(start.folder / EVALUATIONS, config.out, settings, config.anew))
        )
        if distribution.is_main and (unseen := unseen_games(agent, games)):
            print(f"Note: the agent was never trained on {', '.join(unseen)}.", file=sys.stderr)
        agent.tokenizer.to(distribution.device)
        agent.model.to(distribution.device)
        started = time.perf_counter()
        rollouts = play_wanted(agent, wanted, folder, distribution)
        if not distribution.is_main:
            return
        gammas = discounts(start, config.planner, games)
        held_out = held_out_evidence(agent, store, config.world_model_sequences, config.bootstrap, gammas)
        footage = film(config, agent, wanted.planners, distribution) if config.report else Footage(RANDOM, (), {})
        weights = settings["weights"]
        results = Results(
            **conditions(config, start, games, weights),
            tuning=tuning.facts(weights, config.protocol, rollouts[PLANNING].episodes) if tuning is not None else {},
            modes=scored(config, wanted, rollouts),
            data=data_scores(store),
            world_model=held_out.world_model,
            diagnostics=held_out.diagnostics,
            q_calibration=(*own_play(footage.mode, footage.decisions, gammas), *held_out.q_calibration),
            wall_seconds=time.perf_counter() - started,
        )
        results = with_comparisons(results, config.baselines)
        write(folder, results, exhibits(agent, start.folder, footage, held_out) if config.report else None)
    tell(folder, results)


def tell(folder: Path, results: Results) -> None:
    print(score_table(results))
    print()
    if (folder / "report.html").is_file():
        print(f"Report: {folder / 'report.html'}")
    print(f"Numbers: {folder / 'results.json'}")
    print(f"Tables: {folder / 'scores.csv'}, scores.md and scores.tex")


def scored(config: EvaluateConfig, wanted: Wanted, rollouts: Mapping[str, Rollout]) -> tuple[ModeResult, ...]:
    """The statistics of every way of playing."""
    known = {game: reference(game) for game in wanted.seeds}
    return tuple(
        score_mode(mode, planner_settings(wanted.planners[mode]), rollout, known, config.bootstrap)
        for mode, rollout in rollouts.items()
    )


def what_is_wanted(config: EvaluateConfig, agent: Agent, games: tuple[str, ...], tuning: Tuning | None) -> Wanted:
    """Which episodes are played, by which planners. Raises UserError for settings that can't work."""
    planners: dict[str, Planners] = {mode: planners_of(mode, config.planner, agent, games) for mode in config.modes}
    seeds = episode_seeds(config.seed, games, config.episodes)
    if tuning is not None:
        if PLANNING not in config.modes:
            raise UserError(f"tuned={config.tuned} is for play with planning: add '{PLANNING}' to modes.")
        planners[PLANNING] = tuning.applied_to(planners[PLANNING], seeds, agent.model.config.blocks)
    return Wanted(planners, seeds, Rules(config.protocol, config.environments, config.execution))


def conditions(config: EvaluateConfig, start: StartingPoint, games: tuple[str, ...], weights: str) -> dict[str, Any]:
    """The part of the results that was known before anything was played."""
    identities = {game: identity(game, config.protocol) for game in games}
    return {
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["python -m jowa.evaluate", *sys.argv[1:]]),
        "checkpoint": str(start.checkpoint),
        "weights": weights,
        "model": start.agent.description["model"],
        "protocol": asdict(config.protocol),
        "config": asdict(config),
        "seed": config.seed,
        "bootstrap": config.bootstrap,
        "references": {game: reference(game) for game in games},
        "roms": {game: played["rom_md5"] for game, played in identities.items() if "rom_md5" in played},
        "environments": {game: played for game, played in identities.items() if "environment" in played},
        "versions": installed_versions(),
        "held_out": start.agent.description["holdout"] is not None,
        "unseen_games": unseen_games(start.agent, games),
    }


def write(folder: Path, results: Results, shown: Exhibits | None) -> None:
    """Everything into the folder, the report if there is something `shown`; results.json comes last: all is there."""
    for leftover in ("report.html", "scores.csv", "scores.md", "scores.tex"):
        (folder / leftover).unlink(missing_ok=True)  # of this evaluation, interrupted before it was finished
    if shown is not None:
        write_report(folder / "report.html", results, shown)
    write_tables(folder, board_of(results), f"{results.name}: scores")
    write_results(folder / "results.json", results)


def film(config: EvaluateConfig, agent: Agent, planners: Mapping[str, Planners], distribution: Distribution) -> Footage:
    """Films of the agent's best way of playing."""
    mode = max(config.modes, key=(RANDOM, NO_PLANNING, PLANNING).index)
    games = tuple(config.games or agent.description["games"])
    rules = Shoot(mode, config.protocol, config.seed, config.film_agent_steps, config.execution)
    return shoot(agent, planners[mode], games, rules, distribution.device)


def exhibits(agent: Agent, run_folder: Path, footage: Footage, held_out: HeldOut) -> Exhibits:
    """Curves, films and strips for the report."""
    metrics, batch = run_folder / METRICS, held_out.pictured
    return Exhibits(
        curves=read_curves(metrics) if metrics.is_file() else (),
        films=footage.films,
        strips=dream_strips(agent.tokenizer, TreeDream(agent.model), batch) if batch is not None else (),
        pictures=sorted((run_folder / PICTURES).glob("*.png"))[-1:],
    )


if __name__ == "__main__":
    run(main, EvaluateConfig, "evaluate")
