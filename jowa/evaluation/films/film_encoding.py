"""Films as videos that a web page can carry."""

import io
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jowa.evaluation.films.film import DECISIONS_PER_SECOND, Film
from jowa.evaluation.films.film_pictures import FilmPictures


@dataclass(frozen=True)
class Clip:
    """An encoded film: its bytes and their media type ("video/mp4" or "image/gif")."""

    media_type: str
    data: bytes


def encode_film(film: Film) -> Clip:
    """An mp4 (H.264) where imageio-ffmpeg is installed, else an animated GIF of every third frame."""
    if find_spec("imageio_ffmpeg") is not None:
        return Clip("video/mp4", _mp4(FilmPictures(film)))
    return Clip("image/gif", _gif(FilmPictures(film), milliseconds=3 * 1000 // DECISIONS_PER_SECOND))


def _mp4(pictures: FilmPictures) -> bytes:
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            pictures.size,
            pix_fmt_in="rgb24",
            fps=DECISIONS_PER_SECOND,
            codec="libx264",
            macro_block_size=2,
            output_params=["-crf", "27", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        writer.send(None)
        for step in range(len(pictures)):
            writer.send(pictures.draw(step).tobytes())
        writer.close()
        return path.read_bytes()


def _gif(pictures: FilmPictures, milliseconds: int) -> bytes:
    images = [pictures.draw(step).quantize(64) for step in range(0, len(pictures), 3)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True)
    return buffer.getvalue()
