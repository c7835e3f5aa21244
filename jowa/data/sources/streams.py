"""Gzip-compressed files read as a stream, to their very end, so that a truncated or damaged one is noticed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError

try:  # Decompresses several times as fast; the standard library does without it.
    from isal import igzip, isal_zlib

    _open: Any = igzip.open
    _BROKEN: tuple[Any, ...] = (EOFError, OSError, zlib.error, isal_zlib.error)
except ImportError:
    _open = gzip.open
    _BROKEN = (EOFError, OSError, zlib.error)

_PIECE = 1 << 20


class GzipStream:
    """The decompressed bytes of one file; a context manager. Every method raises UserError, naming the file, where
    the file can't be read, is damaged, or holds less than is asked for."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path = path
        try:
            # An empty file would pass for the gzip of nothing.
            empty = path.stat().st_size == 0
            self._file = _open(path, "rb")
        except OSError as error:
            raise UserError(f"{path} can't be read ({error.strerror or error}).") from error
        if empty:
            self.close()
            raise UserError(f"{path} is empty: get it again.")

    def read(self, count: int) -> bytes:
        """At most `count` bytes; fewer only at the end of the file."""
        try:
            content: bytes = self._file.read(count)
        except _BROKEN as error:
            raise UserError(f"{self.path} is truncated or damaged ({error}): get it again.") from error
        return content

    def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        content = self.read(count)
        if len(content) < count:
            raise UserError(f"{self.path} ends too early: it is truncated; get it again.")
        return content

    def read_into(self, array: NDArray[Any]) -> None:
        """Fill a contiguous array, a piece at a time."""
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE]
            piece[:] = np.frombuffer(self.read_exactly(len(piece)), np.uint8)

    def skip(self, count: int) -> None:
        """Leave out `count` bytes."""
        while count > 0:
            count -= len(self.read_exactly(min(count, _PIECE)))

    def finish(self) -> None:
        """Check that this is the end of the file, where its checksum is."""
        if self.read(1):
            raise UserError(f"{self.path} goes on after its end: it is damaged; get it again.")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
