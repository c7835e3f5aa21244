"""The code cache: every frame encoded once by a frozen tokenizer and read as codes ever after.

The second stage of pretraining leaves the tokenizer as it is, so it can train on codes alone: 36 codes of 16 bits
take 72 bytes a frame instead of 7 056.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import jowa
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.files import locked_folder, replacing, require_writable_folder, write_json

Encode = Callable[[Tensor], Tensor]


class CodeCache:
    """Read access to the cached codes of some games."""

    def __init__(self, codes: Mapping[str, NDArray[np.uint16]]) -> None:
        """Wrap (N, K) uint16 arrays, one a game, whose rows are the store's rows."""
        self._codes = dict(codes)
        widths = {array.shape[1] for array in self._codes.values()}
        if len(widths) != 1:
            raise ValueError(f"games with different numbers of codes a frame: {sorted(widths)}")
        self.tokens_per_frame = widths.pop()

    @staticmethod
    def open(store: EpisodeStore, tokenizer_hash: str, games: Sequence[str] | None = None) -> CodeCache:
        """Map the caches that `build_codes` made; UserError if one is missing or damaged."""
        return CodeCache({
            game: _open(codes_path(store, game, tokenizer_hash), store.transitions(game))
            for game in (store.games if games is None else games)
        })

    def read(self, game: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Codes (..., K) int64 of rows of any shape (...); IndexError if one lies outside the game's data."""
        codes = self._codes[game]
        if rows.size and (rows.min() < 0 or rows.max() >= len(codes)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {game}, which has {len(codes)}")
        picked: NDArray[np.int64] = codes[rows].astype(np.int64)
        return picked


def codes_path(store: EpisodeStore, game: str, tokenizer_hash: str) -> Path:
    """Where the codes of one game lie; another tokenizer or other data give another file."""
    if not tokenizer_hash.isalnum():
        raise ValueError(f"a tokenizer hash must be letters and digits, not {tokenizer_hash!r}")
    return store.folder / "codes" / game / f"{tokenizer_hash}-{store.fingerprint(game)}.npy"


def build_codes(
    store: EpisodeStore,
    game: str,
    tokenizer_hash: str,
    encode: Encode,
    *,
    chunk: int = 256,
    progress: bool = False,
) -> Path:
    """Encode every frame of a game unless that has been done, and return the cache's path.

    A killed build leaves only a temporary file, which the next build starts over. Processes that build the same game
    at once take turns, so that the later ones find the cache made.

    Args:
        encode: frames (n, 1, 84, 84) uint8 on the CPU to integer codes (n, K) on any device.
        chunk: frames given to `encode` at once.
        progress: show a progress bar.

    Raises:
        UserError: the data folder can't be written, or a cache that is there is damaged.
    """
    path = codes_path(store, game, tokenizer_hash)
    if path.exists():
        _open(path, store.transitions(game))
        return path
    folder = require_writable_folder(path.parent, "data.path")
    with locked_folder(folder, wait=True):
        if not path.exists():
            provenance = {"game": game, "tokenizer": tokenizer_hash, "data": store.fingerprint(game),
                          "frames": store.transitions(game), "jowa_version": jowa.__version__}
            write_json(path.with_suffix(".json"), provenance)
            with tqdm(total=store.transitions(game), desc=f"encoding {game}", unit="frame",
                      disable=not progress) as bar, replacing(path) as temporary:
                _encode_to(temporary, store, game, encode, chunk, bar)
    return path


def _encode_to(path: Path, store: EpisodeStore, game: str, encode: Encode, chunk: int, bar: tqdm[Any]) -> None:
    total = store.transitions(game)
    # Plain writes, not a writable memmap: on a full disk these raise, where a memmap would kill the process.
    with path.open("wb") as handle:
        for start in range(0, total, chunk):
            frames = store.read_frames(game, slice(start, start + chunk))
            codes = _checked(encode(torch.from_numpy(frames[:, None])), len(frames))
            if start == 0:
                tokens = codes.shape[1]
                header = {"descr": "<u2", "fortran_order": False, "shape": (total, tokens)}
                np.lib.format.write_array_header_1_0(handle, header)
            if codes.shape[1] != tokens:
                raise ValueError(f"encode gave {tokens} codes a frame before and now {codes.shape[1]}")
            handle.write(codes.tobytes())
            bar.update(len(frames))


def _checked(codes: Tensor, frames: int) -> NDArray[np.uint16]:
    array = codes.detach().cpu().numpy()
    if array.ndim != 2 or len(array) != frames or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"encode must give integer codes ({frames}, K), not {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"codes {array.min()}..{array.max()} do not fit 16 bits")
    return array.astype("<u2")


def _open(path: Path, rows: int) -> NDArray[np.uint16]:
    remedy = f"delete {path} and start the run again, it will be made anew"
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"there are no cached codes at {path}: run `python -m jowa.pretrain`, which makes them, with "
                        "this tokenizer and data.path") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the code cache is damaged ({error}): {remedy}") from error
    if codes.ndim != 2 or codes.dtype != np.uint16 or len(codes) != rows:
        raise UserError(f"the code cache has {codes.dtype} {codes.shape} for {rows} frames: {remedy}")
    return np.asarray(codes)
