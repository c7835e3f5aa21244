"""Watch an agent play and think in the browser, take over from it, and play on in its dream.

    python -m jowa.play ckpt=runs/demo game=Freeway planner=demo
    python -m jowa.play ckpt=runs/demo port=0 open=true

Serves a page on localhost, for this machine alone, until Ctrl-C. Nothing is written.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import torch

from jowa.cli import run
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.games import check_game
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.execution import ExecutionConfig, check_execution
from jowa.playing.roster import never_seen
from jowa.playing.session import Rules, Session
from jowa.playing.worlds import check_data
from jowa.training.distribution import choose_device
from jowa.training.session import use_threads
from jowa.training.starting_point import open_agent
from jowa.training.warning import warn


@dataclass(frozen=True)
class PlayConfig:
    """ckpt: a run's folder, one checkpoint's, published files or a model on the hub. size: refuse a checkpoint of
    another size, any if null.

    game: the first one of those it was trained on if null; the page can change it, and the planner. seed: the first
    episode's, the next ones count up from it. data: the episode store that dreams may start from, that of the training
    run if null; without it they start from the game itself. port: 0 for any that is free. open: open the browser.
    """

    ckpt: str = "???"
    size: str | None = None
    game: str | None = None
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    seed: int = 0
    data: str | None = None
    port: int = 8765
    open: bool = False
    device: str = "auto"
    threads: int | None = None


def check(config: PlayConfig) -> None:
    """Everything that can be refused before any work. Raises UserError."""
    if not 0 <= config.port <= 65535:
        raise UserError(f"port={config.port} is no port: set it to 1 … 65535, or to 0 for any that is free.")
    if config.seed < 0:
        raise UserError(f"seed must not be negative, but is {config.seed}.")
    config.protocol.check()
    check_planner(config.planner)
    check_execution(config.execution)
    if find_spec("aiohttp") is None:
        raise UserError("The page needs aiohttp: pip install 'jowa[play]'.")


def main(config: PlayConfig) -> None:
    check(config)
    from jowa.playing.server import listen, serve

    use_threads(config.threads)
    device = choose_device(config.device, "device")
    # Before the agent is read, which takes longer than finding out that the port is taken.
    listening = listen(config.port)
    with listening, closing(open_session(config, device)) as session:
        if not asyncio.run(serve(session, listening, lambda address: _announce(address, config.open))):
            _leave()
    print("Stopped.")


def open_session(config: PlayConfig, device: torch.device) -> Session:
    """The agent, about to play. Raises UserError for a game, planner or data that don't fit; warns of a new game."""
    agent = open_agent(config.ckpt, config.size).agent
    # Not before the agent is there: which games there are beside Atari's is in its description.
    game = check_game(config.game or agent.description["games"][0])
    check_data(config.data, game)
    data = config.data or agent.description["data"]
    agent.tokenizer.to(device)
    agent.model.to(device)
    rules = Rules(config.planner, config.protocol, config.execution, config.seed, data and Path(data))
    session = Session(agent, game, rules)
    if never_seen(agent, game):
        warn(never_seen(agent, game).removesuffix("."))
    return session


def _announce(address: str, opens: bool) -> None:
    print(f"Open {address} in a browser on this machine; Ctrl-C ends it.", flush=True)
    if opens:
        webbrowser.open(address)


def _leave() -> NoReturn:
    """End at once: an interpreter that ends the usual way while a thread is inside torch is aborted."""
    with suppress(OSError):  # nobody may be reading any more
        print("Stopped.", flush=True)
        sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    run(main, PlayConfig, "play")
