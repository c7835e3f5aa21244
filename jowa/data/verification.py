"""Checks a store against itself: every file's checksum, and everything that must hold of its contents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data.layout import (
    COLUMNS,
    FORMAT,
    FRAMES,
    MANIFEST,
    OtherFormat,
    Unreadable,
    other_format,
    read_error,
)
from jowa.data.open_part import sha256
from jowa.data.parts import Part, game_folders, part_folders, register_from_store
from jowa.data.writer import differing_facts
from jowa.errors import UserError
from jowa.games import NUM_ACTIONS, is_game, legal_mask

Advance = Callable[[int], Any]
"""Told how many agent steps have just been checked."""

_READ = 4096
"""Frames in memory at once: 29 MB."""


Finding = str | Unreadable
"""What is wrong, or what can't be told since a file is out of reach."""


@dataclass(frozen=True)
class GameVerdict:
    """What was found of one game.

    Attributes:
        game: ALE name.
        parts, episodes, transitions: how many there are, as far as they could be read.
        problems: what is damaged.
        unreadable: what is out of reach, and may be sound.
        mixed: facts that its parts don't agree about, which is no problem where mixing was allowed.
    """

    game: str
    parts: int
    episodes: int
    transitions: int
    problems: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()


def games_in(folder: Path, wanted: Sequence[str] = ()) -> list[str]:
    """The games to check: those wanted, or all there are, also ones of which no part is whole.

    Raises:
        UserError: there are none, or not those, or they can't be looked for, or a game's parts are of different
            environments.
    """
    found = [game for game in wanted or game_folders(folder) if part_folders(folder, game)]
    missing = [game for game in wanted if game not in found]
    if missing or not found:
        what = f"no recorded episodes of {', '.join(missing)}" if missing else "no recorded episodes"
        raise UserError(f"{what} in {folder}: set path to the folder that has them.")
    for game in found:
        register_from_store(folder, game)
    return found


def transitions_in(folder: Path, game: str) -> int:
    """Agent steps that a game's manifests speak of, as far as they can be read, without looking any further.

    Raises:
        OtherFormat: another version of jowa wrote one of them, and only that one can check it.
    """
    total = 0
    for part in part_folders(folder, game):
        try:
            content = json.loads((part / MANIFEST).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise other_format(part / MANIFEST, content["format"])
            total += int(content["transitions"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return total


def verify_game(folder: Path, game: str, advance: Advance = lambda steps: None) -> GameVerdict:
    """Check all parts of a game, each on its own, so that a damaged one hides nothing of the others.

    Raises:
        OtherFormat: another version of jowa wrote one of them.
    """
    parts = part_folders(folder, game)
    findings: list[Finding] = []
    mixed: dict[str, None] = {}
    first: Part | None = None
    episodes = transitions = 0
    for path in parts:
        found = list(_check_files(path))
        try:
            part = Part(path, 0)
        except OtherFormat:
            raise
        except UserError as error:
            # Where files are damaged or out of reach, this says the same once more.
            found = found or [_finding(error)]
        else:
            first = first or part
            mixed |= dict.fromkeys(differing_facts(first.provenance, part.provenance))
            episodes, transitions = episodes + part.episodes, transitions + part.transitions
            whole = not any(str(one).startswith(f"{path / FRAMES}/") for one in found)
            found += _check_part(part, game, advance if whole else None)
        findings += found
    problems = tuple(one for one in findings if isinstance(one, str))
    unreadable = tuple(str(one) for one in findings if isinstance(one, Unreadable))
    return GameVerdict(game, len(parts), episodes, transitions, problems, unreadable, tuple(mixed))


def _check_files(part: Path) -> Iterator[Finding]:
    """Every file that the manifest names is there and is what it was; nothing else is."""
    try:
        files = json.loads((part / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        known = read_error(part / MANIFEST, error)
        reason = type(error).__name__
        yield known if isinstance(known, Unreadable) else f"{part / MANIFEST} can't be read ({reason})."
        return
    for name, (size, digest) in expected.items():
        yield from _check_file(part / name, size, digest)
    there = (path for path in sorted(part.rglob("*")) if not path.name.startswith("."))
    for path in there:
        if path.relative_to(part).as_posix() not in {*expected, MANIFEST} and path.is_file():
            yield f"{path} belongs to nothing: the manifest doesn't name it."


def _check_file(path: Path, size: int, digest: str) -> Iterator[Finding]:
    try:
        actual = path.stat().st_size
        if actual != size:
            yield f"{path} has {actual} bytes where {size} were committed."
        elif sha256(path) != digest:
            yield f"{path} isn't what was committed: its sha256 has changed."
    except OSError as error:
        known = read_error(path, error)
        yield known if isinstance(known, Unreadable) else f"{path} is missing."


def _check_part(part: Part, game: str, advance: Advance | None) -> Iterator[Finding]:
    """The contents of a part that can be opened; without `advance` its frames are left alone."""
    if part.manifest.game != game:
        yield f"{part.folder / MANIFEST} is of {part.manifest.game}, not of {game}."
    columns = {}
    for name in COLUMNS:
        try:
            columns[name] = part.column(name)
        except UserError as error:
            yield _finding(error)
    if len(columns) == len(COLUMNS):
        yield from _check_columns(part, game, columns)
    if advance is not None:
        yield from _check_frames(part, advance)


def _check_columns(part: Part, game: str, columns: dict[str, Any]) -> Iterator[str]:
    """Legal actions, finite rewards, ends where games ended, and returns that are the rewards' sums."""
    table, actions, rewards = part.table, columns["actions"], columns["rewards"]
    legal = np.zeros(256, np.bool_)
    known = legal_mask(game) if is_game(game) else np.ones(NUM_ACTIONS, np.bool_)
    legal[: len(known)] = known
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


def _check_frames(part: Part, advance: Advance) -> Iterator[Finding]:
    """Every shard can be read, and none is all black."""
    try:
        frames = part.frames
    except UserError as error:
        yield _finding(error)
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
            yield _finding(read_error(part.folder / FRAMES, error))
            continue
        if black:
            yield f"{part.folder / FRAMES}: shard {number}, rows {first} … {last - 1}, is all black."


def _finding(error: UserError) -> Finding:
    return error if isinstance(error, Unreadable) else str(error)
