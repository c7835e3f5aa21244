"""Records games into an episode store: `python -m jowa.data.record`.

    python -m jowa.data.record game=[Pong,Boxing] steps=100000 workers=2
    python -m jowa.data.record game=atari15 policy=lookahead steps=3000 workers=2 out=data/mini
    python -m jowa.data.record game=Pong policy=runs/demo planner=beam epsilon=0.01
    python -m jowa.data.record game=Pong policy=sb3 steps=1000000
    python -m jowa.data.record env=minigrid:MiniGrid-Empty-5x5-v0 environment.observation=render policy=random

Every game is played until `steps` agent steps are reached; the last episode is finished, not cut. resume=true goes on
after an interruption, in which at most five minutes of play and the episodes that were running are lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jowa.cli import run
from jowa.data.sources.episode import SourceEpisode
from jowa.data.store import EpisodeWriter, has_episodes
from jowa.data.workers import GoesOn, Stopped, in_processes
from jowa.envs.environments import Environments, check_playable, make_environments
from jowa.envs.protocol import episode_seed
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.evaluation.play.rollout import Policy
from jowa.files import require_writable_folder
from jowa.games import custom_game, task_id
from jowa.planning.config import PlannerConfig
from jowa.recording.behaviours import BEHAVIOURS, make_behaviour
from jowa.recording.config import (
    RecordConfig,
    check_policy,
    games_of,
    load_sb3,
    opened_agent,
    planner_for,
    policy_name,
    provenance,
)
from jowa.recording.episodes import Advance, Recorded, Tally, capped, record_behaviour
from jowa.recording.function_player import FunctionPlayer, load_function, names_function
from jowa.recording.resuming import check_free, recording_alone, shares_left, stored_steps
from jowa.recording.side_by_side import Share, record_policy, shares

COMMIT_SECONDS = 300.0
"""After which episodes are made safe; it decides how they are cut into parts, not what they are."""


def main(config: RecordConfig) -> None:
    """Check everything, record, print a table."""
    check(config)
    rows = record(config)
    width = max(18, *(len(row.game) + 1 for row in rows))
    print(f"{'game':<{width}}{'episodes':>10}{'transitions':>13}{'mean return':>13}")
    for row in rows:
        mean = f"{row.mean_return:.1f}" if row.episodes else "there"
        print(f"{row.game:<{width}}{row.episodes:>10}{row.transitions:>13}{mean:>13}")


def check(config: RecordConfig) -> None:
    """Raise UserError for whatever would stop the recording later; nothing is written but the empty out folder."""
    for key, smallest in (("steps", 1), ("seed", 0), ("workers", 0), ("environments", 1)):
        if getattr(config, key) < smallest:
            raise UserError(f"{key} must be at least {smallest}, not {getattr(config, key)}.")
    if not 0.0 <= config.epsilon <= 1.0:
        raise UserError(f"epsilon must lie between 0 and 1, not {config.epsilon}.")
    if not config.out:
        raise UserError("out must name a folder, for the episode store.")
    config.protocol.check()
    if config.threads is not None:
        _use_threads(config)
    games = games_of(config)
    check_playable(games, config.protocol, "game")
    check_policy(config, games)
    for game in games:
        check_free(config, game)
    require_writable_folder(config.store, "out")
    for game in games:
        if has_episodes(config.store, game):
            _writer(config, game).close()


def record(config: RecordConfig) -> list[Recorded]:
    """Record every game, in this process or in `workers` others; the result doesn't depend on their number.

    UserError if another process is recording one of them, the disk is full, or a process died.
    """
    games = games_of(config)
    with recording_alone(config.store, games), ExitStack() as stack:
        there = sum(min(config.steps, sum(stored_steps(config, game).values())) for game in games)
        total = config.steps * len(games)
        bar = stack.enter_context(
            tqdm(total=total, initial=there, unit="step", desc="recording", dynamic_ncols=True)
        )  # fmt: skip
        if config.workers == 0:
            return record_games(config, games, bar.update)
        # Agents think in every process; together they shouldn't use more threads than there are cores.
        threads = config.threads or max(1, (os.cpu_count() or 1) // config.workers)
        work = partial(_record_game, replace(config, threads=threads))
        died = "A process of the recording died, for want of memory perhaps: set workers lower, and resume=true."
        return in_processes(work, games, config.workers, bar.update, died)


def _record_game(config: RecordConfig, game: str, goes_on: GoesOn) -> Recorded:
    """Record one game in a process of its own; stopped, it commits its whole episodes."""

    def advance(steps: int) -> None:
        if not goes_on(steps):
            raise Stopped

    games_of(config)  # a game that isn't Atari's must get known in this process too
    return record_games(config, [game], advance)[0]


def record_games(config: RecordConfig, games: list[str], advance: Advance) -> list[Recorded]:
    """Record some games, those that an agent can play together side by side."""
    recorded = [Recorded(game, 0, 0, 0.0) for game in games if _finished(config, game)]
    finished = {one.game for one in recorded}
    for group in _groups(config, [game for game in games if game not in finished]):
        with ExitStack() as stack:
            tallies = [_tally(config, stack.enter_context(_writer(config, game)), game) for game in group]
            if _behaves(config, group[0]):
                _record_behaviour(config, tallies[0], advance)
            elif config.trains:
                _use_threads(config)
                _record_training(config, tallies[0], advance)
            else:
                _use_threads(config)
                _record_agent(config, tallies, advance)
        recorded += [tally.summary() for tally in tallies]
    return sorted(recorded, key=lambda one: games.index(one.game))


def _tally(config: RecordConfig, writer: EpisodeWriter, game: str) -> Tally:
    return Tally(game, writer, policy_name(config), sum(stored_steps(config, game).values()))


def _behaves(config: RecordConfig, game: str) -> bool:
    """Whether a behaviour policy plays the game in an emulator that it can look into."""
    return config.policy in BEHAVIOURS and custom_game(game) is None


def _finished(config: RecordConfig, game: str) -> bool:
    """Whether there is nothing left to record of a game."""
    stored = stored_steps(config, game)
    if _behaves(config, game) or config.trains:
        return sum(stored.values()) >= config.steps
    return not shares_left(_shares(config, 0), stored)


def _shares(config: RecordConfig, seed: int) -> list[Share]:
    return shares(config.steps, seed, config.schedule, config.epsilon)


def _groups(config: RecordConfig, games: Sequence[str]) -> list[list[str]]:
    """One game at a time; agents play all those together that are planned for alike."""
    if any(_behaves(config, game) for game in games) or config.trains:
        return [[game] for game in games]
    groups: dict[PlannerConfig | None, list[str]] = {}
    for game in games:
        groups.setdefault(planner_for(config, game), []).append(game)
    return list(groups.values())


def _seed(config: RecordConfig, tally: Tally) -> int:
    # What is appended must not repeat what is there, so the seed moves on with the episodes already stored.
    return episode_seed(episode_seed(config.seed, task_id(tally.game)), tally.writer.episodes)


def _record_behaviour(config: RecordConfig, tally: Tally, advance: Advance) -> None:
    seed = _seed(config, tally)
    env = SingleAtari(tally.game, config.protocol, seed)
    behaviour = make_behaviour(config.policy, tally.game, seed, config.epsilon, config.schedule)
    record_behaviour(env, behaviour, config.steps, tally, advance)


def _record_agent(config: RecordConfig, tallies: list[Tally], advance: Advance) -> None:
    rows = [tally.game for tally in tallies for _ in range(config.environments)]
    environments = make_environments(rows, config.protocol, [0] * len(rows))
    wanted = {
        tally.game: shares_left(_shares(config, _seed(config, tally)), stored_steps(config, tally.game))
        for tally in tallies
    }
    stores = {tally.game: tally.store for tally in tallies}
    advance = capped(advance, sum(max(config.steps - tally.transitions, 0) for tally in tallies))
    try:
        record_policy(environments, _player(config, environments), wanted, stores, advance)
    finally:
        environments.close()


def _use_threads(config: RecordConfig) -> None:
    from jowa.training.session import use_threads

    use_threads(config.threads)


def _player(config: RecordConfig, environments: Environments) -> Policy:
    # Here, for agents alone need PyTorch: whoever records by behaviours doesn't wait for it.
    from jowa.evaluation.play.player import RandomPlayer, agent_player
    from jowa.training.distribution import choose_device

    planner = planner_for(config, environments.games[0])
    if planner is not None:
        agent = opened_agent(config.policy).agent
        return agent_player(agent, planner, config.execution, environments, choose_device(config.device, "device"))
    if config.policy == "random":
        return RandomPlayer(environments.legal)
    if names_function(config.policy):
        return FunctionPlayer(config.policy, load_function(config.policy), environments.legal)
    from jowa.recording.sb3_player import Sb3Player

    return Sb3Player(load_sb3(config, list(dict.fromkeys(environments.games))), environments.games)


def _record_training(config: RecordConfig, tally: Tally, advance: Advance) -> None:
    from jowa.recording.sb3_training import Training, train_while_recording
    from jowa.training.distribution import choose_device

    training = Training(
        config.sb3.algorithm, config.steps, config.environments, config.sb3.buffer, _seed(config, tally),
        choose_device(config.device, "device"),
    )  # fmt: skip
    noted: dict[str, Any] = {}

    def store(episode: SourceEpisode) -> None:
        # A part for each checkpoint, as in DQN-Replay, so that episodes can be selected and shown by it.
        facts = {"run": config.seed, "checkpoint": episode.info["checkpoint"]}
        if facts != noted:
            tally.writer.commit()
            tally.writer.note(facts)
            noted.update(facts)
        tally.store(episode)

    agent = train_while_recording(tally.game, config.protocol, training, store, capped(advance, config.steps))
    if config.sb3.save is not None:
        agent.save(Path(config.sb3.save) / tally.game)


def _writer(config: RecordConfig, game: str) -> EpisodeWriter:
    return EpisodeWriter(
        config.store, game, provenance=provenance(config, game), append=config.append or config.resume,
        allow_mixed=config.allow_mixed, commit_seconds=COMMIT_SECONDS,
    )  # fmt: skip


if __name__ == "__main__":
    run(main, RecordConfig, "record")
