"""Evaluate an agent: episodes of every game with and without planning, beside random play and the recorded data.

    python -m jowa.evaluate ckpt=runs/demo
    torchrun --nproc-per-node=2 -m jowa.evaluate ckpt=runs/demo episodes=32

Under torchrun the games are shared among the processes. Writes results.json and report.html into a new folder
<run>/evaluations/NNN.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from jowa.cli import run
from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split
from jowa.data.store import EpisodeStore, has_episodes
from jowa.envs.environments import check_playable, identity
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.curves import read_curves
from jowa.evaluation.discounts import discounts
from jowa.evaluation.filming import Footage, Shoot, shoot
from jowa.evaluation.held_out import HeldOut, look_at
from jowa.evaluation.modes import (
    NO_PLANNING,
    PLANNING,
    RANDOM,
    Rules,
    merge,
    planner_settings,
    planners_of,
    play_mode,
)
from jowa.evaluation.q_calibration import own_play
from jowa.evaluation.report import Exhibits, write_report
from jowa.evaluation.results import (
    DataScore,
    ModeResult,
    Results,
    installed_versions,
    new_evaluation_folder,
    score_mode,
    write_results,
)
from jowa.evaluation.rollout import Rollout
from jowa.evaluation.scores import BootstrapConfig, check_bootstrap
from jowa.evaluation.table import score_table
from jowa.files import require_writable_folder
from jowa.games import check_game, reference
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.planning.strips import dream_strips
from jowa.planning.tree_dream import TreeDream
from jowa.training.distribution import Distribution, distributed
from jowa.training.metrics import FILE as METRICS
from jowa.training.pictures import FOLDER as PICTURES
from jowa.training.session import use_threads
from jowa.training.starting_point import open_agent


@dataclass(frozen=True)
class EvaluateConfig:
    """ckpt: a run's folder, one checkpoint's, or published files (a JOWA_<size>.pt or its folder). size: refuse a
    checkpoint of another size, any if null.

    games: the games to play, those of the training data if empty. episodes: for each game and way of playing.
    environments: how many of a game's episodes run side by side. execution: how imagination is computed. data: the
    episode store to compare with and to take held-out sequences from, that of the training run if null.
    world_model_sequences: held-out sequences measured, 0 for none. film_agent_steps: agent steps of each game's film.
    out: where to write, <run>/evaluations/NNN if null.
    """

    ckpt: str = "???"
    size: str | None = None
    games: list[str] = field(default_factory=list)
    episodes: int = 16
    environments: int = 16
    seed: int = 0
    modes: list[str] = field(default_factory=lambda: [RANDOM, NO_PLANNING, PLANNING])
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    data: str | None = None
    world_model_sequences: int = 512
    film_agent_steps: int = 300
    device: str = "auto"
    threads: int | None = None
    out: str | None = None


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
    for mode in config.modes:
        planners_of(mode, config.planner, agent, games)
    store = open_store(config, agent, games)
    with distributed(config.device, "device") as distribution:
        folder = distribution.on_main(lambda: output_folder(config, start.folder))
        agent.tokenizer.to(distribution.device)
        agent.model.to(distribution.device)
        started = time.perf_counter()
        modes, _ = evaluate_modes(config, agent, games, distribution)
        if folder is None:
            return
        gammas = discounts(start.folder, config.planner, games)
        held_out = held_out_evidence(config, agent, store, gammas)
        footage = film(config, agent, games, distribution)
        identities = {game: identity(game, config.protocol) for game in games}
        results = Results(
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            command=" ".join(["python -m jowa.evaluate", *sys.argv[1:]]),
            checkpoint=str(start.checkpoint),
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
            diagnostics=held_out.diagnostics,
            q_calibration=(*own_play(footage.mode, footage.decisions, gammas), *held_out.q_calibration),
        )
        write_results(folder / "results.json", results)
        write_report(folder / "report.html", results, exhibits(agent, start.folder, footage, held_out))
    print(score_table(results))
    print(f"\nReport: {folder / 'report.html'}\nNumbers: {folder / 'results.json'}")


def output_folder(config: EvaluateConfig, run_folder: Path) -> Path:
    """A new folder for this evaluation. Raises UserError when it can't be written or isn't empty."""
    if config.out is None:
        return new_evaluation_folder(run_folder)
    folder = require_writable_folder(config.out, "out")
    if any(folder.iterdir()):
        raise UserError(f"out={config.out} isn't empty: choose another out.")
    return folder


def evaluate_modes(
    config: EvaluateConfig, agent: Agent, games: tuple[str, ...], distribution: Distribution
) -> tuple[list[ModeResult], list[Rollout]]:
    """Play every mode; each process plays its share of the games and all get all results."""
    references = {game: reference(game) for game in games}
    rules = Rules(
        config.protocol, config.seed, config.episodes, config.environments, config.film_agent_steps, config.execution
    )
    results, rollouts = [], []
    for mode in config.modes:
        planners = planners_of(mode, config.planner, agent, games)
        mine = games[distribution.rank :: distribution.ranks]
        rollout = play_mode(mode, agent, mine, planners, rules, distribution.device, progress=distribution.is_main)
        gathered = distribution.gather(rollout)
        whole = merge(gathered, games, seconds=max(one.seconds for one in gathered))
        results.append(score_mode(mode, planner_settings(planners), whole, references, config.bootstrap))
        rollouts.append(whole)
    return results, rollouts


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


def film(config: EvaluateConfig, agent: Agent, games: tuple[str, ...], distribution: Distribution) -> Footage:
    """Films of the agent's best way of playing."""
    mode = max(config.modes, key=(RANDOM, NO_PLANNING, PLANNING).index)
    planners = planners_of(mode, config.planner, agent, games)
    rules = Shoot(mode, config.protocol, config.seed, config.film_agent_steps, config.execution)
    return shoot(agent, planners, games, rules, distribution.device)


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
