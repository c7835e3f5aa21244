"""The thread that runs a session: its clock, and that nothing that fails in it ends it."""

from __future__ import annotations

import json
import queue
from typing import Any

import pytest
from play_fixtures import small_session

from jowa.errors import UserError
from jowa.playing.commands import read_command
from jowa.playing.worker import Worker
from jowa.playing.worlds import World


def test_time_goes_on_only_while_somebody_watches() -> None:
    session, states = small_session(), queue.SimpleQueue[str]()
    worker = Worker(session, states.put)
    worker.start()
    for speed in (10, 20, 30):
        worker.order(read_command(json.dumps({"do": "speed", "speed": speed}))).result(20)
    assert session.running and session.real.agent_steps == 0
    worker.watch(1)
    while json.loads(states.get(timeout=20))["agent_steps"] < 2:
        pass
    worker.stop()


def test_what_fails_while_it_plays_pauses_the_game_and_is_told() -> None:
    session, states = small_session(), queue.SimpleQueue[str]()
    worker = Worker(session, states.put)
    real, session.world = session.world, Broken(session.world)
    worker.start()
    worker.watch(1)
    while not (state := json.loads(states.get(timeout=20)))["problem"]:
        pass
    assert state["problem"] == "The game is broken: mend it." and not state["running"] and state["plan"] is None
    session.world = real
    worker.order(read_command('{"do": "step"}')).result(20)
    while json.loads(states.get(timeout=20))["problem"]:
        pass
    worker.stop()


class Broken:
    """A world in which nothing can be played."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def step(self, action: int) -> None:
        raise UserError("The game is broken: mend it.")


def test_where_not_even_the_state_can_be_told_that_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, states = small_session(), queue.SimpleQueue[str]()
    worker = Worker(session, states.put)
    with monkeypatch.context() as broken:
        broken.setattr(session.thinker, "decode", out_of_memory)
        worker.start()
        told = json.loads(states.get(timeout=20))
        assert told == {
            "kind": "trouble",
            "problem": "The game can't go on (RuntimeError: out of memory): restart it, or plan otherwise.",
        }
        assert not session.running and "out of memory" in capsys.readouterr().err
        worker.order(read_command('{"do": "restart"}')).result(20)
        assert json.loads(states.get(timeout=20)) == told
    worker.order(read_command('{"do": "restart"}')).result(20)
    assert json.loads(states.get(timeout=20))["problem"] == ""
    assert worker.stop()


def out_of_memory(codes: object) -> None:
    raise RuntimeError("out of memory")


def test_an_order_that_nobody_waits_for_any_more_is_left_out() -> None:
    session, states = small_session(), queue.SimpleQueue[str]()
    worker = Worker(session, states.put)
    assert worker.order(read_command('{"do": "speed", "speed": 2}')).cancel()
    worker.start()
    worker.order(read_command('{"do": "restart"}')).result(20)
    assert session.speed == 15 and worker.stop()
