"""Tune the planner: each game's context, width and horizon, on episodes that are never reported.

    python -m jowa.tune ckpt=runs/demo
    python -m jowa.tune ckpt=runs/demo contexts=[1,4] widths=[2,3] horizons=[1,2] episodes=8
    python -m jowa.evaluate ckpt=runs/demo tuned=runs/demo/tuning/001

Plays every combination that fits the model on every game, and keeps the one of the highest mean return. Writes
tuned.json and episodes.jsonl into <run>/tuning/NNN; the same command goes on with a tuning that was interrupted.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from jowa.cli import run
from jowa.envs.environments import check_playable
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.pages.table import aligned
from jowa.evaluation.play.measured_play import Wanted, play_wanted, unseen_games
from jowa.evaluation.play.modes import Planners, Rules
from jowa.evaluation.play.rollout import Rollout, episode_seeds
from jowa.evaluation.results.folder import opened
from jowa.evaluation.results.tuning import TUNED, Choice, Setting, Tuning, choose, grid
from jowa.evaluation.statistics.scores import BootstrapConfig, bootstrap_means, check_bootstrap, estimate
from jowa.files import write_json
from jowa.models.agent_files import Agent
from jowa.overrides import assignment
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.training.distribution import distributed
from jowa.training.session import use_threads
from jowa.training.starting_point import open_agent

SEED = 2_000_000
"""Neither evaluation (from 0) nor the choice of the best checkpoint plays these episodes."""


@dataclass(frozen=True)
class TuneConfig:
    """ckpt, size, games, environments, execution, protocol: as in jowa.evaluate.

    contexts: real frames given, the present one included. widths: futures kept. horizons: agent steps looked ahead.
    planner: everything else about the beam search. episodes: of each game for each combination, the first of which has
    the seed `seed`. out: where to write, <run>/tuning/NNN if null. anew: begin another one, though the same was
    interrupted.
    """

    ckpt: str = "???"
    size: str | None = None
    games: list[str] = field(default_factory=list)
    contexts: list[int] = field(default_factory=lambda: [1, 2, 4, 6])
    widths: list[int] = field(default_factory=lambda: [2, 3, 4])
    horizons: list[int] = field(default_factory=lambda: [1, 2])
    episodes: int = 4
    environments: int = 64
    seed: int = SEED
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    device: str = "auto"
    threads: int | None = None
    out: str | None = None
    anew: bool = False


def check(config: TuneConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    for key in ("episodes", "environments"):
        if getattr(config, key) < 1:
            raise UserError(f"{key} must be at least 1, not {getattr(config, key)}.")
    for key in ("contexts", "widths", "horizons"):
        values = getattr(config, key)
        if not values or min(values) < 1:
            raise UserError(f"{key} must hold numbers of at least 1, not {values}.")
    if len(set(config.games)) != len(config.games):
        raise UserError(f"games names a game twice: {', '.join(config.games)}.")
    if config.seed < 0:
        raise UserError(f"seed must not be negative, but is {config.seed}.")
    if config.planner.name != "beam":
        raise UserError(f"planner.name={config.planner.name} has no width to tune: choose planner=beam.")
    check_bootstrap(config.bootstrap)
    config.protocol.check()
    check_planner(config.planner)
    check_execution(config.execution)


def main(config: TuneConfig) -> None:
    check(config)
    use_threads(config.threads)
    start = open_agent(config.ckpt, config.size)
    agent = start.agent
    games = tuple(config.games or agent.description["games"])
    check_playable(games, config.protocol)
    settings = grid(config.contexts, config.widths, config.horizons, agent.model.config.blocks)
    if not settings:
        raise UserError(
            f"No context of contexts and horizon of horizons fit together into the {agent.model.config.blocks} frames "
            "the model sees: add smaller ones."
        )
    wanted = what_is_wanted(config, agent, games, settings)
    with distributed(config.device, "device") as distribution, contextlib.ExitStack() as held:
        decides = wanted.what_decides(agent)
        folder = distribution.from_main(
            lambda: held.enter_context(opened(start.folder / "tuning", config.out, decides, config.anew, TUNED))
        )
        if distribution.is_main and (unseen := unseen_games(agent, games)):
            print(f"Note: the agent was never trained on {', '.join(unseen)}.", file=sys.stderr)
        agent.tokenizer.to(distribution.device)
        agent.model.to(distribution.device)
        rollouts = play_wanted(agent, wanted, folder, distribution)
        if not distribution.is_main:
            return
        returns = returns_by_game(rollouts, settings, games)
        tuning = Tuning(
            str(folder), decides["weights"], config.protocol, config.planner, config.seed, config.episodes,
            {game: choose(own) for game, own in returns.items()},
        )  # fmt: skip
        write_json(folder / TUNED, asdict(tuning) | {"returns_points": by_label(returns)})
    print(table(tuning.games, returns, config.bootstrap))
    print(repetitions(rollouts))
    print(f"\nUse them: python -m jowa.evaluate {assignment('ckpt', config.ckpt)} {assignment('tuned', str(folder))}")


def what_is_wanted(config: TuneConfig, agent: Agent, games: tuple[str, ...], settings: list[Setting]) -> Wanted:
    """Every setting on every game's tuning episodes."""
    planners: dict[str, Planners] = {
        setting.label: {game: setting.of(config.planner).for_game(agent.model.config, game) for game in games}
        for setting in settings
    }
    rules = Rules(config.protocol, config.environments, config.execution)
    return Wanted(planners, episode_seeds(config.seed, games, config.episodes), rules)


def returns_by_game(
    rollouts: Mapping[str, Rollout], settings: list[Setting], games: tuple[str, ...]
) -> dict[str, dict[Setting, list[float]]]:
    """Raw returns of each game's episodes by setting, in the order of the grid."""
    return {
        game: {
            setting: [one.episode_return for one in rollouts[setting.label].episodes if one.game == game]
            for setting in settings
        }
        for game in games
    }


def repetitions(rollouts: Mapping[str, Rollout]) -> str:
    """How many episodes differ, and what to do where few do: other seeds alone then give no other episodes."""
    episodes = [(mode, one) for mode, rollout in rollouts.items() for one in rollout.episodes]
    distinct = len({(mode, one.game, one.episode_return, one.agent_steps) for mode, one in episodes})
    text = f"{distinct} of {len(episodes)} episodes are distinct in setting, game, return and length."
    if distinct == len(episodes):
        return text
    return f"{text} Episodes to be reported may equal these then: protocol=machado or protocol=nature helps."


def by_label(returns: Mapping[str, Mapping[Setting, list[float]]]) -> dict[str, dict[str, list[float]]]:
    return {game: {setting.label: values for setting, values in own.items()} for game, own in returns.items()}


def table(
    chosen: Mapping[str, Choice], returns: Mapping[str, Mapping[Setting, list[float]]], bootstrap: BootstrapConfig
) -> str:
    """One row a game: what was chosen, its tuning return, the lowest of all settings, and how many did as well."""
    rows = [["game", "context", "width", "horizon", "tuning return", "lowest mean", "as good"]]
    for game, choice in chosen.items():
        setting, values = choice.setting, returns[game][choice.setting]
        found = estimate(choice.mean_return_points, bootstrap_means(values, bootstrap, game), bootstrap.confidence)
        lowest = min(sum(other) / len(other) for other in returns[game].values())
        rows.append([
            game, str(setting.context), str(setting.width), str(setting.horizon),
            f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]", f"{lowest:.1f}",
            f"{choice.equals} of {len(returns[game])}",
        ])  # fmt: skip
    note = (
        "The best of many means is too good: quote what jowa.evaluate measures on other episodes. Of equal settings "
        "the one that imagines least is taken."
    )
    return f"{aligned(rows)}\n{note}"


if __name__ == "__main__":
    run(main, TuneConfig, "tune")
