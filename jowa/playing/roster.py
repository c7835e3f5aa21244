"""Which games an agent was trained on, and which others it can be asked to play."""

from __future__ import annotations

from jowa.errors import UserError
from jowa.games import GAMES, registered
from jowa.models.agent_files import Agent
from jowa.models.world_action_model import ModelConfig, check_game_fits


def trained_games(agent: Agent) -> list[str]:
    """The games the agent was trained on last, then those it was trained on before."""
    description = agent.description
    return list(dict.fromkeys([*description["games"], *description.get("games_before", ())]))


def other_games(agent: Agent) -> list[str]:
    """All games it has a task row and the actions for without having been trained on them."""
    trained, every = trained_games(agent), (*GAMES, *(game.name for game in registered()))
    return [game for game in every if game not in trained and _fits(agent.model.config, game)]


def never_seen(agent: Agent, game: str) -> str:
    """A sentence where the agent was never trained on the game, else empty."""
    trained = trained_games(agent)
    if game in trained:
        return ""
    return f"The agent was never trained on {game}, only on {', '.join(trained)}: its plans and dreams may mean little."


def _fits(config: ModelConfig, game: str) -> bool:
    try:
        check_game_fits(config, game)
    except UserError:
        return False
    return True
