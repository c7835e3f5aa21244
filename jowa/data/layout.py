"""How episodes lie on disk: the names, types and counts that the writer and the store share.

    <store>/<Game>/<part>/frames/         Zarr v3 array (T, 84, 84) uint8: shards of 16 384 frames, zstd, crc32c
    <store>/<Game>/<part>/actions.npy     (T,) uint8; rewards.npy (T,) float32; ends.npy (T,) bool
    <store>/<Game>/<part>/episodes.jsonl  a line an episode: start, length, return, terminated, info
    <store>/<Game>/<part>/manifest.json   counts, provenance, and every file's size and sha256

A part is what one recording or one imported file gave. It is written under a temporary name, renamed when it is whole
and never changed again: writers of different parts don't meet, and what a killed one leaves behind is never read. The
frames of any part open in any Zarr library.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jowa.errors import UserError
from jowa.files import write_json

FRAME_SHAPE = (84, 84)
FORMAT = 2
MANIFEST = "manifest.json"
EPISODES = "episodes.jsonl"
FRAMES = "frames"
COLUMNS: dict[str, np.dtype[Any]] = {"actions": np.dtype("u1"), "rewards": np.dtype("<f4"), "ends": np.dtype("?")}
"""What beside its frame a row (agent step) has; each in a file of its own."""

SHARD = 16_384
"""Frames a file holds: written whole, at most 116 MB in memory."""
CHUNK = 16
"""Frames compressed together: 8 read faster, 16 take a fifth less."""

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


def column_file(name: str) -> str:
    """The file of a column."""
    return f"{name}.npy"


@dataclass(frozen=True)
class Manifest:
    """What a part holds.

    Attributes:
        game: ALE name.
        transitions: rows (agent steps).
        episodes: how many.
        files: for every file, by its path inside the part, its size in bytes and its sha256.
        provenance: where the episodes come from: source, run, checkpoint, ROM MD5, stickiness …
        jowa_version: of the program that wrote them.
        format: version of this layout.
    """

    game: str
    transitions: int
    episodes: int
    files: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any]
    jowa_version: str
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(int(entry["bytes"]) for entry in self.files.values())

    def write(self, folder: Path) -> None:
        """Write it into a part's folder."""
        write_json(folder / MANIFEST, asdict(self))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read a part's manifest; UserError if it can't be read, or files have other sizes than it says."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise other_format(path, content["format"])
            manifest = Manifest(**content)
            sizes = {name: int(entry["bytes"]) for name, entry in manifest.files.items()}
            needed = {EPISODES, *map(column_file, COLUMNS)}
            consistent = needed <= set(sizes) and manifest.transitions >= manifest.episodes > 0
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise read_error(path, error) from error
        if not consistent:
            raise damaged(path, "its counts and files contradict each other")
        for name, size in sizes.items():
            try:
                actual = (folder / name).stat().st_size
            except OSError as error:
                raise read_error(folder / name, error) from error
            if actual != size:
                raise damaged(folder / name, f"{actual} bytes where {size} were committed")
        return manifest


class Unreadable(UserError):
    """Data that can't be read now, and may be sound for all that is known."""


class OtherFormat(UserError):
    """Data that another version of jowa wrote, and that may be sound."""


def damaged(path: Path, reason: str) -> UserError:
    """The error for data that can't be trusted; `path` is a file of a part."""
    return UserError(f"{path} is damaged ({reason}): remove that part's folder and record or import it again.")


def unreadable(path: Path, reason: str) -> Unreadable:
    """The error for data out of reach, which nobody should be told to remove; `path` is a file or a folder."""
    return Unreadable(f"{path} can't be read ({reason}): mend its permissions, or the disk that it is on.")


def read_error(path: Path, error: Exception) -> UserError:
    """What it means that reading a file of a part failed: it is missing or damaged, or out of reach."""
    text = str(error).split(" [", 1)[0]
    number = error.errno if isinstance(error, OSError) else None
    # tensorstore knows ValueErrors only.
    if said := re.search(r"os_error_code='(\d+)'", str(error)):
        number = int(said[1])
    elif text.startswith("PERMISSION_DENIED"):
        number = errno.EACCES
    if number is None:
        return damaged(path, f"{type(error).__name__}: {text}")
    reason = os.strerror(number)
    return damaged(path, reason) if number in _MISSING else unreadable(path, reason)


def other_format(path: Path, version: object) -> OtherFormat:
    """The error for a part that another version of jowa wrote."""
    newer = isinstance(version, int) and version > FORMAT
    remedy = "use a newer jowa" if newer else "record or import the data again"
    return OtherFormat(f"{path} has format {version}, this jowa reads format {FORMAT}: {remedy}.")
