"""Writing a game's episodes from the store as a Minari data set, without loss: importing it gives the same episodes."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jowa
from jowa.data.layout import FRAME_SHAPE
from jowa.data.open_part import TemporaryFolder, sweep
from jowa.data.sources.minari import OUR_FACTS, import_minari
from jowa.data.store import EpisodeStore
from jowa.data.workers import GoesOn, Stopped, in_processes
from jowa.errors import UserError
from jowa.files import full_disk, sync_file, sync_folder
from jowa.games import num_actions

_STEP_BYTES = math.prod(FRAME_SHAPE) + 16
"""What an agent step takes, uncompressed: its frame, 8 bytes of action, 4 of reward, both ends."""
_NAME = re.compile(r"[-_\w]+(/[-_\w]+)*-v\d+")
_DESCRIPTION = (
    "Frames of 84×84 grey pixels, one for each agent step of four emulator frames, and actions in ALE's full set. The "
    "frame after an episode's last action isn't known: the last observation repeats the one before it."
)


def check_name(name: str) -> None:
    """UserError if a Minari data set can't bear that name."""
    if not _NAME.fullmatch(name):
        raise UserError(f"dataset must be like atari/pong/mine-v0, with a version at the end, not {name}.")


def export_minari(store: EpisodeStore, game: str, name: str, out: Path, advance: Callable[[int], Any]) -> Path:
    """Write all of a game's episodes.

    Args:
        store: has the game.
        game: ALE name.
        name: the data set's id, `atari/pong/mine-v0`.
        out: the folder for Minari data sets; MINARI_DATASETS_PATH set to it, Minari finds the data set by its id.
        advance: told how many episodes more are written.

    Returns:
        The data set's folder, `<out>/<name>`.

    Raises:
        UserError: the minari package is missing, there is a data set of that name, or no room for it; nothing is left
            of a failed one.
    """
    check_name(name)
    import_minari()
    folder = out / name
    there = UserError(f"{folder} is there already: remove it, or set dataset or out to another.")
    if folder.exists():
        raise there
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, f"{folder.name}.")
    _require_room(store, game, folder)
    temporary = TemporaryFolder(folder.parent, f"{folder.name}.")
    try:
        job = _Job(store.folder, game, name, temporary.path / "data")
        # Where the disk is full all the same, HDF5 takes the process that uses it with it.
        died = f"The process that was writing to {out} died, probably since the disk is full: make room, start again."
        in_processes(_write_job, [job], 1, advance, died)
        for path in temporary.path.rglob("*"):
            (sync_folder if path.is_dir() else sync_file)(path)
        if not temporary.rename(folder):
            raise there
    finally:
        temporary.discard()
    return folder


def _require_room(store: EpisodeStore, game: str, folder: Path) -> None:
    needed = (store.transitions(game) + len(store.tables[game])) * _STEP_BYTES
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f"{folder} will take {needed / 1e6:.0f} MB, uncompressed, and {free / 1e6:.0f} MB are free: make room or "
            "set out to another disk."
        )


class _Job(NamedTuple):
    """A game of a store, to be written as a data set of that name into a folder that isn't there."""

    store: Path
    game: str
    name: str
    folder: Path


def _write_job(job: _Job, goes_on: GoesOn) -> None:
    # After a failure HDF5 complains of every object that is open, before it crashes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with full_disk(job.folder):
        _write(import_minari(), job.folder, EpisodeStore(job.store, [job.game]), job.game, job.name, goes_on)


def _write(minari: Any, folder: Path, store: EpisodeStore, game: str, name: str, goes_on: GoesOn) -> None:
    from gymnasium.spaces import Box, Discrete

    spaces = {"observation_space": Box(0, 255, FRAME_SHAPE, np.uint8), "action_space": Discrete(num_actions(game))}
    try:
        storage = minari.dataset.minari_storage.MinariStorage.new(folder, **spaces, jpeg_encoding=False)
    except ImportError as error:
        raise UserError("Writing Minari data sets needs h5py: pip install 'jowa[minari]'.") from error
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            "algorithm_name": ", ".join(map(str, _facts(store, game, "source"))),
            "description": _DESCRIPTION,
            "requirements": [f"jowa>={jowa.__version__}"],
            OUR_FACTS: _known(store, game),
        }
    )
    for number in range(len(store.tables[game])):
        storage.update_episodes([_buffer(minari, store, game, number)])
        if not goes_on(1):
            raise Stopped


def _buffer(minari: Any, store: EpisodeStore, game: str, number: int) -> Any:
    table = store.tables[game]
    rows = store.read(game, np.arange(table.starts[number], table.starts[number] + table.lengths[number]))
    assert rows.frames is not None
    ended = np.zeros(len(rows.actions), np.bool_)
    ended[-1] = True
    terminated = bool(table.terminated[number])
    return minari.data_collector.EpisodeBuffer(
        observations=np.concatenate([rows.frames, rows.frames[-1:]]),
        actions=rows.actions.astype(np.int64),
        rewards=rows.rewards,
        terminations=ended & terminated,
        truncations=ended & (not terminated),
    )


def _known(store: EpisodeStore, game: str) -> dict[str, Any]:
    """What a re-import must know; a fact that differs between the game's parts is left unknown."""
    facts: dict[str, Any] = {"game": game}
    for fact in ("rom_md5", "sticky", "rewards"):
        values = _facts(store, game, fact)
        facts[fact] = values[0] if len(values) == 1 else None
    return facts


def _facts(store: EpisodeStore, game: str, fact: str) -> list[Any]:
    """The different values that the game's parts give, unknown ones included."""
    values: Iterable[Any] = (part.provenance.get(fact) for part in store.parts(game))
    return list(dict.fromkeys(values))
