"""What can be recorded: the configuration of `jowa.data.record`, what would stop it, and the facts it leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jowa.data.store import check_stored_game, register_from_store
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.envs.environments import identity
from jowa.envs.gymnasium_environments import register_environment
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.games import GAMES, HELD_OUT_GAMES, PRETRAINING_GAMES, custom_game, is_game
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.recording.behaviours import POLICIES, check_behaviour, check_schedule
from jowa.recording.function_player import load_function, names_function
from jowa.recording.sb3_config import Sb3Config, check_sb3

# What needs PyTorch is imported for agents, and where a device is named: emulators and behaviours do without it.
if TYPE_CHECKING:
    from jowa.training.starting_point import StartingPoint

GAME_SETS = {"atari15": PRETRAINING_GAMES, "heldout5": HELD_OUT_GAMES, "all": GAMES}
"""Names that stand for several games: the paper's 15, those it finetunes on, all 60."""

DEFAULT_GAME = ("Pong",)


@dataclass(frozen=True)
class RecordConfig:
    """What to record.

    game: one game, a list of them, or atari15, heldout5 or all. steps: agent steps for each, at least; with policy=sb3
    those of its training.
    env: instead of `game`, an environment of Gymnasium: <id>, or <module>:<id> to import the module first. environment:
    what it is played like.
    policy: random, scripted (games with a controller), lookahead (any Atari game; slow), mix (from random to good, as a
    learner's history), sb3 (an agent of stable-baselines3 while it trains), an agent (the folder of a JOWA run or
    checkpoint, or a published file), or a function, <module>:<function> (see jowa.recording.function_player). planner:
    how that agent plays. execution: how its imagination is computed.
    epsilon: share of random actions. schedule: constant, or rising quality: the share falls from 1 to epsilon.
    environments: episodes of a game that an agent plays side by side, each held in memory (7 kB an agent step) until it
    ends; without workers it plays all games at once. device, threads: PyTorch's, for agents.
    seed: with it everything is reproducible. out: the episode store. append: add to a game's episodes instead of
    refusing. resume: go on with an interrupted recording of the same settings; `steps` are then those of all its
    episodes, and finished games are left alone. allow_mixed: add even to episodes of another ROM or stickiness.
    workers: processes, one game a task; 0 plays in this process. protocol: the rules of play.
    """

    game: Any = field(default_factory=lambda: list(DEFAULT_GAME))
    env: str | None = None
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    steps: int = 20_000
    policy: str = "mix"
    schedule: str = "constant"
    epsilon: float = 0.0
    planner: PlannerConfig = field(default_factory=lambda: PlannerConfig("greedy", width=1, horizon=0, context=8))
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    sb3: Sb3Config = field(default_factory=Sb3Config)
    environments: int = 8
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    out: str = "data"
    append: bool = False
    resume: bool = False
    allow_mixed: bool = False
    workers: int = 0
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    @property
    def store(self) -> Path:
        """The folder of the episode store."""
        return Path(self.out).expanduser()

    @property
    def trains(self) -> bool:
        """Whether an agent is trained while recording."""
        return self.policy == "sb3" and self.sb3.load is None


def games_of(config: RecordConfig) -> list[str]:
    """The games meant, in order. Raises UserError for an unknown one, none, or one that is named twice."""
    if config.env is not None:
        return [_environment(config, config.env)]
    named = config.game if isinstance(config.game, list) else [config.game]
    games = [game for name in named for game in GAME_SETS.get(str(name), (name,))]
    if not games or len(set(map(str, games))) != len(games):
        raise UserError(f"game must name at least one game and none twice, not {config.game}.")
    if not all(is_game(str(game)) for game in games) and names_agent(config.policy):
        opened_agent(config.policy)
    return [check_stored_game(config.store, str(game)) for game in games]


def _environment(config: RecordConfig, env: str) -> str:
    """The game that `env` is from now on. Raises UserError for what can't be played, or was recorded otherwise."""
    if config.game != list(DEFAULT_GAME):
        raise UserError(f"game={config.game} and env={env} are two things to record: give one of them.")
    if names_agent(config.policy):
        # Its task rows are counted from the first game that gets known.
        opened_agent(config.policy)
    game = register_environment(env, config.environment)
    register_from_store(config.store, game)
    return game


def check_policy(config: RecordConfig, games: list[str]) -> None:
    """Raise UserError unless the policy exists, is installed, and can play the games as configured."""
    check_schedule(config.schedule)
    if (config.policy in ("random", "mix") or config.trains) and (config.schedule != "constant" or config.epsilon):
        raise UserError(
            f"policy={config.policy} has its own share of random actions: leave epsilon at 0 and schedule at constant."
        )
    if config.device != "auto":
        from jowa.training.distribution import choose_device

        choose_device(config.device, "device")
    custom = [game for game in games if custom_game(game) is not None]
    if custom and config.policy in POLICIES and config.policy != "random":
        raise UserError(
            f"policy={config.policy} plays Atari games only: record {custom[0]} with policy=random, an agent's folder, "
            "or a function, <module>:<function>."
        )
    if config.policy == "sb3":
        check_sb3(config.sb3, games, config.steps, config.environments)
        if config.trains and config.resume:
            raise UserError(
                "A training (policy=sb3) that was interrupted can't be resumed, for its agent is gone: leave out "
                "resume, and remove what it left or set append=true or another out."
            )
        if config.sb3.load is not None:
            load_sb3(config, games)
    elif names_agent(config.policy):
        check_planner(config.planner)
        check_execution(config.execution)
        agent = opened_agent(config.policy).agent
        for game in games:
            config.planner.for_game(agent.model.config, game)
    elif names_function(config.policy):
        load_function(config.policy)
    else:
        for game in games:
            check_behaviour(config.policy, game)


def names_agent(policy: str) -> bool:
    """Whether it is a path, existing or meant to be: without a sign of that it is a mistyped name."""
    if policy in POLICIES or not policy.strip():
        return False
    from jowa.models.hub import PREFIX

    path = Path(policy).expanduser()
    return policy.startswith(PREFIX) or len(path.parts) > 1 or path.suffix in (".pt", ".pth") or path.exists()


def policy_name(config: RecordConfig) -> str:
    """What an episode's facts and the provenance call it."""
    return "jowa" if names_agent(config.policy) else config.policy


@cache
def opened_agent(policy: str) -> StartingPoint:
    from jowa.training.starting_point import open_agent

    return open_agent(policy)


def planner_for(config: RecordConfig, game: str) -> PlannerConfig | None:
    """A JOWA agent's settings for the game."""
    if not names_agent(config.policy):
        return None
    return config.planner.for_game(opened_agent(config.policy).agent.model.config, game)


def load_sb3(config: RecordConfig, games: list[str]) -> Any:
    from jowa.recording.sb3_player import load_agent
    from jowa.training.distribution import choose_device

    assert config.sb3.load is not None
    return load_agent(config.sb3.load, config.sb3.algorithm, games, choose_device(config.device, "device"))


def provenance(config: RecordConfig, game: str) -> dict[str, Any]:
    """What the manifest keeps about how these episodes came to be."""
    facts: dict[str, Any] = {
        "source": "recorded",
        "policy": policy_name(config),
        "schedule": config.schedule,
        "epsilon": config.epsilon,
        "seed": config.seed,
        "rewards": "raw",
        **identity(game, config.protocol),
        "sticky": config.protocol.repeat_action_probability > 0.0,
        "protocol": asdict(replace(config.protocol, rom_dir=None)),
    }
    if custom_game(game) is not None:
        del facts["protocol"]["frame_skip"]  # the environment has its own
    planner = planner_for(config, game)
    if planner is not None:
        facts |= {"agent": str(opened_agent(config.policy).checkpoint), "planner": asdict(planner)}
    if config.policy == "sb3":
        facts["sb3"] = asdict(config.sb3)
    return facts
