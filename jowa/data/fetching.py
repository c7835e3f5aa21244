"""Fetching RL Unplugged's files: a plan of what is missing, then download → import → delete, one file after another.

A thread downloads the next file while the present one is imported, so that at most two raw files are on disk unless
they are to be kept. What has been imported is a part of the store and is never fetched again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from jowa.data.prefetch import Prefetch
from jowa.data.ranges import numbers
from jowa.data.sources import rlu
from jowa.data.sources.bucket import Advance, Bucket, RemoteObject, Unavailable, bytes_there
from jowa.data.sources.episode import SourceEpisode
from jowa.data.sources.parts import Added, write_part
from jowa.data.store import EpisodeWriter, committed_parts
from jowa.errors import UserError
from jowa.files import locked_folder, require_writable_folder
from jowa.games import check_game

BUCKET = "rl_unplugged"
FOLDER = "atari_episodes_ordered"
WORK_FOLDER = ".fetch"
"""Where raw files lie for a while, inside the store, so that space is needed on one disk only."""


@dataclass(frozen=True, order=True)
class RawFile:
    """One of RL Unplugged's files: a run (1 to 5) of DQN on a game, a checkpoint (0 to 49) of it."""

    game: str
    run: int
    checkpoint: int

    @property
    def name(self) -> str:
        """Its name in the bucket."""
        return f"{FOLDER}/{self.game}/{self.file}"

    @property
    def file(self) -> str:
        """Its name within its game's folder."""
        return rlu.file_name(self.run, self.checkpoint)

    @property
    def part(self) -> str:
        """The name of the part of the store that it becomes."""
        return rlu.part_name(self.run, self.checkpoint)


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
    """What became of each file that the store lacked: a part, or the reason why it could not be had."""

    results: dict[RawFile, Added | str]

    @property
    def added(self) -> dict[RawFile, Added]:
        """The files that are parts now."""
        return {file: result for file, result in self.results.items() if isinstance(result, Added)}

    @property
    def failed(self) -> dict[RawFile, str]:
        """The files that could not be had, with the reasons."""
        return {file: result for file, result in self.results.items() if isinstance(result, str)}


class _Unreadable(Exception):
    """Something is wrong with a file, not with the store."""


def wanted_files(games: Sequence[str], runs: Sequence[str], checkpoints: Sequence[str]) -> tuple[RawFile, ...]:
    """The files of these games, runs ('2' or '1-5') and checkpoints ('7' or '0-49'), without repetitions.

    UserError for a game that RL Unplugged lacks and for numbers out of range.
    """
    if not games or len(set(games)) != len(games):
        raise UserError(f"games must name at least one game and none twice, not {list(games)}.")
    for game in games:
        if check_game(game) not in rlu.GAMES:
            raise UserError(
                f"RL Unplugged has no {game}: take it out of games and make episodes of it with "
                f"`python -m jowa.data.record game=[{game}]`."
            )
    run_numbers = numbers("runs", runs, min(rlu.RUNS), max(rlu.RUNS))
    checkpoint_numbers = numbers("checkpoints", checkpoints, 0, rlu.CHECKPOINTS - 1)
    return tuple(RawFile(game, run, number) for game in games for run in run_numbers for number in checkpoint_numbers)


def check_store(out: str, wanted: Sequence[RawFile], allow_mixed: bool) -> Path:
    """The store's folder, made if needed; UserError if it can't be written or holds what is not to be mixed with."""
    store = require_writable_folder(out, "out")
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

    Args:
        plan: of `make_plan`, for the same store.
        bucket: its `stop` is set at the end: it is of no further use.
        store: the episode store's folder.
        keep_raw: keep the raw files there, as `<Game>/<file>`, and use those that are there; None deletes each after
            its import.
        allow_mixed: let a game's parts come from different ROMs, or from sticky and other play.

    Raises:
        UserError: the disk is full, a folder can't be written, or another process fetches into it. Parts that were
            finished before are whole.
    """
    results: dict[RawFile, Added | str] = dict.fromkeys(plan.lacking, "it is not in the bucket")
    if not plan.available:
        return Outcome(results)
    raw = require_writable_folder(*_raw_folder(store, keep_raw))
    with _alone_in(raw), tqdm(total=plan.size, unit="B", unit_scale=True, desc="fetching", dynamic_ncols=True) as bar:
        with Prefetch(_downloads(plan, bucket, raw, bar.update), depth=1) as downloads:
            try:
                for file, reason in downloads:
                    path = raw_path(raw, file)
                    results[file] = reason or _import(file, path, store, allow_mixed)
                    if keep_raw is None:
                        path.unlink(missing_ok=True)
            finally:
                bucket.stop.set()
        if keep_raw is None:
            _remove_empty(raw)
    return Outcome(results)


def raw_path(folder: Path, file: RawFile) -> Path:
    """Where a raw file lies in the folder of raw files."""
    return folder / file.game / file.file


def describe_plan(plan: Plan, store: Path, keep_raw: Path | None) -> str:
    """What a run would do: a table of files and bytes for each game, and the names of what the bucket lacks."""
    folder, _ = _raw_folder(store, keep_raw)
    lines = [f"{'game':<18}{'files':>7}{'in the store':>14}{'to fetch':>10}{'MB':>10}{'MB here':>10}"]
    for game in dict.fromkeys(file.game for file in plan.wanted):
        remotes = {file: remote for file, remote in plan.available.items() if file.game == game}
        size = sum(remote.size for remote in remotes.values())
        here = sum(bytes_there(remote, raw_path(folder, file)) for file, remote in remotes.items())
        counts = f"{_count(plan.wanted, game):>7}{_count(plan.there, game):>14}{len(remotes):>10}"
        lines.append(f"{game:<18}{counts}{size / 1e6:>10.1f}{here / 1e6:>10.1f}")
    to_fetch = f"{len(plan.available)} to fetch ({plan.size} bytes)"
    lines.append(
        f"{len(plan.wanted)} files: {len(plan.there)} in the store, {to_fetch}, {len(plan.lacking)} not in the bucket"
    )
    return "\n".join([*lines, *(f"not in the bucket: {file.name}" for file in plan.lacking)])


def describe_outcome(plan: Plan, outcome: Outcome) -> str:
    """What was done: a table with a line a game, and the names of what could not be had."""
    lines = [f"{'game':<18}{'files':>7}{'there':>7}{'added':>7}{'missing':>9}{'new episodes':>14}{'transitions':>13}"]
    for game in dict.fromkeys(file.game for file in plan.wanted):
        added = [part for file, part in outcome.added.items() if file.game == game]
        counts = f"{_count(plan.wanted, game):>7}{_count(plan.there, game):>7}{len(added):>7}"
        episodes, transitions = sum(part.episodes for part in added), sum(part.transitions for part in added)
        lines.append(f"{game:<18}{counts}{_count(outcome.failed, game):>9}{episodes:>14}{transitions:>13}")
    return "\n".join([*lines, *(f"missing: {file.name}: {why}" for file, why in sorted(outcome.failed.items()))])


def _raw_folder(store: Path, keep_raw: Path | None) -> tuple[Path, str]:
    """Where raw files lie, and the configuration key that says so."""
    return (store / WORK_FOLDER, "out") if keep_raw is None else (keep_raw, "keep_raw")


def _downloads(plan: Plan, bucket: Bucket, raw: Path, advance: Advance) -> Iterator[tuple[RawFile, str | None]]:
    """Download the files in order; each with the reason why it can't be had, None if it can."""
    for file, remote in plan.available.items():
        reason = None
        try:
            bucket.download(remote, raw_path(raw, file), advance)
        except Unavailable as error:
            reason = str(error)
        yield file, reason


def _import(file: RawFile, path: Path, store: Path, allow_mixed: bool) -> Added | str:
    """Make a raw file a part of the store, or say what is wrong with it; UserError if something is with the store."""
    provenance = rlu.provenance(file.game, file.run, file.checkpoint)
    try:
        return write_part(store, file.game, file.part, _readable(path, file.game), provenance, allow_mixed)
    except _Unreadable as error:
        return f"it is as the bucket has it and yet can't be read: {error}"


def _readable(path: Path, game: str) -> Iterator[SourceEpisode]:
    """The file's episodes; _Unreadable where reading raises UserError, so that it isn't taken for the store's."""
    try:
        yield from rlu.episodes(path, game)
    except UserError as error:
        raise _Unreadable(str(error)) from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder, wait=False))
        except BlockingIOError:
            raise UserError(f"Another process fetches into {folder}: wait for it, or choose another folder.") from None
        yield


def _remove_empty(folder: Path) -> None:
    """Remove the folder and those in it, unless there is a file in them."""
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        with contextlib.suppress(OSError):
            path.rmdir()
    if {path.name for path in folder.iterdir()} == {".lock"}:
        (folder / ".lock").unlink()
        folder.rmdir()


def _count(files: Iterable[RawFile], game: str) -> int:
    return sum(file.game == game for file in files)
