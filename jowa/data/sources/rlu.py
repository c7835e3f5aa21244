"""RL Unplugged's Atari files: 46 games, 5 runs, 50 checkpoints each, one gzipped TFRecord file a checkpoint.

Every record is a whole episode with raw and clipped rewards and PNG frames, 84×84, grey. Fields: `checkpoint_idx`,
`episode_idx`, `episode_return`, `clipped_episode_return`, and, one entry a frame, `observations`, `actions` (indices
into the game's minimal set), `unclipped_rewards`, `clipped_rewards`, `discounts`. An episode of T transitions has T + 1
entries: the action and the reward of the last one mean nothing, a last discount of 0 says that the game was over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import FRAME_SHAPE
from jowa.data.sources.actions import full_actions
from jowa.data.sources.episode import SourceEpisode
from jowa.data.sources.tfrecord import Example, parse_example, read_records
from jowa.errors import UserError
from jowa.games import GAMES as ALL_GAMES

RUNS = (1, 2, 3, 4, 5)
CHECKPOINTS = 50

_ABSENT = (
    "AirRaid", "Asteroids", "Berzerk", "Bowling", "ElevatorAction", "JourneyEscape", "MontezumaRevenge", "Pitfall",
    "PrivateEye", "Skiing", "Solaris", "Tennis", "Tutankham", "Venture",
)  # fmt: skip
GAMES: tuple[str, ...] = tuple(game for game in ALL_GAMES if game not in _ABSENT)
"""The games it has."""

_SCALARS = {"checkpoint_idx": int, "episode_idx": int}
_SERIES = ("observations", "actions", "unclipped_rewards", "clipped_rewards", "discounts")


def file_name(run: int, checkpoint: int) -> str:
    """`run_1-00003-of-00050` for run 1 (of 1 to 5), checkpoint 3 (of 0 to 49)."""
    return f"run_{run}-{checkpoint:05d}-of-{CHECKPOINTS:05d}"


def part_name(run: int, checkpoint: int) -> str:
    """The part of the store that holds a file's episodes: `rlu-1-00003`."""
    return f"rlu-{run}-{checkpoint:05d}"


def provenance(game: str, run: int, checkpoint: int) -> dict[str, Any]:
    """What the store keeps about a file's episodes. Which ROM was played isn't known, so `rom_md5` is None."""
    return {
        "source": "rlu",
        "game": game,
        "run": run,
        "checkpoint": checkpoint,
        "rewards": "raw",
        "rom_md5": None,
        "sticky": True,
    }


def episodes(path: Path, game: str, say: Callable[[str], None] = lambda _: None) -> Iterator[SourceEpisode]:
    """The episodes of one file, in its order, with raw rewards; read one at a time.

    Args:
        path: the file.
        game: ALE name.
        say: told, a sentence for each kind, where episodes contradict the file's name or themselves. That refuses
            nothing: how the numbers were meant is written down nowhere.

    Raises:
        UserError: the file can't be read, is truncated or damaged, or holds something else than described above.
    """
    number = 0
    contradictions: dict[str, list[str]] = {}
    for number, record in enumerate(read_records(path), start=1):
        example = parse_example(record, path)
        episode = _episode(example, game, f"{path}, episode {number}")
        for kind, what in _contradictions(path, example, episode):
            contradictions.setdefault(kind, []).append(what)
        yield episode
    if not number:
        raise UserError(f"{path} holds no episode: get it again.")
    for kind, found in contradictions.items():
        say(f"{path}: {len(found)} of {number} episodes {kind}, the first {found[0]}.")


def _contradictions(path: Path, example: Example, episode: SourceEpisode) -> Iterator[tuple[str, str]]:
    """What of an episode contradicts itself or the name of its file: the kind, and how."""
    named = re.search(r"-(\d{5})-of-", path.name)
    index = example["checkpoint_idx"][0]
    if named and int(named[1]) != index:
        yield "name another checkpoint than the file's name", str(index)
    stated, rewards = example.get("episode_return"), episode.rewards.sum(dtype=np.float64)
    if stated and isinstance(stated[0], float) and not np.isclose(stated[0], rewards, rtol=1e-5, atol=1e-3):
        yield "state another return than their rewards sum to", f"{stated[0]:g} and not {rewards:g}"


def _episode(example: Example, game: str, where: str) -> SourceEpisode:
    missing = [name for name in (*_SCALARS, *_SERIES) if not example.get(name)]
    if missing:
        raise UserError(f"{where} has no {', '.join(missing)}: it isn't of RL Unplugged's Atari data.")
    lengths = {name: len(example[name]) for name in _SERIES}
    if len(set(lengths.values())) > 1 or lengths["observations"] < 2:
        described = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{where} must have two frames at least and as many entries of everything, not {described}.")
    steps = lengths["observations"] - 1
    return SourceEpisode(
        frames=_frames(example["observations"][:steps], where),
        actions=full_actions(_numbers(example, "actions", where)[:steps], game, where),
        rewards=_rewards(example, steps, where),
        terminated=_terminated(_numbers(example, "discounts", where), where),
        info={name: kind(example[name][0]) for name, kind in _SCALARS.items()},
    )


def _numbers(example: Example, name: str, where: str) -> NDArray[Any]:
    values = np.array(example[name])
    if values.dtype.kind not in "if":
        raise UserError(f"{where} has {name} that are no numbers.")
    return values


def _rewards(example: Example, steps: int, where: str) -> NDArray[np.float32]:
    raw = _numbers(example, "unclipped_rewards", where)[:steps].astype(np.float32)
    clipped = _numbers(example, "clipped_rewards", where)[:steps]
    if not np.isfinite(raw).all():
        raise UserError(f"{where} has rewards that are not finite.")
    wrong = np.flatnonzero(np.sign(raw) != clipped)
    if len(wrong):
        step = int(wrong[0])
        raise UserError(f"{where}: at step {step} the reward is {raw[step]}, but {clipped[step]} when clipped.")
    return raw


def _terminated(discounts: NDArray[Any], where: str) -> bool:
    if not np.isfinite(discounts).all() or (discounts[:-1] == 0).any():
        raise UserError(f"{where} has a discount that ends the game before its last frame.")
    return bool(discounts[-1] == 0)


def _frames(pictures: list[Any], where: str) -> NDArray[np.uint8]:
    frames = np.empty((len(pictures), *FRAME_SHAPE), np.uint8)
    for step, picture in enumerate(pictures):
        usable = isinstance(picture, bytes) and len(picture) > 0
        frame = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED) if usable else None
        if frame is None:
            raise UserError(f"{where}: frame {step} is no picture that can be decoded.")
        if frame.shape != FRAME_SHAPE or frame.dtype != np.uint8:
            raise UserError(f"{where}: frame {step} is {frame.shape} {frame.dtype}, not 84×84 grey of 8 bits.")
        frames[step] = frame
    return frames
