"""A session as a page is told of it: JSON values, pictures as data URLs."""

from __future__ import annotations

import io
import json
import math
from typing import Any

from PIL import Image

from jowa.evaluation.pages.page import data_url
from jowa.games import action_names, legal_actions
from jowa.planning.config import PLANNERS
from jowa.playing.commands import MOST_FUTURES, MOST_IMAGINED
from jowa.playing.history import Frame
from jowa.playing.keys import keys_of, no_op
from jowa.playing.roster import never_seen, other_games, trained_games
from jowa.playing.session import SPEEDS, Session
from jowa.playing.thought import Future, Thought
from jowa.published_scores import official_evaluation


def opening(session: Session) -> str:
    """What a page needs to know once: the games and the limits."""
    agent, model = session.agent, session.agent.model.config
    planners = [name for name in PLANNERS if name != "published" or official_evaluation(model.name)]
    limits = {"blocks": session.blocks, "width": MOST_FUTURES, "simulations": MOST_IMAGINED, "speed": SPEEDS}
    return _json(
        {"kind": "opening", "model": model.name, "trained": trained_games(agent), "others": other_games(agent),
         "planners": planners, "limits": limits}
    )  # fmt: skip


def present(session: Session, problem: str = "") -> str:
    """The session at this moment; `problem` is why it can't go on, if it can't."""
    names = action_names(session.game)
    world, real, played = session.world, session.real, session.played
    thought = None if problem else session.thought
    return _json(
        {
            "kind": "state",
            "game": session.game,
            "warning": never_seen(session.agent, session.game),
            "notice": session.notice,
            "problem": problem,
            "running": session.running,
            "speed": session.speed,
            "driver": session.driver,
            "shows_plan": session.shows_plan,
            "world": "dream" if session.dreaming else "real",
            "elsewhere": session.elsewhere,
            "start": session.start,
            "temperature": session.temperature,
            "seed": real.seed,
            "score": world.score,
            "real_score": real.score,
            "agent_steps": world.agent_steps,
            "reward": world.reward,
            "lives": None if session.dreaming else real.lives,
            "played": played and {"action": names[played.action], "by": played.by},
            "holds": None if session.holds is None else names[session.holds],
            "actions": [{"action": action, "name": names[action]} for action in legal_actions(session.game)],
            "keys": keys_of(session.game),
            "waits": no_op(session.game) is None,
            "planner": {key: getattr(session.planner, key) for key in _SETTINGS},
            "screen": picture(world.history.frame),
            "seen": picture(session.thinker.decode(world.history.codes)),
            "waiting": picture(real.history.frame) if session.dreaming else None,
            "plan": thought and _plan(thought, names),
        }
    )


_SETTINGS = ("name", "width", "horizon", "context", "simulations", "depth")


def done() -> str:
    """That a message was carried out: the states that follow show it."""
    return _json({"kind": "done"})


def refusal(sentence: str) -> str:
    """That a message was refused, and why."""
    return _json({"kind": "refusal", "sentence": sentence})


def trouble(problem: str) -> str:
    """Why not even the session's state can be told; what was told last is still shown."""
    return _json({"kind": "trouble", "problem": problem})


def picture(frame: Frame) -> str:
    """A frame (84, 84) uint8 as a PNG's data URL."""
    buffer = io.BytesIO()
    # Speed counts more than a few hundred bytes that travel within one machine.
    Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return data_url("image/png", buffer.getvalue())


def _plan(thought: Thought, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "action": thought.action,
        "name": names[thought.action],
        "value": _finite(thought.value),
        "q": [{"action": action, "name": names[action], "q": _finite(q)} for action, q in thought.q.items()],
        "futures": [_future(future, names) for future in thought.futures],
    }


def _future(future: Future, names: tuple[str, ...]) -> dict[str, Any]:
    steps = [
        {"name": names[step.action], "reward": step.reward, "ends": step.ends, "frame": picture(step.frame)}
        for step in future.steps
    ]
    return {"score": _finite(future.score), "action": future.action, "name": names[future.action], "steps": steps}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False)
