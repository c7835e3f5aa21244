"""RL Unplugged's files: which there are, where they lie in the bucket and on disk, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jowa.data.ranges import numbers
from jowa.data.sources import rlu
from jowa.errors import UserError
from jowa.games import check_game

FOLDER = "atari_episodes_ordered"


@dataclass(frozen=True, order=True)
class RawFile:
    """One of RL Unplugged's files: a run (1 to 5) of DQN on a game, a checkpoint (0 to 49) of it."""

    game: str
    run: int
    checkpoint: int

    @property
    def name(self) -> str:
        """Its name in the bucket."""
        return f"{FOLDER}/{self.game}/{self.file}"

    @property
    def file(self) -> str:
        """Its name within its game's folder."""
        return rlu.file_name(self.run, self.checkpoint)

    @property
    def part(self) -> str:
        """The name of the part of the store that it becomes."""
        return rlu.part_name(self.run, self.checkpoint)


def wanted_files(games: Sequence[str], runs: Sequence[str], checkpoints: Sequence[str]) -> tuple[RawFile, ...]:
    """The files of these games, runs ('2' or '1-5') and checkpoints ('7' or '0-49'), without repetitions.

    UserError for a game that RL Unplugged lacks and for numbers out of range.
    """
    if not games or len(set(games)) != len(games):
        raise UserError(f"games must name at least one game and none twice, not {list(games)}.")
    for game in games:
        if check_game(game, "games") not in rlu.GAMES:
            raise UserError(
                f"RL Unplugged has no {game}: take it out of games and make episodes of it with "
                f"`python -m jowa.data.record game=[{game}]`."
            )
    run_numbers = numbers("runs", runs, min(rlu.RUNS), max(rlu.RUNS))
    checkpoint_numbers = numbers("checkpoints", checkpoints, 0, rlu.CHECKPOINTS - 1)
    return tuple(RawFile(game, run, number) for game in games for run in run_numbers for number in checkpoint_numbers)


def raw_path(folder: Path, file: RawFile) -> Path:
    """Where a raw file lies in the folder of raw files."""
    return folder / file.game / file.file
