"""What a fetch would do and what it did, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jowa.data.fetching import WORK_FOLDER, Outcome, Plan
from jowa.data.raw_files import RawFile, raw_path
from jowa.data.sources.bucket import bytes_there


def describe_plan(plan: Plan, store: Path, keep_raw: Path | None) -> str:
    """What a run would do: a table of files and bytes for each game, and the names of what the bucket lacks."""
    folder = store / WORK_FOLDER if keep_raw is None else keep_raw
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
        counts = f"{_count(plan.wanted, game):>7}{_count([*plan.there, *outcome.there], game):>7}{len(added):>7}"
        episodes, transitions = sum(part.episodes for part in added), sum(part.transitions for part in added)
        lines.append(f"{game:<18}{counts}{_count(outcome.failed, game):>9}{episodes:>14}{transitions:>13}")
    missing = (f"missing: {file.name}: {why}" for file, why in sorted(outcome.failed.items()))
    return "\n".join([*lines, *(f"note: {note}" for note in outcome.notes), *missing])


def _count(files: Iterable[RawFile], game: str) -> int:
    return sum(file.game == game for file in files)
