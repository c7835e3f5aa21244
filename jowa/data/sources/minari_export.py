"""Writing a game's episodes from the store as a Minari data set, without loss: importing it gives the same episodes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import jowa
from jowa.data.layout import FRAME_SHAPE
from jowa.data.sources.minari import OUR_FACTS, import_minari
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.games import NUM_ACTIONS

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
        UserError: the minari package is missing, or there is a data set of that name; nothing is left of a failed one.
    """
    check_name(name)
    minari = import_minari()
    folder = out / name
    if folder.exists():
        raise UserError(f"{folder} is there already: remove it, or set dataset or out to another.")
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(minari, temporary / "data", store, game, name, advance)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _write(minari: Any, folder: Path, store: EpisodeStore, game: str, name: str, advance: Callable[[int], Any]) -> None:
    from gymnasium.spaces import Box, Discrete

    spaces = {"observation_space": Box(0, 255, FRAME_SHAPE, np.uint8), "action_space": Discrete(NUM_ACTIONS)}
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
        advance(1)


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
