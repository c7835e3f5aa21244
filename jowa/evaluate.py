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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from jowa import __version__
from jowa.cli import run
from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split
from jowa.data.store import EpisodeStore, has_episodes
from jowa.envs.environments import check_playable, identity
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.baselines import check_baselines, with_comparisons
from jowa.evaluation.curves import read_curves
from jowa.evaluation.discounts import discounts
from jowa.evaluation.filming import Footage, Shoot, shoot
from jowa.evaluation.folder import opened
from jowa.evaluation.held_out import HeldOut, look_at
from jowa.evaluation.ledger import Ledger, close_ledger, read_ledger
from jowa.evaluation.modes import (
    NO_PLANNING,
    PLANNING,
    RANDOM,
    Planners,
    Rules,
    planner_settings,
    planners_of,
    play_shared,
)
from jowa.evaluation.q_calibration import own_play
from jowa.evaluation.report import Exhibits, write_report
from jowa.evaluation.results import (
    DataScore,
    ModeResult,
    Results,
    installed_versions,
    score_mode,
    write_results,
)
from jowa.evaluation.rollout import episode_seeds
from jowa.evaluation.score_files import write_tables
from jowa.evaluation.scoreboard import board_of
from jowa.evaluation.scores import BootstrapConfig, check_bootstrap
from jowa.evaluation.table import score_table
from jowa.games import check_game, reference
from jowa.models.agent_files import Agent, weights_hash
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.planning.strips import dream_strips
from jowa.planning.tree_dream import TreeDream
from jowa.training.distribution import Distribution, distributed
from jowa.training.metrics import FILE as METRICS
from jowa.training.new_game import trained_games
from jowa.training.pictures import FOLDER as PICTURES
from jowa.training.session import use_threads
from jowa.training.starting_point import open_agent


@dataclass(frozen=True)
class EvaluateConfig:
    """ckpt: a run's folder, one checkpoint's, or published files (a JOWA_<size>.pt or its folder). size: refuse a
    checkpoint of another size, any if null.

    games: the games to play, those of the training data if empty. episodes: for each game and way of playing.
    environments: how many episodes, of all games together, run side by side in each process; what is played doesn't
    depend on it. execution: how imagination is computed. data: the episode store to compare with and to take held-out
    sequences from, that of the training run if null.
    world_model_sequences: held-out sequences measured, 0 for none. film_agent_steps: agent steps of each game's film.
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
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    data: str | None = None
    world_model_sequences: int = 512
    film_agent_steps: int = 300
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
    games = tuple(map(check_game, config.games or agent.description["games"]))
    check_playable(games, config.protocol)
    planners = {mode: planners_of(mode, config.planner, agent, games) for mode in config.modes}
    store = open_store(config, agent, games)
    with distributed(config.device, "device") as distribution, contextlib.ExitStack() as held:
        settings = what_decides(config, agent, games, planners)
        folder = distribution.from_main(
            lambda: held.enter_context(opened(start.folder / "evaluations", config.out, settings, config.anew))
        )
        if distribution.is_main and (unseen := unseen_games(agent, games)):
            print(f"Note: the agent was never trained on {', '.join(unseen)}.", file=sys.stderr)
        agent.tokenizer.to(distribution.device)
        agent.model.to(distribution.device)
        started = time.perf_counter()
        with going_on(folder, distribution):
            modes = evaluate_modes(config, agent, games, planners, folder, distribution)
        if not distribution.is_main:
            return
        gammas = discounts(start.folder, config.planner, games)
        held_out = held_out_evidence(config, agent, store, gammas)
        footage = film(config, agent, games, planners, distribution)
        identities = {game: identity(game, config.protocol) for game in games}
        results = Results(
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=" ".join(["python -m jowa.evaluate", *sys.argv[1:]]),
            checkpoint=str(start.checkpoint),
            weights=settings["weights"],
            model=agent.description["model"],
            protocol=asdict(config.protocol),
            config=asdict(config),
            seed=config.seed,
            bootstrap=config.bootstrap,
            modes=tuple(modes),
            data=data_scores(store),
            references={game: reference(game) for game in games},
            world_model=held_out.world_model,
            roms={game: played["rom_md5"] for game, played in identities.items() if "rom_md5" in played},
            environments={game: played for game, played in identities.items() if "environment" in played},
            versions=installed_versions(),
            wall_seconds=time.perf_counter() - started,
            held_out=agent.description["holdout"] is not None,
            unseen_games=unseen_games(agent, games),
            diagnostics=held_out.diagnostics,
            q_calibration=(*own_play(footage.mode, footage.decisions, gammas), *held_out.q_calibration),
        )
        results = with_comparisons(results, config.baselines)
        for leftover in (folder / "report.html", folder / "results.json"):
            leftover.unlink(missing_ok=True)  # of this evaluation, interrupted before it was finished
        write_report(folder / "report.html", results, exhibits(agent, start.folder, footage, held_out))
        write_tables(folder, board_of(results), f"{results.name}: scores")
        write_results(folder / "results.json", results)
    print(score_table(results))
    print(f"\nReport: {folder / 'report.html'}\nNumbers: {folder / 'results.json'}")
    print(f"Tables: {folder / 'scores.csv'}, scores.md and scores.tex")


def what_decides(
    config: EvaluateConfig, agent: Agent, games: Sequence[str], planners: Mapping[str, Planners]
) -> dict[str, Any]:
    """All that the episodes depend on: by it an interrupted evaluation is known again."""
    return {
        "jowa": __version__,
        "weights": weights_hash(agent),
        "games": list(games),
        "modes": list(config.modes),
        "episodes": config.episodes,
        "seed": config.seed,
        "protocol": asdict(config.protocol),
        "precision": config.execution.precision,
        "planners": {mode: {game: asdict(one) for game, one in own.items()} for mode, own in planners.items()},
        "roms": {game: identity(game, config.protocol) for game in games},
    }


@contextlib.contextmanager
def going_on(folder: Path, distribution: Distribution) -> Iterator[None]:
    """Says on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        if distribution.is_main:
            kept = len(read_ledger(folder))
            print(f"\n{kept} finished episodes are kept in {folder}; the same command goes on.", file=sys.stderr)
        raise


def evaluate_modes(
    config: EvaluateConfig,
    agent: Agent,
    games: tuple[str, ...],
    planners: Mapping[str, Planners],
    folder: Path,
    distribution: Distribution,
) -> list[ModeResult]:
    """Play every mode's episodes that the folder's ledger doesn't have yet; all processes get all results."""
    references = {game: reference(game) for game in games}
    rules = Rules(config.protocol, config.environments, config.execution)
    seeds = episode_seeds(config.seed, games, config.episodes)
    kept = distribution.from_main(lambda: read_ledger(folder))
    if kept and distribution.is_main:
        print(f"Going on in {folder}: {len(kept)} episodes are there already.", file=sys.stderr)
    ledger = Ledger(folder, distribution.rank)
    results = []
    for mode in config.modes:
        rollout = play_shared(mode, agent, seeds, planners[mode], rules, distribution, kept, ledger)
        results.append(score_mode(mode, planner_settings(planners[mode]), rollout, references, config.bootstrap))
    keys = [(mode, game, seed) for mode in config.modes for game, wanted in seeds.items() for seed in wanted]
    distribution.on_main(lambda: close_ledger(folder, keys))
    return results


def open_store(config: EvaluateConfig, agent: Agent, games: tuple[str, ...]) -> EpisodeStore | None:
    """The recorded data of the games played, as far as they are there; without them the report does without.

    Raises UserError when `data` names a folder that has none of them, or when data are damaged.
    """
    recorded = config.data or agent.description["data"]
    if recorded is None:
        return None
    path = Path(recorded)
    found = [game for game in games if has_episodes(path, game)]
    if not found and config.data is not None:
        raise UserError(f"data={config.data} holds no episodes of {', '.join(games)}: set data to another folder.")
    return EpisodeStore(path, found) if found else None


def data_scores(store: EpisodeStore | None) -> dict[str, DataScore]:
    if store is None:
        return {}
    tables = {game: store.tables[game].returns for game in store.games}
    return {game: DataScore(len(r), float(np.mean(r)), float(np.max(r))) for game, r in tables.items()}


def held_out_evidence(
    config: EvaluateConfig, agent: Agent, store: EpisodeStore | None, gammas: Mapping[str, float]
) -> HeldOut:
    """What the agent knows of held-out episodes; nothing where there are none."""
    holdout = agent.description["holdout"]
    if store is None or config.world_model_sequences < 1 or holdout == 0:
        return HeldOut()
    # Of a published agent nobody knows what it was trained on; the results say so.
    split: Split = "all" if holdout is None else "held_out"
    length = agent.model.config.blocks
    data = SequenceDataset(store, split=split, holdout=holdout or 0.0, length=length, stride=length)
    if not len(data):
        return HeldOut()
    return look_at(data, agent, config.world_model_sequences, config.bootstrap, gammas)


def film(
    config: EvaluateConfig,
    agent: Agent,
    games: tuple[str, ...],
    planners: Mapping[str, Planners],
    distribution: Distribution,
) -> Footage:
    """Films of the agent's best way of playing."""
    mode = max(config.modes, key=(RANDOM, NO_PLANNING, PLANNING).index)
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


def unseen_games(agent: Agent, games: Sequence[str]) -> tuple[str, ...]:
    """The games that the agent was never trained on, as far as it is known what it was trained on."""
    trained = trained_games(agent)
    return tuple(game for game in games if trained and game not in trained)


if __name__ == "__main__":
    run(main, EvaluateConfig, "evaluate")
