"""One array of a gzipped .npy file, read row by row: the whole of it need not fit into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from jowa.data.sources.streams import GzipStream
from jowa.errors import UserError


class NpyStream(GzipStream):
    """A context manager over one file; its methods raise UserError, naming it, as those of GzipStream do.

    Attributes:
        shape: (N, ...) of the array, or () of a single number.
        dtype: of the array.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its header; UserError if it has none or is in Fortran's order."""
        super().__init__(path)
        try:
            # What numpy wants of a file is to read from it.
            file = cast(Any, self)
            version = npy_format.read_magic(file)
            read_header = {
                (1, 0): npy_format.read_array_header_1_0,
                (2, 0): npy_format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"version {version}")
            self.shape, fortran, self.dtype = read_header(file)
        except ValueError as error:
            self.close()
            raise UserError(f"{path} is no gzipped .npy file ({error}).") from error
        except UserError:
            self.close()
            raise
        if fortran and len(self.shape) > 1:
            self.close()
            raise UserError(f"{path} is in Fortran's order, not in C's.")

    def rows(self, count: int) -> NDArray[Any]:
        """The next `count` rows, (count, ...); UserError if the file claims to have more of them than can be held."""
        try:
            array = np.empty((count, *self.shape[1:]), self.dtype)
        except (MemoryError, ValueError) as error:
            promise = f"{describe(self.dtype, self.shape)}, more than fits into memory"
            raise UserError(f"{self.path} is damaged: its header promises {promise}.") from error
        self.read_into(array)
        return array

    def skip_rows(self, count: int) -> None:
        """Leave out the next `count` rows."""
        self.skip(count * self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64)))


def read_column(path: Path, dtype: str) -> NDArray[Any]:
    """A whole array (N,) of the given type; UserError if it is of another type or shape, truncated or damaged."""
    with NpyStream(path) as stream:
        if stream.dtype != np.dtype(dtype) or len(stream.shape) != 1:
            raise UserError(f"{path} holds {describe(stream.dtype, stream.shape)}, not {np.dtype(dtype)} (N,).")
        column = stream.rows(stream.shape[0])
        stream.finish()
        return column


def read_integer(path: Path) -> int:
    """A single whole number; UserError if the file holds something else, is truncated or damaged."""
    with NpyStream(path) as stream:
        if stream.dtype.kind not in "iu" or stream.shape not in ((), (1,)):
            raise UserError(f"{path} holds {describe(stream.dtype, stream.shape)}, not one whole number.")
        number = np.empty(1, stream.dtype)
        stream.read_into(number)
        stream.finish()
        return int(number[0])


def describe(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """`float32 (5000, 84)`."""
    return f"{dtype} {shape}"
