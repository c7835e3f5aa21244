"""Sessions of play with a small agent that has learnt nothing, and pages around them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_dreamer import dreamer
from small_learner import small_model

import jowa.games
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.envs.gymnasium_environments import register_environment
from jowa.envs.protocol import ProtocolConfig
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.playing.session import Rules, Session

BEAM = PlannerConfig(width=2, horizon=1, context=3)


def small_agent(*games: str, **sizes: Any) -> Agent:
    tokenizer, model = dreamer()
    model = small_model(**sizes).eval() if sizes else model
    return Agent(tokenizer, model, {"games": list(games or ("Pong",)), "data": None, "holdout": None})


def small_session(game: str = "Pong", agent: Agent | None = None, data: Path | None = None, **rules: Any) -> Session:
    protocol = ProtocolConfig(**{"random_action_probability": 0.0} | rules.pop("protocol", {}))
    planner = rules.pop("planner", BEAM)
    return Session(agent or small_agent(), game, Rules(planner, protocol, ExecutionConfig(), data=data, **rules))


def toy_session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of an environment with three actions of its own; to the test no other is known."""
    monkeypatch.setattr(jowa.games, "_registered", {})
    game = register_environment("toy_environments:Toy-v0", EnvironmentConfig())
    return small_session(game, small_agent(game, tasks=61, actions=3, action_set=game))


@contextmanager
def served(session: Session, port: int = 0) -> Iterator[int]:
    """The session's page at a port of this machine, any free one if 0, served by a thread of its own."""
    from aiohttp import web

    from jowa.playing.server import Page, listen

    listening = listen(port)
    port = listening.getsockname()[1]
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(Page(session, port).application(), access_log=None, shutdown_timeout=1.0)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, listening).start()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
        listening.close()
