"""Minari data sets: those of Atari games, as Farama publishes them, and those that `jowa.data.export` writes.

The published ones (`atari/<game>/expert-v0`) hold ALE's raw RGB screens, one for each agent step of four frames. The
maximum over a step's last two frames can't be had from them, so they are only made grey and shrunk by area.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import FRAME_SHAPE
from jowa.data.sources.actions import full_actions
from jowa.data.sources.episode import SourceEpisode
from jowa.errors import UserError
from jowa.games import GAMES, NUM_ACTIONS, legal_actions, legal_mask

METADATA = "metadata.json"
OUR_FACTS = "jowa"
"""The key of the metadata under which an export keeps what a re-import must know."""
_RGB_WIDTH = 160


@dataclass(frozen=True)
class MinariSource:
    """A data set on disk.

    Attributes:
        folder: the one with `metadata.json`.
        name: its id, `atari/pong/expert-v0`.
        game: ALE name, None if the metadata don't say or name a game that isn't one of the 60.
        metadata: as stored.
    """

    folder: Path
    name: str
    game: str | None
    metadata: dict[str, Any]

    @property
    def part(self) -> str:
        """The part of the store that holds its episodes: `minari-atari-pong-expert-v0`."""
        return f"minari-{self.name.strip('/').replace('/', '-')}"


def find(path: str) -> list[MinariSource]:
    """The data sets at a path: a data set's folder, a folder that has some below it, or the id of an installed one.

    Raises:
        UserError: there are none, one's metadata can't be read, or the minari package is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        folder = _installed(path)
    data = [folder] if (folder / METADATA).is_file() else sorted(file.parent for file in folder.rglob(METADATA))
    if not data:
        raise UserError(f"There is no Minari data set in {folder}: set path to a data set's folder or id.")
    return [_described(one) for one in data]


def provenance(source: MinariSource, game: str) -> dict[str, Any]:
    """What the store keeps about a data set's episodes."""
    ours = source.metadata.get(OUR_FACTS) or {}
    settings = _environment(source.metadata).get("kwargs", {})
    stickiness = settings.get("repeat_action_probability")
    if not isinstance(stickiness, int | float | None):
        raise UserError(f"{source.folder} names {stickiness!r} as its repeat_action_probability, which is no number.")
    return {
        "source": "minari",
        "game": game,
        "dataset": source.name,
        "algorithm": source.metadata.get("algorithm_name"),
        "rewards": ours.get("rewards", "raw"),
        "rom_md5": ours.get("rom_md5"),
        "sticky": ours.get("sticky", None if stickiness is None else stickiness > 0),
        "frameskip": settings.get("frameskip"),
        "preprocessing": "stored as 84×84 grey" if ours else "RGB to grey, area resize; no maximum over two frames",
    }


def episodes(source: MinariSource, game: str) -> Iterator[SourceEpisode]:
    """The episodes, in their order; each is held in memory with its raw screens, 100 KB a step.

    Raises:
        UserError: the minari package is missing, the data can't be read, or they are no Atari screens and actions.
    """
    minari = import_minari()
    try:
        data = minari.MinariDataset(source.folder)
    except Exception as error:
        # Whatever Minari, gymnasium and h5py raise for files that are none of theirs.
        raise UserError(f"{source.folder} can't be opened as a Minari data set ({_first_line(error)}).") from error
    _check_frame_skip(source)
    full = _has_full_set(data.action_space, game, str(source.folder))
    numbered = iter(data.iterate_episodes())
    for number in range(data.total_episodes):
        where = f"{source.folder}, episode {number}"
        try:
            episode = next(numbered)
        except Exception as error:
            raise UserError(f"{where} can't be read ({_first_line(error)}).") from error
        yield _episode(episode, game, full, where)


def import_minari() -> Any:
    """The package; UserError that says how to install it."""
    try:
        import minari
        import minari.dataset.minari_storage
    except ImportError as error:
        raise UserError("Minari data sets need the minari package: pip install 'jowa[minari]'.") from error
    return minari


def _installed(name: str) -> Path:
    minari = import_minari()
    try:
        return Path(minari.load_dataset(name).storage.data_path)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise UserError(f"path={name} is neither a folder nor the id of an installed Minari data set.") from error


def _described(folder: Path) -> MinariSource:
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        name = str(metadata["dataset_id"])
        if not isinstance(metadata.get(OUR_FACTS) or {}, dict):
            raise ValueError(f"{OUR_FACTS} is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read as a Minari data set's ({type(error).__name__}: {error}).") from error
    ours = metadata.get(OUR_FACTS) or {}
    settings = _environment(metadata)
    hints = [ours.get("game"), settings.get("kwargs", {}).get("game"), settings.get("id"), *name.split("/")]
    games = {game.lower(): game for game in GAMES}
    plain = (str(hint).lower().replace("_", "").removeprefix("ale/").split("-")[0] for hint in hints)
    game = next((games[hint] for hint in plain if hint in games), None)
    return MinariSource(folder, name, game, metadata)


def _environment(metadata: dict[str, Any]) -> dict[str, Any]:
    """What gymnasium noted about the environment that was played; empty if that isn't known."""
    with contextlib.suppress(ValueError, TypeError):
        specification = json.loads(metadata.get("env_spec") or "{}")
        if isinstance(specification, dict) and isinstance(specification.get("kwargs", {}), dict):
            return specification
    return {}


def _check_frame_skip(source: MinariSource) -> None:
    played = _environment(source.metadata)
    frame_skip = played.get("kwargs", {}).get("frameskip")
    # A wrapper may have skipped frames in its stead.
    if frame_skip not in (None, 4) and not played.get("additional_wrappers"):
        raise UserError(f"{source.folder} was played with frameskip={frame_skip}, but an agent step is of 4 frames.")


def _has_full_set(space: Any, game: str, where: str) -> bool:
    """Whether actions are indices into the full set of 18, not into the game's minimal set."""
    size, start = getattr(space, "n", None), getattr(space, "start", None)
    if start != 0 or size not in (NUM_ACTIONS, len(legal_actions(game))):
        raise UserError(
            f"{where} has the action space {space}, but {game} has {len(legal_actions(game))} actions and the full set "
            f"{NUM_ACTIONS}."
        )
    return bool(size == NUM_ACTIONS)


def _episode(episode: Any, game: str, full: bool, where: str) -> SourceEpisode:
    actions, rewards = np.asarray(episode.actions), np.asarray(episode.rewards)
    steps = len(rewards)
    lengths = {len(actions), len(episode.terminations), len(episode.truncations), len(episode.observations) - 1}
    if lengths != {steps} or steps < 1:
        raise UserError(f"{where} must have one observation more than rewards ({steps}), and as many of the rest.")
    if not np.isfinite(rewards).all():
        raise UserError(f"{where} has rewards that are not finite.")
    if actions.dtype.kind not in "iu" or (actions < 0).any() or (actions >= NUM_ACTIONS).any():
        raise UserError(f"{where} has actions that are no numbers from 0 to {NUM_ACTIONS - 1}.")
    if full and not legal_mask(game)[actions].all():
        raise UserError(f"{where} has the action {actions[~legal_mask(game)[actions]][0]}, which {game} hasn't.")
    if np.asarray(episode.terminations)[:-1].any():
        raise UserError(f"{where} terminates before its last step.")
    return SourceEpisode(
        frames=_frames(np.asarray(episode.observations)[:steps], where),
        actions=actions.astype(np.uint8) if full else full_actions(actions, game, where),
        rewards=rewards.astype(np.float32),
        terminated=bool(episode.terminations[-1]),
        info={"episode": int(episode.id)},
    )


def _frames(screens: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """(T, 84, 84) of grey frames, or of RGB screens (T, H, 160, 3)."""
    if screens.dtype == np.uint8 and screens.shape[1:] == FRAME_SHAPE:
        return screens
    if screens.dtype == np.uint8 and screens.shape[1:] == (*FRAME_SHAPE, 1):
        return screens[..., 0]
    height, colours = screens.shape[1] if screens.ndim == 4 else 0, (_RGB_WIDTH, 3)
    if screens.dtype != np.uint8 or screens.shape[2:] != colours or height < FRAME_SHAPE[0]:
        raise UserError(
            f"{where} has observations {screens.dtype} {screens.shape[1:]}, neither RGB screens (210, 160, 3) nor grey "
            "frames (84, 84)."
        )
    frames = np.empty((len(screens), *FRAME_SHAPE), np.uint8)
    for frame, screen in zip(frames, screens, strict=True):
        grey = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)
        frame[:] = cv2.resize(grey, FRAME_SHAPE[::-1], interpolation=cv2.INTER_AREA)
    return frames


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
