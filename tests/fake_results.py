"""An evaluation that never happened, for tests of results and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jowa.evaluation.diagnostics.world_model import ClassScore, CodeScore, WorldModelEvidence
from jowa.evaluation.films.film import Film, Thoughts
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.play.rollout import Rollout
from jowa.evaluation.results.results import DataScore, ModeResult, Results, score_mode
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.games import reference
from jowa.planning.strips import Strip

GAMES = ("Pong", "Breakout", "Pooyan")
_MEANS = {RANDOM: (-20.4, 1.3, 380.0), NO_PLANNING: (3.0, 14.0, 700.0), PLANNING: (14.5, 22.0, 2310.0)}


def fake_mode(mode: str, games: Sequence[str] = GAMES, episodes: int = 16, spread: float = 2.0) -> ModeResult:
    random = np.random.default_rng(len(mode))
    played = tuple(
        Episode(
            game, seed, mode, float(round(mean + spread * random.normal())), int(random.integers(200, 900)), True, False
        )
        for game, mean in zip(GAMES, _MEANS[mode], strict=True)
        if game in games
        for seed in range(episodes)
    )
    decisions = sum(episode.agent_steps for episode in played)
    references = {game: reference(game) for game in games}
    planner = {} if mode == RANDOM else {"name": "beam" if mode == PLANNING else "greedy", "width": 2, "context": 6}
    return score_mode(mode, planner, Rollout(played, decisions, 21.5), references, BootstrapConfig(resamples=500))


def fake_evidence(game: str) -> WorldModelEvidence:
    return WorldModelEvidence(
        game=game, sequences=812, steps=6120,
        next_code=CodeScore(5308, 0.951, 0.882, 0.118, 0.604),
        imagined=CodeScore(64, 0.932, 0.884, 0.116, 0.511),
        reward=(
            ClassScore("reward -1", 0, 0, None, None, None),
            ClassScore("no reward", 6000, 6010, 0.99, 0.99, 0.99),
            ClassScore("reward +1", 120, 110, 0.909, 0.833, 0.870),
        ),
        reward_macro_f1=0.87,
        termination=ClassScore("episode ends", 14, 12, 0.917, 0.786, 0.846),
    )  # fmt: skip


def fake_results(modes: Sequence[str] = (RANDOM, NO_PLANNING, PLANNING), games: Sequence[str] = GAMES) -> Results:
    return Results(
        created="2026-01-02 03:04 UTC",
        command="python -m jowa.evaluate ckpt=runs/demo",
        checkpoint="runs/demo",
        model={"name": "nano", "parameters": 1_234_567},
        protocol={"frame_skip": 4, "max_episode_frames": 108_000, "random_action_probability": 0.001},
        config={"episodes": 16, "planner": {"name": "beam", "width": 2}},
        seed=0,
        bootstrap=BootstrapConfig(resamples=500),
        modes=tuple(fake_mode(mode, games) for mode in modes),
        data={"Pong": DataScore(40, 9.5, 21.0), "Breakout": DataScore(210, 11.25, 84.0)},
        references={game: reference(game) for game in games},
        world_model=tuple(fake_evidence(name) for name in ("all games", *games)),
        roms=dict.fromkeys(games, "60e0ea3cbe0913d39803477945e9e5ec"),
        versions={"python": "3.11", "torch": "2.13.0"},
        wall_seconds=184.2,
    )


def write_metrics(path: Path) -> None:
    """A run's metrics in two stages, the last line torn."""
    random = np.random.default_rng(0)
    losses = {"stage1": (600, ["reconstruction", "observation"]), "stage2": (900, ["observation", "td"])}
    lines = []
    for stage, (steps, names) in losses.items():
        for step in range(1, steps, 3):
            level = 3 * np.exp(-step / 200) + 0.2
            values = {f"loss/{name}": float(level + 0.05 * random.normal()) for name in ("total", *names)}
            if step % 100 == 1:
                values |= {f"held_out/{name}": float(level + 0.1) for name in ("total", *names)}
            record = {"stage": stage, "step": step, "time": float(step), "note": "text", "speed/tokens_per_second": 9e3}
            lines.append(json.dumps(record | values))
    path.write_text("\n".join(lines) + '\n{"stage": "2", "st')


def fake_film(game: str, length: int = 30, seen: bool = True, futures: int | None = None) -> Film:
    """`futures` of two steps each are shown beside Q, 0 shows Q alone, None neither."""
    frames = _moving_square(length)
    actions, rewards = np.arange(length) % 3, (np.arange(length) % 10 == 9).astype(np.float32)
    thoughts = None if futures is None else fake_thoughts(frames, actions, futures)
    return Film(game, PLANNING, frames, actions, rewards, frames // 2 + 30 if seen else None, thoughts)


def fake_thoughts(frames: np.ndarray, actions: np.ndarray, futures: int) -> Thoughts:
    """The first future begins with the action played."""
    length, rows, steps = len(frames), max(futures, 1), 2 if futures else 0
    first = (actions[:, None] + np.arange(rows)) % 3
    along = np.repeat(first[:, :, None], steps, axis=2)
    imagined = np.broadcast_to(frames[:, None, None], (length, rows, steps, 84, 84)).copy()
    scores = np.broadcast_to(np.linspace(2, 1, rows), (length, rows)).copy()
    events = np.ones((length, rows, steps))
    q = np.arange(length * 18, dtype=np.float64).reshape(length, 18) / 18
    return Thoughts(np.arange(3), q, scores, first, along, imagined, 0 * events, events)


def fake_strip(game: str) -> Strip:
    frames = _moving_square(8)
    ahead, dreamed = (np.roll(frames // 2 + 30, shift, axis=2) for shift in (3, 6))
    return Strip(game, frames, frames // 2 + 30, ahead, dreamed, 4)


def _moving_square(length: int) -> np.ndarray:
    frames = np.full((length, 84, 84), 60, np.uint8)
    for step, frame in enumerate(frames):
        left = 6 + 2 * step % 60
        frame[10:20, :] = 90
        frame[40:48, left : left + 8] = 230
    return frames
