"""Frames on disk: one sharded, compressed Zarr v3 array a part, read and written through tensorstore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from numpy.typing import NDArray

from jowa.data.layout import CHUNK, FRAME_SHAPE, SHARD

# Frames are copied into the caller's array at once; a cache would only hold a second copy.
_NO_CACHE = {"cache_pool": {"total_bytes_limit": 0}}


class FrameWriter:
    """Appends frames to a new array, a whole shard at a time."""

    def __init__(self, folder: Path, shard: int = SHARD, chunk: int = CHUNK) -> None:
        """Make the array. `shard` frames go into a file, `chunk` of them are compressed together."""
        self._shard = -(-shard // chunk) * chunk
        self._array = tensorstore.open(_description(folder, self._shard, chunk)).result()
        self._waiting: list[NDArray[np.uint8]] = []
        self._held = self._written = 0

    def append(self, frames: NDArray[np.uint8]) -> None:
        """Add frames (T, 84, 84) uint8; they are on disk when their shard is full or the writer is closed."""
        while len(frames):
            room = self._shard - self._held
            # A copy: the caller may go on to use its array for other frames.
            self._waiting.append(frames[:room].copy())
            self._held += len(self._waiting[-1])
            frames = frames[room:]
            if self._held == self._shard:
                self._write()

    def close(self, count: int) -> None:
        """Write what is still held of the first `count` frames, as a last, shorter shard, and drop what follows them.

        An `append` that failed, on a full disk say, may have added some of its frames.
        """
        if count > self._written:
            self._write()
        self._resize(count)
        if self._written < count:
            raise RuntimeError(f"{self._written} frames were written, not {count}")

    def _write(self) -> None:
        frames = np.concatenate(self._waiting)
        end = self._written + len(frames)
        self._resize(end)
        self._array[self._written : end].write(frames).result()
        self._waiting, self._held, self._written = [], 0, end

    def _resize(self, count: int) -> None:
        # What the array knows of its size is out of date where writing failed after resizing.
        self._array = self._array.resize(exclusive_max=[count, *FRAME_SHAPE]).result()


def open_frames(folder: Path) -> Any:
    """An array of frames for reading; a missing shard is an error, not a black picture.

    Raises:
        ValueError: there is no such array.
    """
    return tensorstore.open(
        {"driver": "zarr3", "kvstore": _files(folder), "fill_missing_data_reads": False, "context": _NO_CACHE},
        read=True,
        open=True,
    ).result()


def _files(folder: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{folder.absolute()}/"}


def _description(folder: Path, shard: int, chunk: int) -> dict[str, Any]:
    inner = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3}}, {"name": "crc32c"}]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": [chunk, *FRAME_SHAPE], "codecs": inner, "index_codecs": index}
    return {
        "driver": "zarr3",
        "kvstore": _files(folder),
        "metadata": {
            "shape": [0, *FRAME_SHAPE],
            "data_type": "uint8",
            "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *FRAME_SHAPE]}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        },
        "create": True,
        # Black frames are data: left out, they could not be told from lost ones.
        "store_data_equal_to_fill_value": True,
        "context": _NO_CACHE,
    }
