"""Going on with a recording: what of it the store has already, and that nobody else records the same game meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data.layout import Manifest
from jowa.data.store import EpisodeStore, committed_parts
from jowa.errors import UserError
from jowa.files import locked_folder, require_writable_folder
from jowa.recording.config import RecordConfig, provenance
from jowa.recording.side_by_side import Share

_LOCK = ".recording"

Stored = Mapping[float | None, int]
"""Agent steps of one recording that are in the store, by the share of random actions that their episodes note."""


def check_free(config: RecordConfig, game: str) -> None:
    """Raise UserError if the game's folder has episodes that the configuration doesn't let us add to."""
    there = committed_parts(config.store, game)
    folder = config.store / game
    if not there or config.append:
        return
    if not config.resume:
        raise UserError(
            f"{folder} already holds episodes: set resume=true to go on with an interrupted recording, append=true to "
            "add to them, or out to another folder."
        )
    facts = _facts(config, game)
    others = [name for name in there if Manifest.read(folder / name).provenance != facts]
    if others:
        raise UserError(
            f"{folder / others[0]} is of another recording than the one to resume (policy, seed or another setting "
            "differs): repeat its settings, set append=true to add to it, or out to another folder."
        )


def stored_steps(config: RecordConfig, game: str) -> Stored:
    """What is there of the very recording that is to be resumed: of parts whose provenance is the same."""
    steps: Counter[float | None] = Counter()
    if config.resume and committed_parts(config.store, game):
        store = EpisodeStore(config.store, [game])
        facts = _facts(config, game)
        ours = np.array([part.provenance == facts for part in store.parts(game)])
        table = store.tables[game]
        for episode in np.flatnonzero(ours[table.parts]).tolist():
            steps[table.info[episode].get("epsilon")] += int(table.lengths[episode])
    return steps


def shares_left(wanted: Sequence[Share], stored: Stored) -> list[Share]:
    """What is left to record of an agent's shares."""
    rest = Counter(stored)
    left = []
    for share in wanted:
        there = min(rest[share.epsilon], share.steps)
        rest[share.epsilon] -= there
        if there < share.steps:
            left.append(replace(share, steps=share.steps - there))
    return left


@contextlib.contextmanager
def recording_alone(store: Path, games: Sequence[str]) -> Iterator[None]:
    """Keep other recorders from the games until this one is done or dies; UserError if there is one.

    Two of one game and seed would store the same episodes. A game's folder that was made for nothing is removed.
    """
    with contextlib.ExitStack() as stack:
        for game in games:
            new = not (store / game).exists()
            folder = require_writable_folder(store / game, "out")
            try:
                stack.enter_context(locked_folder(folder, wait=False, name=_LOCK))
            except BlockingIOError:
                raise UserError(
                    f"Another process is recording into {folder}: wait for it, or set out to another folder."
                ) from None
            if new:
                # Called while the lock is still held, for what was entered last is left first.
                stack.callback(_remove_empty, folder)
        yield


def _remove_empty(folder: Path) -> None:
    if [path.name for path in folder.iterdir()] == [_LOCK]:
        (folder / _LOCK).unlink()
        with contextlib.suppress(OSError):  # somebody else has begun to write
            folder.rmdir()


def _facts(config: RecordConfig, game: str) -> dict[str, Any]:
    """The provenance as a manifest gives it back."""
    facts: dict[str, Any] = json.loads(json.dumps(provenance(config, game)))
    return facts
