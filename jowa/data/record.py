"""Records Atari games into an episode store: `python -m jowa.data.record`.

    python -m jowa.data.record game=[Pong,Boxing] steps=100000 workers=2
    python -m jowa.data.record game=atari15 policy=lookahead steps=3000 workers=2 out=data/mini
    python -m jowa.data.record game=Pong policy=runs/demo planner=beam epsilon=0.01
    python -m jowa.data.record game=Pong policy=sb3 steps=1000000

Every game is played until `steps` agent steps are reached; the last episode is finished, not cut.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jowa.cli import run
from jowa.data.behaviours import BEHAVIOURS, POLICIES, check_behaviour, check_schedule, make_behaviour
from jowa.data.recording import Advance, Recorded, Tally, capped, in_processes, record_behaviour
from jowa.data.sb3_config import Sb3Config, check_sb3
from jowa.data.store import EpisodeWriter, has_episodes
from jowa.envs.atari import AtariEnvironments
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_md5, rom_path
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.evaluation.recorder import agent_player, record_policy, shares
from jowa.evaluation.rollout import Policy
from jowa.files import require_writable_folder
from jowa.games import GAMES, HELD_OUT_GAMES, PRETRAINING_GAMES, check_game, task_id
from jowa.planning.config import PlannerConfig, check_planner
from jowa.training.distribution import choose_device
from jowa.training.session import use_threads
from jowa.training.starting_point import StartingPoint, open_agent

GAME_SETS = {"atari15": PRETRAINING_GAMES, "heldout5": HELD_OUT_GAMES, "all": GAMES}
"""Names that stand for several games: the paper's 15, those it finetunes on, all 60."""


@dataclass(frozen=True)
class RecordConfig:
    """What to record.

    game: one game, a list of them, or atari15, heldout5 or all. steps: agent steps for each, at least; with policy=sb3
    those of its training.
    policy: random, scripted (games with a controller), lookahead (any game; slow), mix (from random to good, as a
    learner's history), sb3 (an agent of stable-baselines3 while it trains), or an agent: the folder of a JOWA run or
    checkpoint, or a published file. planner: how that agent plays.
    epsilon: share of random actions. schedule: constant, or rising quality: the share falls from 1 to epsilon.
    environments: episodes of a game that an agent plays side by side, each held in memory (7 kB an agent step) until it
    ends; without workers it plays all games at once. device, threads: PyTorch's, for agents.
    seed: with it everything is reproducible. out: the episode store. append: add to a game's episodes instead of
    refusing. allow_mixed: even to such of another ROM or stickiness. workers: processes, one game a task; 0 plays in
    this process. protocol: the rules of play.
    """

    game: Any = field(default_factory=lambda: ["Pong"])
    steps: int = 20_000
    policy: str = "mix"
    schedule: str = "constant"
    epsilon: float = 0.0
    planner: PlannerConfig = field(default_factory=lambda: PlannerConfig("greedy", width=1, horizon=0, context=8))
    sb3: Sb3Config = field(default_factory=Sb3Config)
    environments: int = 8
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    out: str = "data"
    append: bool = False
    allow_mixed: bool = False
    workers: int = 0
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    @property
    def trains(self) -> bool:
        """Whether an agent is trained while recording."""
        return self.policy == "sb3" and self.sb3.load is None


def main(config: RecordConfig) -> None:
    """Check everything, record, print a table."""
    check(config)
    rows = record(config)
    print(f"{'game':<18}{'episodes':>10}{'transitions':>13}{'mean return':>13}")
    for row in rows:
        print(f"{row.game:<18}{row.episodes:>10}{row.transitions:>13}{row.mean_return:>13.1f}")


def check(config: RecordConfig) -> None:
    """Raise UserError for whatever would stop the recording later; nothing is written but the empty out folder."""
    for key, smallest in (("steps", 1), ("seed", 0), ("workers", 0), ("environments", 1)):
        if getattr(config, key) < smallest:
            raise UserError(f"{key} must be at least {smallest}, not {getattr(config, key)}.")
    if not 0.0 <= config.epsilon <= 1.0:
        raise UserError(f"epsilon must lie between 0 and 1, not {config.epsilon}.")
    config.protocol.check()
    use_threads(config.threads)
    games = games_of(config)
    for game in games:
        rom_path(game, config.protocol.rom_dir)
    check_policy(config, games)
    for game in games:
        if has_episodes(config.out, game) and not config.append:
            raise UserError(
                f"{Path(config.out) / game} already holds episodes: set append=true to add to them, or out to another "
                "folder."
            )
    require_writable_folder(config.out, "out")
    for game in games:
        if has_episodes(config.out, game):
            _writer(config, game).close()


def games_of(config: RecordConfig) -> list[str]:
    """The games meant, in order. Raises UserError for an unknown one, none, or one that is named twice."""
    named = config.game if isinstance(config.game, list) else [config.game]
    games = [game for name in named for game in GAME_SETS.get(str(name), (name,))]
    if not games or len(set(map(str, games))) != len(games):
        raise UserError(f"game must name at least one game and none twice, not {config.game}.")
    return [check_game(game) for game in games]


def check_policy(config: RecordConfig, games: list[str]) -> None:
    """Raise UserError unless the policy exists, is installed, and can play the games as configured."""
    check_schedule(config.schedule)
    if (config.policy in ("random", "mix") or config.trains) and (config.schedule != "constant" or config.epsilon):
        raise UserError(
            f"policy={config.policy} has its own share of random actions: leave epsilon at 0 and schedule at constant."
        )
    choose_device(config.device, "device")
    if config.policy == "sb3":
        check_sb3(config.sb3)
        if config.sb3.load is not None:
            _load_sb3(config, games)
    elif _names_agent(config.policy):
        check_planner(config.planner)
        agent = _open(config.policy).agent
        for game in games:
            config.planner.for_game(agent.model.config, game)
    else:
        for game in games:
            check_behaviour(config.policy, game)


def _names_agent(policy: str) -> bool:
    """Whether it is a path, existing or meant to be: without a sign of that it is a mistyped name."""
    path = Path(policy).expanduser()
    return policy not in POLICIES and (len(path.parts) > 1 or path.suffix in (".pt", ".pth") or path.exists())


def _policy_name(config: RecordConfig) -> str:
    """What an episode's facts and the provenance call it."""
    return "jowa" if _names_agent(config.policy) else config.policy


@cache
def _open(policy: str) -> StartingPoint:
    return open_agent(policy)


def record(config: RecordConfig) -> list[Recorded]:
    """Record every game, in this process or in `workers` others; the result doesn't depend on their number."""
    games = games_of(config)
    with tqdm(total=config.steps * len(games), unit="step", desc="recording", dynamic_ncols=True) as bar:
        if config.workers == 0:
            return record_games(config, games, bar.update)
        # Agents think in every process; together they shouldn't use more threads than there are cores.
        threads = config.threads or max(1, (os.cpu_count() or 1) // config.workers)
        config = replace(config, threads=threads)
        return in_processes(record_games, config, games, config.workers, bar.update)


def record_games(config: RecordConfig, games: list[str], advance: Advance) -> list[Recorded]:
    """Record some games, those that an agent can play together side by side."""
    use_threads(config.threads)
    recorded: list[Recorded] = []
    for group in _groups(config, games):
        with ExitStack() as stack:
            tallies = [Tally(game, stack.enter_context(_writer(config, game)), _policy_name(config)) for game in group]
            if config.policy in BEHAVIOURS:
                _record_behaviour(config, tallies[0], advance)
            elif config.trains:
                _record_training(config, tallies[0], advance)
            else:
                _record_agent(config, tallies, advance)
        recorded += [tally.summary() for tally in tallies]
    return sorted(recorded, key=lambda one: games.index(one.game))


def _groups(config: RecordConfig, games: list[str]) -> list[list[str]]:
    """One game at a time; agents play all those together that are planned for alike."""
    if config.policy in BEHAVIOURS or config.trains:
        return [[game] for game in games]
    groups: dict[PlannerConfig | None, list[str]] = {}
    for game in games:
        groups.setdefault(_planner(config, game), []).append(game)
    return list(groups.values())


def _planner(config: RecordConfig, game: str) -> PlannerConfig | None:
    """A JOWA agent's settings for the game."""
    if not _names_agent(config.policy):
        return None
    return config.planner.for_game(_open(config.policy).agent.model.config, game)


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
    environments = AtariEnvironments(rows, config.protocol, [0] * len(rows))
    wanted = {
        tally.game: shares(config.steps, _seed(config, tally), config.schedule, config.epsilon) for tally in tallies
    }
    stores = {tally.game: tally.store for tally in tallies}
    advance = capped(advance, config.steps * len(tallies))
    try:
        record_policy(environments, _player(config, environments), wanted, stores, advance)
    finally:
        environments.close()


def _player(config: RecordConfig, environments: AtariEnvironments) -> Policy:
    planner = _planner(config, environments.games[0])
    if planner is not None:
        return agent_player(_open(config.policy).agent, planner, environments, choose_device(config.device, "device"))
    from jowa.evaluation.sb3_player import Sb3Player

    return Sb3Player(_load_sb3(config, list(dict.fromkeys(environments.games))), environments.games)


def _load_sb3(config: RecordConfig, games: list[str]) -> Any:
    from jowa.evaluation.sb3_player import load_agent

    assert config.sb3.load is not None
    return load_agent(config.sb3.load, config.sb3.algorithm, games, choose_device(config.device, "device"))


def _record_training(config: RecordConfig, tally: Tally, advance: Advance) -> None:
    from jowa.data.sb3_recording import Training, train_while_recording

    training = Training(
        config.sb3.algorithm, config.steps, config.environments, config.sb3.buffer, _seed(config, tally),
        choose_device(config.device, "device"),
    )  # fmt: skip
    agent = train_while_recording(tally.game, config.protocol, training, tally.store, capped(advance, config.steps))
    if config.sb3.save is not None:
        agent.save(Path(config.sb3.save) / tally.game)


def _writer(config: RecordConfig, game: str) -> EpisodeWriter:
    return EpisodeWriter(
        config.out, game, provenance=provenance(config, game), append=config.append, allow_mixed=config.allow_mixed
    )


def provenance(config: RecordConfig, game: str) -> dict[str, Any]:
    """What the manifest keeps about how these episodes came to be."""
    facts: dict[str, Any] = {
        "source": "recorded",
        "policy": _policy_name(config),
        "schedule": config.schedule,
        "epsilon": config.epsilon,
        "seed": config.seed,
        "rewards": "raw",
        "rom_md5": rom_md5(game, config.protocol.rom_dir),
        "sticky": config.protocol.repeat_action_probability > 0.0,
        "protocol": asdict(replace(config.protocol, rom_dir=None)),
    }
    planner = _planner(config, game)
    if planner is not None:
        facts |= {"agent": str(_open(config.policy).checkpoint), "planner": asdict(planner)}
    if config.policy == "sb3":
        facts["sb3"] = asdict(config.sb3)
    return facts


if __name__ == "__main__":
    run(main, RecordConfig, "record")
