"""The ledger: every finished episode on a line of its own, kept the moment it ends, so that none is played twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_type_hints

from jowa.errors import UserError
from jowa.evaluation.play.episode import Episode
from jowa.files import full_disk, write_text

FILE = "episodes.jsonl"
_PART = "episodes.rank-{:04d}.jsonl"
_TYPES: dict[str, tuple[type, ...]] = {
    name: (int, float) if kind is float else (kind,) for name, kind in get_type_hints(Episode).items()
}

Key = tuple[str, str, int]
"""(mode, game, seed): an evaluation has one episode of each."""


def key_of(episode: Episode) -> Key:
    return episode.mode, episode.game, episode.seed


class Ledger:
    """One process's part of a ledger in an existing folder; processes never write to the same file.

    A line is on disk before `keep` returns; of one that was cut short by a kill nothing counts.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / _PART.format(rank)

    def keep(self, episode: Episode) -> None:
        """Append a finished episode. Raises UserError when the disk is full."""
        line = (json.dumps(asdict(episode), allow_nan=False) + "\n").encode()
        then = "give the same command again; finished episodes are kept"
        with full_disk(self._path, then), self._path.open("ab") as file:
            # Whatever half a line an earlier process left is closed, so that this one stands alone.
            if file.tell() and not _ends_a_line(self._path):
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def read_ledger(folder: Path) -> dict[Key, Episode]:
    """All episodes kept in a folder, by any number of processes. Raises UserError for a line that is none."""
    kept: dict[Key, Episode] = {}
    for path in [folder / FILE, *sorted(folder.glob(_PART.format(0).replace("0000", "*")))]:
        if path.is_file():
            kept |= {key_of(episode): episode for episode in _read(path)}
    return kept


def close_ledger(folder: Path, order: Sequence[Key]) -> None:
    """Make the parts one file, with the episodes in that order, whoever played them and when."""
    kept = read_ledger(folder)
    write_text(folder / FILE, "".join(json.dumps(asdict(kept[key])) + "\n" for key in order))
    for path in folder.glob(_PART.format(0).replace("0000", "*")):
        path.unlink()


def _read(path: Path) -> Iterable[Episode]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            whole = isinstance(entry, dict) and set(entry) == set(_TYPES)
            whole = whole and all(isinstance(entry[name], kinds) for name, kinds in _TYPES.items())
        except ValueError:
            whole = False
        if whole:
            yield Episode(**entry)
        elif line.endswith(b"}"):
            raise UserError(f"{path}, line {number}, is no episode: move the folder away and start anew.")


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
