"""Fetching RL Unplugged's files: a plan of what is missing, then download → import → delete, one file after another.

A thread downloads the next file while the present one is imported, so that at most two raw files are on disk unless
they are to be kept. What has been imported is a part of the store and is never fetched again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from jowa.data.prefetch import Prefetch
from jowa.data.raw_files import FOLDER, RawFile, raw_path
from jowa.data.sources import rlu
from jowa.data.sources.bucket import Advance, Bucket, RemoteObject, Unavailable
from jowa.data.sources.episode import SourceEpisode
from jowa.data.sources.parts import Added, write_part
from jowa.data.store import EpisodeWriter, committed_parts
from jowa.errors import UserError
from jowa.files import lock_file, require_writable_folder

BUCKET = "rl_unplugged"
WORK_FOLDER = ".fetch"
"""Where raw files lie for a while, inside the store, so that space is needed on one disk only."""
_WAIT = 0.5
"""Seconds between two looks at whether others have finished."""


@dataclass(frozen=True)
class Plan:
    """What was asked for, in order, and where it is.

    Attributes:
        wanted: every file asked for.
        there: those whose parts the store has already.
        available: those to be fetched, as the bucket describes them.
        lacking: those that neither the store nor the bucket has.
    """

    wanted: tuple[RawFile, ...]
    there: tuple[RawFile, ...]
    available: dict[RawFile, RemoteObject]
    lacking: tuple[RawFile, ...]

    @property
    def size(self) -> int:
        """Bytes of the files to be fetched."""
        return sum(remote.size for remote in self.available.values())


@dataclass(frozen=True)
class Outcome:
    """What became of the files that the store lacked.

    Attributes:
        results: the part a file became, or the reason why it could not be had; None if another process has made it.
        notes: what else is worth knowing.
    """

    results: dict[RawFile, Added | str | None]
    notes: list[str] = field(default_factory=list)

    @property
    def added(self) -> dict[RawFile, Added]:
        """The files that are parts now."""
        return {file: result for file, result in self.results.items() if isinstance(result, Added)}

    @property
    def failed(self) -> dict[RawFile, str]:
        """The files that could not be had, with the reasons."""
        return {file: result for file, result in self.results.items() if isinstance(result, str)}

    @property
    def there(self) -> tuple[RawFile, ...]:
        """The files that others have made parts of meanwhile."""
        return tuple(file for file, result in self.results.items() if result is None)


@dataclass(frozen=True)
class _Download:
    """A file that has been downloaded, or hasn't for a reason, or need not be; its lock is to be closed."""

    file: RawFile
    lock: contextlib.ExitStack
    reason: str | None = None
    there: bool = False
    note: str | None = None


class _Unreadable(Exception):
    """Something is wrong with a file, not with the store."""


def check_store(out: str, wanted: Sequence[RawFile], allow_mixed: bool, make: bool = True) -> Path:
    """The store's folder; UserError if it can't be written or holds what is not to be mixed with.

    Without `make` a folder that isn't there is not made, and nothing is wrong with it.
    """
    store = Path(out) if not make and not Path(out).exists() else require_writable_folder(out, "out")
    for file in {file.game: file for file in wanted}.values():
        if committed_parts(store, file.game):
            facts = rlu.provenance(file.game, file.run, file.checkpoint)
            EpisodeWriter(store, file.game, provenance=facts, append=True, allow_mixed=allow_mixed).close()
    return store


def make_plan(wanted: Sequence[RawFile], store: Path, bucket: Bucket) -> Plan:
    """Look what the store has and, where something is missing, what the bucket has; UserError if it can't be listed."""
    parts = {game: committed_parts(store, game) for game in {file.game for file in wanted}}
    there = tuple(file for file in wanted if file.part in parts[file.game])
    missing = [file for file in wanted if file.part not in parts[file.game]]
    listing: dict[str, RemoteObject] = {}
    for game, run in dict.fromkeys((file.game, file.run) for file in missing):
        listing |= bucket.objects(f"{FOLDER}/{game}/run_{run}-")
    available = {file: listing[file.name] for file in missing if file.name in listing}
    return Plan(tuple(wanted), there, available, tuple(file for file in missing if file.name not in listing))


def carry_out(plan: Plan, bucket: Bucket, store: Path, keep_raw: Path | None, allow_mixed: bool) -> Outcome:
    """Fetch and import what the plan has, with a bar over bytes.

    Any number of processes may do so at once, into one store and with one folder of raw files: each takes files that
    nobody else is at, and what others have finished is there.

    Args:
        plan: of `make_plan`, for the same store.
        bucket: its `stop` is set at the end: it is of no further use.
        store: the episode store's folder.
        keep_raw: keep the raw files there, as `<Game>/<file>`, and use those that are there; None deletes each after
            its import.
        allow_mixed: let a game's parts come from different ROMs, or from sticky and other play.

    Raises:
        UserError: the disk is full, or a folder can't be written. Parts that were finished before are whole.
    """
    outcome = Outcome(dict.fromkeys(plan.lacking, "it is not in the bucket"))
    raw = store / WORK_FOLDER if keep_raw is None else require_writable_folder(keep_raw, "keep_raw")
    if keep_raw is None:
        _remove_left(raw, plan.there)
    with (
        tqdm(total=plan.size, unit="B", unit_scale=True, desc="fetching", dynamic_ncols=True) as bar,
        Prefetch(_downloads(plan, bucket, store, raw, bar.update), depth=1) as downloads,
    ):
        try:
            for download in downloads:
                with download.lock:
                    outcome.results[download.file] = _import(download, raw, store, allow_mixed, outcome.notes)
                    if keep_raw is None and download.reason is None:
                        _remove(raw_path(raw, download.file))
        finally:
            bucket.stop.set()
    if keep_raw is None:
        _remove_empty(raw)
    return outcome


def _downloads(plan: Plan, bucket: Bucket, store: Path, raw: Path, advance: Advance) -> Iterator[_Download]:
    """Download the files, in order but for those that others are at: these come last."""
    files = list(plan.available)
    while files:
        others = []
        for file in files:
            lock = _lock(raw_path(raw, file))
            if lock is None:
                others.append(file)
            else:
                yield _download(file, lock, plan.available[file], bucket, store, raw, advance)
        if others == files and bucket.stop.wait(_WAIT):
            return
        files = others


def _lock(path: Path) -> contextlib.ExitStack | None:
    """What holds a raw file's lock; None if another process does."""
    with contextlib.suppress(FileNotFoundError):  # somebody has just removed the empty folder
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if stack.enter_context(lock_file(path.with_name(f".{path.name}.lock"))):
            return stack.pop_all()
    return None


def _download(
    file: RawFile, lock: contextlib.ExitStack, remote: RemoteObject, bucket: Bucket, store: Path, raw: Path,
    advance: Advance,
) -> _Download:  # fmt: skip
    path = raw_path(raw, file)
    try:
        if file.part in committed_parts(store, file.game):
            advance(remote.size)
            return _Download(file, lock, there=True)
        old = bucket.download(remote, path, advance)
        return _Download(file, lock, note=f"{path} wasn't what the bucket has; it is {old} now." if old else None)
    except Unavailable as error:
        return _Download(file, lock, reason=str(error))
    except BaseException:
        lock.close()
        raise


def _import(download: _Download, raw: Path, store: Path, allow_mixed: bool, notes: list[str]) -> Added | str | None:
    """Make a raw file a part of the store.

    Returns:
        The part, or what is wrong with the file; None if another process has made that part.

    Raises:
        UserError: something is wrong with the store.
    """
    file = download.file
    if download.there or download.reason:
        return download.reason
    if download.note:
        notes.append(download.note)
    facts = rlu.provenance(file.game, file.run, file.checkpoint)
    try:
        episodes = _readable(raw_path(raw, file), file.game, notes.append)
        return write_part(store, file.game, file.part, episodes, facts, allow_mixed)
    except _Unreadable as error:
        return f"it is as the bucket has it and yet can't be read: {error}"
    except UserError:
        if file.part not in committed_parts(store, file.game):
            raise
        return None  # an import from local files, at work beside this one, was quicker


def _readable(path: Path, game: str, say: Callable[[str], None]) -> Iterator[SourceEpisode]:
    """The file's episodes; _Unreadable where reading raises UserError, so that it isn't taken for the store's."""
    try:
        yield from rlu.episodes(path, game, say)
    except UserError as error:
        raise _Unreadable(str(error)) from error


def _remove_left(raw: Path, files: Sequence[RawFile]) -> None:
    """Remove what a process that was killed between importing and deleting has left of files."""
    for path in (raw_path(raw, file) for file in files):
        if any(path.parent.glob(f"{path.name}*")) and (lock := _lock(path)):
            with lock:
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a raw file, the beginnings of it, and other versions of it."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Remove the folder and those in it, unless there is a file in them."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if path.is_dir()]:
            with contextlib.suppress(OSError):
                path.rmdir()
        folder.rmdir()
