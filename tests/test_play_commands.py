"""What a page may ask for: whatever isn't a command is refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from play_fixtures import small_session

from jowa.errors import UserError
from jowa.playing.commands import LONGEST, read_command
from jowa.playing.state import present

BAD = {
    "{": "A message must be a JSON object, and this one can't be read.",
    "[" * 3000: "A message must be a JSON object, and this one can't be read.",
    "[1]": "A message must be a JSON object with the key 'do'.",
    "{}": "do must be one of run, step, restart, speed",
    '{"do": {"a": 1}}': "do must be one of run, step",
    '{"do": "shut_down"}': "do must be one of run, step.*not 'shut_down'",
    '{"do": "speed"}': "'speed' needs speed.",
    '{"do": "speed", "speed": 31}': "speed must be a number from 1 to 30, not 31.",
    '{"do": "speed", "speed": NaN}': "speed must be a number from 1 to 30, not NaN.",
    '{"do": "speed", "speed": true}': "speed must be a number from 1 to 30, not true.",
    '{"do": "speed", "speed": 1e999}': "speed must be a number from 1 to 30, not Infinity.",
    '{"do": "speed", "speed": "5"}': "speed must be a number from 1 to 30, not '5'.",
    '{"do": "run", "running": 1}': "running must be true or false, not 1.",
    '{"do": "run", "running": true, "fast": 1}': "'run' takes running, not 'fast'.",
    '{"do": "restart", "x": 1}': "'restart' takes nothing, not 'x'.",
    '{"do": "drive", "driver": "chance"}': "driver must be one of agent, human, not 'chance'.",
    '{"do": "hold", "keys": ["UP", "JUMP"]}': "keys must be a list of some of UP, DOWN",
    '{"do": "hold", "keys": [["UP"]]}': "keys must be a list of some of UP, DOWN",
    '{"do": "step", "action": 1.5}': "action must be a whole number from 0 to 255, not 1.5.",
    '{"do": "step", "action": -1}': "action must be a whole number from 0 to 255, not -1.",
    '{"do": "plan_with", "width": 16, "horizon": 2}': "width=16 and horizon=2 imagine up to 272 agent steps a decision",
    '{"do": "plan_with", "width": 8, "horizon": 3, "context": 1}': "width=8 and horizon=3 imagine up to 136",
    '{"do": "plan_with", "name": "mcts", "simulations": 65}': "simulations must be a whole number from 1 to 64",
    '{"do": "plan_with", "context": 0}': "context must be a whole number from 1 to 8, not 0.",
    '{"do": "plan_with", "context": null}': "context is empty: give it a whole number from 1 to 8.",
    '{"do": "plan_with", "horizon": 8}': "horizon must be a whole number from 0 to 7, not 8.",
    '{"do": "temperature", "temperature": null}': "temperature is empty: give it a number from 0 to 10.",
    '{"do": "plan_with", "width": 1000000}': "width must be a whole number from 1 to 16, not 1000000.",
    '{"do": "plan_with", "width": ' + "9" * 4000 + "}": "width must be a whole number from 1 to 16, not 9+….",
    '{"do": "game", "game": "../../etc"}': None,
    '{"do": "game", "game": "a\\u0000b"}': "game must be a name",
    '{"do": "game", "game": "' + "x" * LONGEST + '"}': "A message may have 4,096 bytes, and this one has more.",
    '{"do": "temperature", "temperature": -0.1}': "temperature must be a number from 0 to 10, not -0.1.",
}


def test_bad_messages_are_one_sentence_and_change_nothing() -> None:
    session = small_session()
    before = present(session)
    for text, sentence in BAD.items():
        with pytest.raises(UserError, match=sentence) as refused:
            read_command(text).apply(session)
        assert (
            "\n" not in str(refused.value) and str(refused.value).endswith((".", "?")) and len(str(refused.value)) < 900
        )
        assert present(session) == before, text


def test_a_decision_may_imagine_as_many_steps_as_a_page_can_wait_for() -> None:
    session = small_session()
    for asked in ({"width": 16, "horizon": 1}, {"width": 3, "horizon": 7, "context": 1}, {"width": 16, "horizon": 0}):
        read_command(json.dumps({"do": "plan_with", **asked})).apply(session)
        assert (session.planner.width, session.planner.horizon) == (asked["width"], asked["horizon"])
    read_command('{"do": "plan_with", "name": "mcts", "horizon": 2, "simulations": 64}').apply(session)
    assert session.planner.name == "mcts", "which has no width"


@settings(max_examples=20, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_no_value_of_any_kind_is_more_than_refused(value: Any) -> None:
    for key, do in (("speed", "speed"), ("keys", "hold"), ("game", "game"), ("action", "step"), ("do", "do")):
        try:
            command = read_command(json.dumps({"do": do, key: value}))
        except UserError:
            continue
        assert command.do == do
