"""Records Atari games played by a behaviour policy into an episode store: `python -m jowa.data.record`.

Every game is played until `steps` agent steps are reached; the last episode is finished, not cut.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jowa.cli import run
from jowa.data.behaviours import Behaviour, check_behaviour, make_behaviour
from jowa.data.layout import MANIFEST
from jowa.data.store import EpisodeWriter
from jowa.envs.atari import SCREEN
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_md5, rom_path
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.files import require_writable_folder
from jowa.games import check_game, task_id

Advance = Callable[[int], Any]
"""Told the number of agent steps just recorded."""

_REPORT_EVERY = 100


@dataclass(frozen=True)
class RecordConfig:
    """What to record.

    game: the games to play. steps: agent steps for each, at least. behaviour: random, scripted (games with a
    controller), lookahead (any game; slow) or mixture (from random to good, as a learner's history). epsilon: share
    of random actions in scripted and lookahead play. seed: with it everything is reproducible. out: the episode
    store. append: add to a game's episodes instead of refusing. workers: processes, one game a task; 0 plays in this
    process. protocol: the rules of play.
    """

    game: list[str] = field(default_factory=lambda: ["Pong"])
    steps: int = 20_000
    behaviour: str = "mixture"
    epsilon: float = 0.0
    seed: int = 0
    out: str = "data"
    append: bool = False
    workers: int = 0
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)


@dataclass(frozen=True)
class Recorded:
    """What was added for one game."""

    game: str
    episodes: int
    transitions: int
    mean_return: float


@dataclass(frozen=True)
class Episode:
    """T agent steps: frames (T, 84, 84) uint8, actions (T,) uint8, rewards (T,) float32 raw; how it ended."""

    frames: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminated: bool


def main(config: RecordConfig) -> None:
    """Check everything, record, print a table."""
    check(config)
    rows = record(config)
    print(f"{'game':<18}{'episodes':>10}{'transitions':>13}{'mean return':>13}")
    for row in rows:
        print(f"{row.game:<18}{row.episodes:>10}{row.transitions:>13}{row.mean_return:>13.1f}")


def check(config: RecordConfig) -> None:
    """Raise UserError for whatever would stop the recording later; nothing is written but the empty out folder."""
    if not config.game or len(set(config.game)) != len(config.game):
        raise UserError(f"game must name at least one game and none twice, not {config.game}.")
    for key, smallest in (("steps", 1), ("seed", 0), ("workers", 0)):
        if getattr(config, key) < smallest:
            raise UserError(f"{key} must be at least {smallest}, not {getattr(config, key)}.")
    if not 0.0 <= config.epsilon <= 1.0:
        raise UserError(f"epsilon must lie between 0 and 1, not {config.epsilon}.")
    config.protocol.check()
    for game in config.game:
        check_game(game)
        check_behaviour(config.behaviour, game)
        rom_path(game, config.protocol.rom_dir)
    out = require_writable_folder(config.out, "out")
    for game in config.game:
        if (out / game / MANIFEST).exists() and not config.append:
            raise UserError(
                f"{out / game} already holds episodes: set append=true to add to them, or out to another folder."
            )


def record(config: RecordConfig) -> list[Recorded]:
    """Record every game, in this process or in `workers` others; the result doesn't depend on their number."""
    total = config.steps * len(config.game)
    with tqdm(total=total, unit="step", desc="recording", dynamic_ncols=True) as bar:
        if config.workers == 0:
            return [record_game(config, game, bar.update) for game in config.game]
        context = multiprocessing.get_context("spawn")
        counter: Synchronized[int] = context.Value("q", 0)
        with ProcessPoolExecutor(config.workers, context, _share_counter, (counter,)) as pool:
            futures = [pool.submit(_record_game_in_worker, config, game) for game in config.game]
            waiting = True
            while waiting:
                waiting = bool(wait(futures, timeout=0.5).not_done)
                bar.update(counter.value - bar.n)
            return [future.result() for future in futures]


def record_game(config: RecordConfig, game: str, advance: Advance) -> Recorded:
    """Play one game until `config.steps` agent steps are reached and add its episodes to the store."""
    played, returns = 0, []
    with EpisodeWriter(Path(config.out), game, provenance=provenance(config, game), append=config.append) as writer:
        # What is appended must not repeat what is there, so the seed moves on with the episodes already stored.
        seed = episode_seed(episode_seed(config.seed, task_id(game)), writer.episodes)
        env = SingleAtari(game, config.protocol, seed)
        behaviour = make_behaviour(config.behaviour, game, seed, config.epsilon)
        while played < config.steps:
            behaviour.reset(played / config.steps)
            budget = config.steps - played
            episode = play_episode(env, behaviour, _capped(advance, budget))
            info = {**behaviour.describe(), "raw_return": float(episode.rewards.sum(dtype=np.float64))}
            writer.append(episode.frames, episode.actions, episode.rewards, episode.terminated, info)
            played += len(episode.actions)
            returns.append(info["raw_return"])
    return Recorded(game, len(returns), played, float(np.mean(returns)))


def play_episode(env: SingleAtari, behaviour: Behaviour, advance: Advance = lambda steps: None) -> Episode:
    """Play one episode to its end or to the protocol's cap."""
    frames = np.empty((1024, *SCREEN), dtype=np.uint8)
    actions: list[int] = []
    rewards: list[float] = []
    frame = env.reset()
    while True:
        if len(actions) == len(frames):
            frames = np.concatenate([frames, np.empty_like(frames)])
        frames[len(actions)] = frame
        action = behaviour.act(env)
        step = env.step(action)
        actions.append(action)
        rewards.append(step.reward)
        if len(actions) % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
        if step.terminated or step.truncated:
            break
        assert step.frame is not None
        frame = step.frame
    advance(len(actions) % _REPORT_EVERY)
    return Episode(
        frames[: len(actions)], np.array(actions, np.uint8), np.array(rewards, np.float32), step.terminated
    )


def provenance(config: RecordConfig, game: str) -> dict[str, Any]:
    """What the manifest keeps about how these episodes came to be."""
    return {
        "source": "recorded",
        "behaviour": config.behaviour,
        "epsilon": config.epsilon,
        "seed": config.seed,
        "rom_md5": rom_md5(game, config.protocol.rom_dir),
        "sticky": config.protocol.repeat_action_probability > 0.0,
        "protocol": asdict(replace(config.protocol, rom_dir=None)),
    }


def _capped(advance: Advance, budget: int) -> Advance:
    """The bar counts up to the steps asked for; finishing the last episode adds nothing."""
    left = budget

    def capped(steps: int) -> None:
        nonlocal left
        advance(min(steps, left))
        left -= min(steps, left)

    return capped


_counter: Synchronized[int] | None = None


def _share_counter(counter: Synchronized[int]) -> None:
    global _counter
    _counter = counter


def _record_game_in_worker(config: RecordConfig, game: str) -> Recorded:
    return record_game(config, game, _count)


def _count(steps: int) -> None:
    assert _counter is not None
    with _counter.get_lock():
        _counter.value += steps


if __name__ == "__main__":
    run(main, RecordConfig, "record")
