"""A run's folder: made once, by rank 0, held by one process at a time, and never written over."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jowa.errors import UserError
from jowa.files import lock_file, require_writable_folder, write_bytes, write_text
from jowa.resuming import CONFIG
from jowa.training.checkpoint import Place, remove_leftovers
from jowa.training.metrics import FILE as METRICS

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Hold a run's folder, made if there is none, against other processes; one that stays empty is removed again.

    Raises UserError when it can't be written, or another process trains the run in it.
    """
    made = [path for path in (run, *run.parents) if not path.exists()]
    try:
        require_writable_folder(run, "out")
        with lock_file(run / LOCK) as ours:
            if not ours:
                raise UserError(
                    f"The run in {run} is being trained by another process: wait for it to end, or choose another out."
                )
            yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def prepare_run_folder(path: str, resume: str, config: Any) -> Path:
    """Keep the configuration in the folder, which this process holds.

    Raises UserError when it holds something already that isn't a run to `resume`.
    """
    folder = Path(path)
    if any(entry.name != LOCK for entry in folder.iterdir()):
        if resume == "no":
            raise UserError(f"out={path} isn't empty: choose another out, or go on with its run by resume={path}.")
        if not (folder / CONFIG).is_file():
            raise UserError(f"out={path} isn't empty and holds no run to go on with: choose another out.")
    remove_leftovers(folder)
    name = numbered(folder, "config-resumed", ".yaml") if (folder / CONFIG).is_file() else folder / CONFIG
    write_text(name, OmegaConf.to_yaml(OmegaConf.structured(config)))
    return folder


def set_aside_undone(run: Path, stages: Sequence[str], place: Place | None) -> None:
    """Move metrics of steps that will be taken again, and a last line cut short, to metrics-undone-<n>.jsonl.

    stages: in their order; place: where the run goes on, None for its beginning.
    """
    path = run / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    undone = [line for line in lines if not _is_done(line, stages, place)]
    if undone:
        write_bytes(numbered(run, "metrics-undone", ".jsonl"), b"".join(undone))
        write_bytes(path, b"".join(line for line in lines if line not in undone))


def numbered(folder: Path, stem: str, suffix: str) -> Path:
    """<stem>-<n><suffix>, n being one more than the highest there."""
    numbers = [path.stem.removeprefix(f"{stem}-") for path in folder.glob(f"{stem}-*{suffix}")]
    return folder / f"{stem}-{max((int(number) for number in numbers if number.isdigit()), default=0) + 1}{suffix}"


def looked_at(run: Path, place: Place) -> bool:
    """Whether what looks at a run has done so at this place: metrics there are of more than the training step."""
    path = run / METRICS
    lines = [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
    here = [line for line in lines if (line["stage"], line["step"]) == (place.stage, place.step)]
    return any("loss/total" not in line for line in here)


def _is_done(line: bytes, stages: Sequence[str], place: Place | None) -> bool:
    try:
        values = json.loads(line)
        stage, step = stages.index(values["stage"]), int(values["step"])
    except (ValueError, TypeError, KeyError):
        return False
    return place is not None and (stage, step) <= (stages.index(place.stage), place.step)
