"""Checks a store against itself: every file's checksum, and everything that must hold of its contents."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data.layout import ACTIONS, COLUMNS, FRAMES, MANIFEST, damaged
from jowa.data.open_part import sha256
from jowa.data.parts import Part, has_episodes
from jowa.data.writer import differing_facts
from jowa.errors import UserError
from jowa.games import GAMES, legal_mask

Advance = Callable[[int], Any]
"""Told how many agent steps have just been checked."""

_READ = 4096
"""Frames in memory at once: 29 MB."""


@dataclass(frozen=True)
class GameVerdict:
    """What was found of one game: its parts, episodes and agent steps as far as they could be read, and problems.

    `mixed` are facts that its parts don't agree about, which is no problem where mixing was allowed.
    """

    game: str
    parts: int
    episodes: int
    transitions: int
    problems: tuple[str, ...]
    mixed: tuple[str, ...] = ()


def games_in(folder: Path, wanted: Sequence[str] = ()) -> list[str]:
    """The games to check: those wanted, or all there are, also ones of which no part is whole.

    Raises:
        UserError: there are none, or not those.
    """
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = [name for name in folders if (name in GAMES and part_folders(folder, name)) or has_episodes(folder, name)]
    missing = [game for game in wanted if game not in found]
    if missing or not found:
        what = f"no recorded episodes of {', '.join(missing)}" if missing else "no recorded episodes"
        raise UserError(f"{what} in {folder}: set path to the folder that has them.")
    return list(wanted) or found


def part_folders(folder: Path, game: str) -> list[Path]:
    """A game's parts, with or without a manifest; what a killed writer left is none."""
    return sorted(path for path in (folder / game).iterdir() if path.is_dir() and not path.name.startswith("."))


def transitions_in(folder: Path, game: str) -> int:
    """Agent steps that a game's manifests speak of, as far as they can be read, without looking any further."""
    total = 0
    for part in part_folders(folder, game):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            total += int(json.loads((part / MANIFEST).read_text(encoding="utf-8"))["transitions"])
    return total


def verify_game(folder: Path, game: str, advance: Advance = lambda steps: None) -> GameVerdict:
    """Check all parts of a game, each on its own, so that a damaged one hides nothing of the others."""
    parts = part_folders(folder, game)
    problems: list[str] = []
    mixed: dict[str, None] = {}
    first: Part | None = None
    episodes = transitions = 0
    for path in parts:
        found = list(_check_files(path))
        try:
            part = Part(path, 0)
        except UserError as error:
            # Where files are damaged, this says the same once more.
            found = found or [str(error)]
        else:
            first = first or part
            mixed |= dict.fromkeys(differing_facts(first.provenance, part.provenance))
            episodes, transitions = episodes + part.episodes, transitions + part.transitions
            whole = not any(one.startswith(f"{path / FRAMES}/") for one in found)
            found += _check_part(part, game, advance if whole else None)
        problems += found
    return GameVerdict(game, len(parts), episodes, transitions, tuple(problems), tuple(mixed))


def _check_files(part: Path) -> Iterator[str]:
    """Every file that the manifest names is there and is what it was; nothing else is."""
    try:
        files = json.loads((part / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        yield f"{part / MANIFEST} can't be read ({type(error).__name__})."
        return
    for name, (size, digest) in expected.items():
        path = part / name
        if not path.is_file():
            yield f"{path} is missing."
        elif path.stat().st_size != size:
            yield f"{path} has {path.stat().st_size} bytes where {size} were committed."
        elif sha256(path) != digest:
            yield f"{path} isn't what was committed: its sha256 has changed."
    there = (path for path in sorted(part.rglob("*")) if path.is_file() and not path.name.startswith("."))
    for path in there:
        if path.relative_to(part).as_posix() not in {*expected, MANIFEST}:
            yield f"{path} belongs to nothing: the manifest doesn't name it."


def _check_part(part: Part, game: str, advance: Advance | None) -> Iterator[str]:
    """The contents of a part that can be opened; without `advance` its frames are left alone."""
    if part.manifest.game != game:
        yield f"{part.folder / MANIFEST} is of {part.manifest.game}, not of {game}."
    columns = {}
    for name in COLUMNS:
        try:
            columns[name] = part.column(name)
        except UserError as error:
            yield str(error)
    if len(columns) == len(COLUMNS):
        yield from _check_columns(part, game, columns)
    if advance is not None:
        yield from _check_frames(part, advance)


def _check_columns(part: Part, game: str, columns: dict[str, Any]) -> Iterator[str]:
    """Legal actions, finite rewards, ends where games ended, and returns that are the rewards' sums."""
    table, actions, rewards = part.table, columns["actions"], columns["rewards"]
    legal = np.zeros(256, np.bool_)
    legal[:ACTIONS] = legal_mask(game) if game in GAMES else True
    if not legal[actions].all():
        row = int(np.flatnonzero(~legal[actions])[0])
        what = f"action {actions[row]} at row {row} is none of {game}'s"
        yield f"{part.folder}: {what} ({int((~legal[actions]).sum())} such rows)."
    finite = np.isfinite(rewards)
    if not finite.all():
        yield f"{part.folder}: the reward at row {int(np.flatnonzero(~finite)[0])} is {rewards[~finite][0]}."
    ends = np.zeros(part.transitions, np.bool_)
    ends[(table.starts + table.lengths - 1)[table.terminated]] = True
    if not np.array_equal(ends, columns["ends"]):
        row = int(np.flatnonzero(ends != columns["ends"])[0])
        yield f"{part.folder}: row {row} {'should be' if ends[row] else 'should not be'} the end of a game."
    sums = np.add.reduceat(rewards.astype(np.float64), table.starts)
    wrong = ~np.isclose(sums, table.returns, rtol=1e-6, atol=1e-6)
    if finite.all() and wrong.any():
        episode = int(np.flatnonzero(wrong)[0])
        what = f"episode {episode} has the return {table.returns[episode]}, its rewards sum to {sums[episode]}"
        yield f"{part.folder}: {what} ({int(wrong.sum())} such episodes)."


def _check_frames(part: Part, advance: Advance) -> Iterator[str]:
    """Every shard can be read, and none is all black."""
    try:
        frames = part.frames
    except UserError as error:
        yield str(error)
        return
    shard = int(frames.chunk_layout.write_chunk.shape[0])
    for number, first in enumerate(range(0, part.transitions, shard)):
        last = min(first + shard, part.transitions)
        black = True
        try:
            for start in range(first, last, _READ):
                stop = min(start + _READ, last)
                black = not frames[start:stop].read().result().any() and black
                advance(stop - start)
        except ValueError as error:
            yield str(damaged(part.folder / FRAMES, str(error).split(" [", 1)[0]))
            continue
        if black:
            yield f"{part.folder / FRAMES}: shard {number}, rows {first} … {last - 1}, is all black."
