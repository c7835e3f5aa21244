"""Films of play: the frames of one episode a game, and their encoding as a video a web page can carry."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DECISIONS_PER_SECOND = 15  # the game's own speed: 60 frames a second, 4 frames a decision
_SCALE = 3


@dataclass(frozen=True)
class Film:
    """The opening of one episode: frames (T, 84, 84) uint8, the action (T,) played
    and the reward (T,) received at each.

    `seen` is what remains of the frames when they pass through the tokenizer, of the same shape, or None.
    """

    game: str
    mode: str
    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    seen: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Clip:
    """An encoded film: its bytes and their media type ("video/mp4" or "image/gif")."""

    media_type: str
    data: bytes


class FilmCamera:
    """Collects each game's first episode, at most `limit` decisions of it, while a rollout runs."""

    def __init__(self, games: Sequence[str], begins: NDArray[np.bool_], mode: str, limit: int) -> None:
        self._mode, self._limit = mode, limit
        first = {game: index for index, game in reversed(list(enumerate(games))) if begins[index]}
        self._index = dict(sorted(first.items())) if limit > 0 else {}
        self._shots: dict[str, list[tuple[NDArray[np.uint8], int, float]]] = {game: [] for game in self._index}
        self._rolling = set(self._index)

    def shoot(self, frames: NDArray[np.uint8], actions: NDArray[np.int64], rewards: NDArray[np.float32]) -> None:
        """Keeps one decision of the games still being filmed."""
        for game in tuple(self._rolling):
            i = self._index[game]
            self._shots[game].append((frames[i].copy(), int(actions[i]), float(rewards[i])))
            if len(self._shots[game]) >= self._limit:
                self._rolling.discard(game)

    def cut(self, ended: NDArray[np.bool_]) -> None:
        """Stops filming the environments (N,) whose episode ended."""
        self._rolling = {game for game in self._rolling if not ended[self._index[game]]}

    def films(self) -> tuple[Film, ...]:
        """What was collected, games in alphabetical order."""
        return tuple(
            Film(
                game,
                self._mode,
                np.stack([frame for frame, _, _ in shots]),
                np.array([action for _, action, _ in shots], np.int64),
                np.array([reward for _, _, reward in shots], np.float32),
            )
            for game, shots in self._shots.items()
            if shots
        )


def encode_film(film: Film) -> Clip:
    """An mp4 (H.264) where imageio-ffmpeg is installed, else an animated GIF of every third frame."""
    pictures = _pictures(film)
    if find_spec("imageio_ffmpeg") is not None:
        return Clip("video/mp4", _mp4(pictures))
    return Clip("image/gif", _gif(pictures[::3], milliseconds=3 * 1000 // DECISIONS_PER_SECOND))


def _pictures(film: Film) -> NDArray[np.uint8]:
    """The frames enlarged, beside what the tokenizer keeps of them where known: (T, height, width), both even."""
    panes = [film.frames] if film.seen is None else [film.frames, film.seen]
    large = [pane.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2) for pane in panes]
    gap = np.zeros((*large[0].shape[:2], 8), np.uint8)
    return large[0] if len(large) == 1 else np.concatenate([large[0], gap, large[1]], axis=2)


def _mp4(pictures: NDArray[np.uint8]) -> bytes:
    import imageio_ffmpeg

    height, width = pictures.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            pix_fmt_in="gray",
            fps=DECISIONS_PER_SECOND,
            codec="libx264",
            macro_block_size=2,
            output_params=["-crf", "26", "-movflags", "+faststart"],
        )
        writer.send(None)
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
        writer.close()
        return path.read_bytes()


def _gif(pictures: NDArray[np.uint8], milliseconds: int) -> bytes:
    images = [Image.fromarray(picture) for picture in pictures]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True)
    return buffer.getvalue()
