"""An evaluation's folder: a new one, or that of the same evaluation if it was interrupted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.files import lock_file, require_writable_folder, write_json
from jowa.resuming import first_difference, flatten

SETTINGS = "evaluation.json"
EVALUATIONS, RESULTS = "evaluations", "results.json"
_LOCK = ".lock"


@contextlib.contextmanager
def opened(
    parent: Path, out: str | None, settings: Mapping[str, Any], anew: bool, finished: str = RESULTS
) -> Iterator[Path]:
    """The folder to write to, for this process alone: `out`, or under `parent` the next free NNN, counted from 001.

    Where an evaluation with equal settings was begun and not finished, and isn't being worked on, its folder is taken
    up again, unless `anew`. `settings` are whatever decides the episodes; `finished` names the file that is written
    last.

    Raises:
        UserError: it can't be written; `out` is another process's, or holds something else than these settings'
            unfinished evaluation.
    """
    settings = json.loads(json.dumps(settings))
    with contextlib.ExitStack() as locks:
        if out is not None:
            yield _claim_out(Path(out).expanduser(), settings, anew, finished, locks)
        else:
            yield _claim_numbered(parent, settings, anew, finished, locks)


def _claim_out(
    folder: Path, settings: Mapping[str, Any], anew: bool, finished: str, locks: contextlib.ExitStack
) -> Path:
    require_writable_folder(folder, "out")
    if not locks.enter_context(lock_file(folder / _LOCK)):
        raise UserError(f"out={folder} is being written by another process: wait for it, or choose another out.")
    if not [path for path in folder.iterdir() if path.name != _LOCK]:
        write_json(folder / SETTINGS, settings)
        return folder
    begun = _settings(folder)
    if begun is None or (folder / finished).exists() or anew:
        raise UserError(f"out={folder} isn't empty: choose another out.")
    key = first_difference(flatten(settings), flatten(begun))
    if key is not None:
        raise UserError(
            f"out={folder} holds an unfinished evaluation that differs in {key}: choose another out, or give the same "
            "command again to go on with it."
        )
    return folder


def _claim_numbered(
    parent: Path, settings: Mapping[str, Any], anew: bool, finished: str, locks: contextlib.ExitStack
) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for folder in sorted(parent.glob("[0-9][0-9][0-9]*")) if not anew else ():
            if (folder / finished).exists() or _settings(folder) != settings:
                continue
            if locks.enter_context(lock_file(folder / _LOCK)):
                return folder
        number = 1
        while True:
            folder = parent / f"{number:03d}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                if locks.enter_context(lock_file(folder / _LOCK)):
                    write_json(folder / SETTINGS, settings)
                    return folder
            number += 1
    except OSError as error:
        raise UserError(
            f"The evaluation can't be written to {parent} ({error.strerror}): make it writable or set out to a folder "
            "that is."
        ) from error


def _settings(folder: Path) -> dict[str, Any] | None:
    """What the evaluation in a folder was begun with; None if nothing readable says so."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None
