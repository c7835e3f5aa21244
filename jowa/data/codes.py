"""The code cache: every frame encoded once by a frozen tokenizer and read as codes ever after.

The second stage of pretraining leaves the tokenizer as it is, so it can train on codes alone: 36 codes of 16 bits
take 72 bytes a frame instead of 7 056.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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

BLOCK = 4_096
"""Frames that one process encodes at a time; a killed one loses at most these."""


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
        codes = {}
        for game in store.games if games is None else games:
            path = codes_path(store, game, tokenizer_hash)
            try:
                codes[game] = _open(path, store.transitions(game))
            except FileNotFoundError:
                raise UserError(
                    f"there are no cached codes at {path}: run `python -m jowa.pretrain`, which makes them, with "
                    "this tokenizer and data.path"
                ) from None
        return CodeCache(codes)

    def read(self, game: str, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
        """Codes (..., K) of rows of any shape (...); IndexError if one lies outside the game's data."""
        codes = self._codes[game]
        if rows.size and (rows.min() < 0 or rows.max() >= len(codes)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {game}, which has {len(codes)}")
        # They have just been checked: clipping does nothing but spare a second, slower check.
        picked: NDArray[np.uint16] = codes.take(rows, axis=0, mode="clip")
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
    block: int = BLOCK,
    share: float = 0.0,
    progress: bool = False,
) -> Path:
    """Encode every frame of a game unless that has been done, and return the cache's path.

    Any number of processes may build the same game at once, the ranks of one run or several runs: each takes blocks
    that nobody else is at, finished blocks are kept when a process is killed, and the cache appears when it is whole.

    Args:
        encode: frames (n, 1, 84, 84) uint8 on the CPU to integer codes (n, K) on any device.
        chunk: frames given to `encode` at once.
        block: frames a block.
        share: which part of the game to begin with, 0 to 1: with different ones processes hardly meet.
        progress: show a progress bar.

    Raises:
        UserError: the data folder can't be written, or a cache that is there is damaged.
    """
    path = codes_path(store, game, tokenizer_hash)
    total = store.transitions(game)
    if not path.exists():
        facts = {"game": game, "tokenizer": tokenizer_hash, "data": store.fingerprint(game), "frames": total}
        _build(path, store, facts, encode, chunk, block, share, progress)
    _open(path, total)
    for folder in path.parent.glob(f"{path.stem}.*.blocks"):
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _build(
    path: Path, store: EpisodeStore, facts: dict[str, Any], encode: Encode, chunk: int, block: int, share: float,
    progress: bool,
) -> None:  # fmt: skip
    game, total = facts["game"], facts["frames"]
    # A folder for each size: blocks of another one, which a killed process left, are no part of these.
    folder = require_writable_folder(path.with_suffix(f".{block}.blocks"), "data.path")
    blocks = _blocks(folder, total, block)
    try:
        with tqdm(total=total, desc=f"encoding {game}", unit="frame", disable=not progress) as bar:
            for file, rows in _todo(blocks, share, path):
                _encode_block(file, store, game, rows, encode, chunk, bar)
            bar.update(total - bar.n)  # what others did
        _join(path, blocks, {**facts, "jowa_version": jowa.__version__})
    except FileNotFoundError:
        # Where there are no locks, another process may have joined the blocks and removed them meanwhile.
        if not path.exists():
            raise


def _blocks(folder: Path, total: int, block: int) -> dict[Path, slice]:
    """The files that make a cache of `total` frames, in order, and their rows."""
    rows = (slice(start, min(start + block, total)) for start in range(0, total, block))
    return {folder / f"{some.start:012d}-{some.stop:012d}.npy": some for some in rows}


def _todo(blocks: Mapping[Path, slice], share: float, cache: Path) -> Iterator[tuple[Path, slice]]:
    """The blocks that this process is to make, its lock held while it does; none more once the cache is there."""
    items = list(blocks.items())
    first = int(share * len(items))
    # First what nobody is at, then, waiting for them, what others have died over.
    for wait in (False, True):
        for file, rows in items[first:] + items[:first]:
            with _block_lock(file.with_name(f"{rows.start:012d}.lock"), wait) as mine:
                if mine and not file.exists() and not cache.exists():
                    yield file, rows


@contextlib.contextmanager
def _block_lock(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process holds the block's lock; where there are no locks, work may be done twice."""
    try:
        handle = path.open("ab")
    except FileNotFoundError:  # the blocks are joined and gone
        yield False
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True


def _encode_block(
    path: Path, store: EpisodeStore, game: str, rows: slice, encode: Encode, chunk: int, bar: tqdm[Any]
) -> None:
    parts = []
    for start in range(rows.start, rows.stop, chunk):
        frames = store.read_frames(game, slice(start, min(start + chunk, rows.stop)))
        parts.append(_checked(encode(torch.from_numpy(frames[:, None])), len(frames)))
        bar.update(len(frames))
    if len({part.shape[1] for part in parts}) != 1:
        raise ValueError("encode gave different numbers of codes a frame")
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.concatenate(parts))


def _join(path: Path, blocks: Mapping[Path, slice], provenance: dict[str, Any]) -> None:
    """Make the cache from its blocks."""
    with locked_folder(path.parent, wait=True):
        if path.exists():
            return
        # Plain writes, not a writable memmap: on a full disk these raise, where a memmap would kill the process.
        with replacing(path) as temporary, temporary.open("wb") as handle:
            tokens = None
            for file, rows in blocks.items():
                part = _open(file, rows.stop - rows.start)
                if tokens is None:
                    tokens = part.shape[1]
                    header = {"descr": "<u2", "fortran_order": False, "shape": (provenance["frames"], tokens)}
                    np.lib.format.write_array_header_1_0(handle, header)
                if part.shape[1] != tokens:
                    raise ValueError(f"encode gave {tokens} codes a frame before and now {part.shape[1]}")
                handle.write(part.tobytes())
        write_json(path.with_suffix(".json"), provenance)


def _checked(codes: Tensor, frames: int) -> NDArray[np.uint16]:
    array = codes.detach().cpu().numpy()
    if array.ndim != 2 or len(array) != frames or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"encode must give integer codes ({frames}, K), not {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"codes {array.min()}..{array.max()} do not fit 16 bits")
    return array.astype("<u2")


def _open(path: Path, rows: int) -> NDArray[np.uint16]:
    """Map a file of codes (rows, K); FileNotFoundError if there is none, UserError if it is anything else."""
    remedy = f"delete {path} and start the run again, it will be made anew"
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the code cache is damaged ({error}): {remedy}") from error
    if codes.ndim != 2 or codes.dtype != np.uint16 or len(codes) != rows:
        raise UserError(f"the code cache has {codes.dtype} {codes.shape} for {rows} frames: {remedy}")
    if size != codes.offset + codes.nbytes:
        raise UserError(f"the code cache has {size - codes.offset} bytes of codes, not {codes.nbytes}: {remedy}")
    # Random reads of a cold file would wait for the disk one by one; all processes share what is read in now.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        codes._mmap.madvise(mmap.MADV_WILLNEED)
    return np.asarray(codes)
