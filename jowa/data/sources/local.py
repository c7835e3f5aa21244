"""Where the files of a source lie on a local disk: what was asked for, as parts to import, and what isn't there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jowa.data.sources import dqn_replay, minari, rlu
from jowa.data.sources.dqn_logs import log_files
from jowa.errors import UserError
from jowa.games import GAMES

SOURCES = ("rlu", "dqn_replay", "minari")
# The buckets' own folders above those of the games.
_ABOVE = {"rlu": ("", "atari_episodes_ordered"), "dqn_replay": ("", "dqn")}

LAYOUTS = {"rlu": "<Game>/run_1-00000-of-00050", "dqn_replay": "<Game>/1/replay_logs", "minari": "metadata.json"}
"""What must lie in the folder that a path names, or, for Minari, anywhere below it."""


@dataclass(frozen=True)
class Wish:
    """What is to be imported from a path; None stands for everything that is found there."""

    source: str
    path: Path
    games: tuple[str, ...] | None = None
    runs: tuple[int, ...] | None = None
    checkpoints: tuple[int, ...] | None = None
    keep_stack_padding: bool = False


@dataclass(frozen=True)
class Unit:
    """What becomes one part of the store.

    Attributes:
        game: ALE name.
        part: name of the part.
        path: the file (rlu), the run's `replay_logs` (dqn_replay) or the data set's folder (minari).
        checkpoint: number, 0 if the source has none.
        provenance: what the store will keep.
    """

    game: str
    part: str
    path: Path
    checkpoint: int
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """jobs: units of one game and run each, in the order of the checkpoints. missing: by name, what isn't there."""

    jobs: tuple[tuple[Unit, ...], ...]
    missing: tuple[str, ...]


def find(wish: Wish) -> Findings:
    """Look for what is wished; UserError if the path can't be read."""
    look = {"rlu": _find_rlu, "dqn_replay": _find_dqn_replay, "minari": _find_minari}[wish.source]
    try:
        if wish.source != "minari" and not wish.path.is_dir():
            raise UserError(f"path={wish.path} is no folder: set path to the one with {wish.source}'s files.")
        jobs, missing = look(wish)
    except OSError as error:
        raise UserError(f"path={wish.path} can't be read ({error.strerror or error}).") from error
    return Findings(tuple(tuple(job) for job in jobs if job), tuple(missing))


def _find_rlu(wish: Wish) -> tuple[list[list[Unit]], list[str]]:
    jobs, missing = [], []
    for game, folder in _game_folders(wish).items():
        found = _numbered(folder, rf"run_(\d+)-(\d{{5}})-of-{rlu.CHECKPOINTS:05d}")
        if not found and wish.runs is None:
            missing.append(_nothing(game, folder))
        for run in _chosen(wish.runs, [run for run, _ in found]):
            there = [checkpoint for of_run, checkpoint in found if of_run == run]
            if not there and wish.checkpoints is None:
                missing.append(f"{game}, run {run}: {folder / f'run_{run}-*'}")
            job = []
            for checkpoint in _chosen(wish.checkpoints, there):
                path = folder / rlu.file_name(run, checkpoint)
                if checkpoint not in there:
                    missing.append(str(path))
                    continue
                facts = rlu.provenance(game, run, checkpoint)
                job.append(Unit(game, rlu.part_name(run, checkpoint), path, checkpoint, facts))
            jobs.append(job)
    return jobs, missing


def _find_dqn_replay(wish: Wish) -> tuple[list[list[Unit]], list[str]]:
    jobs, missing = [], []
    for game, folder in _game_folders(wish).items():
        runs = [run for (run,) in _numbered(folder, r"(\d+)")]
        if not runs and wish.runs is None:
            missing.append(_nothing(game, folder))
        for run in _chosen(wish.runs, runs):
            logs = folder / str(run) / "replay_logs"
            there = [number for (number,) in _numbered(logs, r"\$store\$_\w+_ckpt\.(\d+)\.gz")]
            if not there and wish.checkpoints is None:
                missing.append(f"{game}, run {run}: {logs}")
            job = []
            for checkpoint in _chosen(wish.checkpoints, there):
                absent = [path for path in log_files(logs, checkpoint).values() if not path.is_file()]
                missing += map(str, absent)
                if not absent:
                    facts = dqn_replay.provenance(game, run, checkpoint, wish.keep_stack_padding)
                    job.append(Unit(game, dqn_replay.part_name(run, checkpoint), logs, checkpoint, facts))
            jobs.append(job)
    return jobs, missing


def _find_minari(wish: Wish) -> tuple[list[list[Unit]], list[str]]:
    sources = minari.find(str(wish.path))
    games = wish.games
    if len(sources) == 1 and sources[0].game is None and games is not None and len(games) == 1:
        pairs = [(sources[0], games[0])]
    else:
        known = [(source, source.game) for source in sources if source.game is not None]
        pairs = [(source, game) for source, game in known if games is None or game in games]
    missing = [f"{game}: {wish.path}" for game in games or () if game not in {game for _, game in pairs}]
    if not pairs and games is None:
        raise UserError(f"{wish.path} doesn't say of which game it is: set games to that one.")
    jobs = [[Unit(game, source.part, source.folder, 0, minari.provenance(source, game))] for source, game in pairs]
    return jobs, missing


def _game_folders(wish: Wish) -> dict[str, Path]:
    """The folder of every game asked for, or of every one that has a folder."""
    tops = [wish.path / above for above in _ABOVE[wish.source]]
    folders = {}
    for game in wish.games or GAMES:
        there = [top / game for top in tops if (top / game).is_dir()]
        if there or wish.games:
            folders[game] = there[0] if there else tops[0] / game
    return folders


def _numbered(folder: Path, pattern: str) -> list[tuple[int, ...]]:
    """The numbers in the names of a folder's entries, each combination once, ascending; none without a folder."""
    if not folder.is_dir():
        return []
    matches = (re.fullmatch(pattern, path.name) for path in folder.iterdir())
    return sorted({tuple(map(int, match.groups())) for match in matches if match})


def _chosen(wanted: Sequence[int] | None, found: Sequence[int]) -> list[int]:
    return sorted(set(found if wanted is None else wanted))


def _nothing(game: str, folder: Path) -> str:
    return f"{game}: {folder}"
