"""The game an agent is finetuned on: its name, its task row, its actions and its recorded episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jowa.data.sources import rlu
from jowa.data.store import EpisodeStore, NoEpisodes, check_stored_game, register_from_store
from jowa.envs.environment_spec import EnvironmentConfig, record_command
from jowa.envs.gymnasium_environments import register_environment
from jowa.errors import UserError
from jowa.games import BORROWED_TASKS, check_game, custom_game, task_id
from jowa.models.agent_files import Agent
from jowa.models.growing import with_room
from jowa.models.task_rows import start_task_row
from jowa.overrides import assignment


def find_game(game: str | None, env: str | None, environment: EnvironmentConfig, data: str) -> str:
    """The name of the game that `game` or `env` says, known from now on; what was recorded of it is in `data`.

    The agent is to be opened first: its games keep the task rows they have.

    Raises:
        UserError: there is no such game or environment, or the recorded one is another.
    """
    if env is None:
        assert game is not None, "one of the two is given"
        return check_stored_game(data, game)
    name = register_environment(env, environment)
    if game not in (None, name):
        raise UserError(f"game={game} and env={env}, which is {name}, are two games: leave game out.")
    register_from_store(data, name)
    return name


def with_game(agent: Agent, game: str, task_from: str) -> Agent:
    """The agent with a task row for the game, started as `task_from` says, and a set of actions it can play it with.

    A game that the agent has no row for gets a further one. If its actions are another set than the agent's, that takes
    their place, and the agent can't play its other games any more.

    Raises:
        UserError: `task_from` is neither own, mean, paper nor a game that the agent has a row for.
    """
    sources = task_sources(agent, game, task_from)
    fresh = not agent.model.config.knows_actions_of(game)
    model = with_room(agent.model, task_id(game) + 1, game if fresh else None)
    start_task_row(model, task_id(game), [task_id(source) for source in sources])
    return replace(agent, model=model)


def check_heads(agent: Agent, game: str, task_from: str) -> None:
    """Raises UserError when something below the heads would begin, and with heads trained alone stay, at random."""
    config = agent.model.config
    fresh = [] if config.knows_actions_of(game) else ["the embeddings of its actions"]
    if config.task_embedding and task_id(game) >= config.tasks and task_sources(agent, game, task_from) == [game]:
        fresh += ["its task row"]
    if fresh:
        raise UserError(
            f"finetune.method=heads would leave {' and '.join(fresh)} as random as they begin for {game}: set "
            "finetune.method to lora or full"
            + (" or task_from to mean or a game." if fresh == ["its task row"] else ".")
        )


def task_sources(agent: Agent, game: str, task_from: str) -> list[str]:
    """The games whose task rows the game's own starts as the mean of: one for a copy. Raises UserError for others."""
    if task_from == "paper":
        return [BORROWED_TASKS.get(game, game)]
    if task_from == "mean":
        return trained_games(agent)
    if task_from == "own":
        return [game]
    try:
        known = task_id(check_game(task_from, "task_from")) < agent.model.config.tasks
    except UserError as error:
        raise UserError(f"task_from is own, mean, paper or a game's name. {error}") from error
    if not known:
        raise UserError(f"task_from={task_from} is a game that the checkpoint has no task row for: choose another.")
    return [task_from]


def trained_games(agent: Agent) -> list[str]:
    """All games the agent has been trained on, before it was last finetuned too."""
    return list(dict.fromkeys([*agent.description.get("games_before", []), *agent.description["games"]]))


def open_episodes(path: str, game: str, blocks: int) -> EpisodeStore:
    """The game's recorded episodes. Raises UserError saying how to get some, where there are none or too few."""
    try:
        store = EpisodeStore(path, [game])
    except NoEpisodes as error:
        raise UserError(
            f"Finetuning needs recorded episodes of {game}, and {Path(path).absolute()} has none: {_ways(path, game)}, "
            "or set data.path to the folder that has them."
        ) from error
    if store.transitions(game) < blocks:
        raise UserError(
            f"{game} in {path} has {store.transitions(game)} transitions, fewer than one window of {blocks} frames: "
            f"{_ways(path, game, 'append=true')}."
        )
    return store


def _ways(path: str, game: str, *more: str) -> str:
    """How to get episodes of the game; `more` is for those that are recorded."""
    custom, out = custom_game(game), assignment("out", path)
    if custom is not None:
        return f"record some with `{record_command(custom, path, *more)}`"
    ways = f"record some with `{' '.join([f'python -m jowa.data.record game={game} steps=10000', out, *more])}`"
    if game in rlu.GAMES:
        ways += f", fetch a good player's with `python -m jowa.data.fetch games=[{game}] checkpoints=[49] {out}`"
    return ways
