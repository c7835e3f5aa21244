"""Checkpoints of a run: `checkpoints/<stage>-<step>/` with the agent's files and the optimisers' state."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jowa.errors import UserError
from jowa.files import put_aside, sync_file, sync_folder, write_json
from jowa.models.agent_files import DESCRIPTION, WEIGHTS, load_weights, read_description, save_tensors, write_agent
from jowa.training.adaptation import ADAPTERS
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers

FOLDER = "checkpoints"
OPTIMIZERS = "optimizers.pt"
REPLAY = "imagined.safetensors"
MANIFEST = "manifest.json"
BEST = "best.json"


@dataclass(frozen=True)
class Place:
    """How far a run has come: `step` optimiser steps of stage `stage` are done."""

    stage: str
    step: int

    @property
    def folder_name(self) -> str:
        return f"{self.stage}-{self.step:08d}"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint will hold: contiguous tensors on the CPU that nobody else writes to.

    adapters: of low-rank additions, which `tensors` has merged, what it takes to go on training them.
    replay: the imagined sequences that training draws from; where there are none the checkpoint has no file of them.
    """

    place: Place
    tensors: dict[str, Tensor]
    description: dict[str, Any]
    optimizers: dict[str, Any]
    adapters: dict[str, Tensor] = field(default_factory=dict)
    replay: dict[str, Tensor] = field(default_factory=dict)


def write_checkpoint(run: Path, snapshot: Snapshot) -> Path:
    """Write one checkpoint under a temporary name and rename it; when that fails, nothing of it is left.

    One that is there already stays as it is; a folder of its name that is none is put aside.
    """
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / snapshot.place.folder_name
    temporary = _hidden(final)
    if (final / DESCRIPTION).is_file():
        return final
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        write_agent(temporary, snapshot.tensors, snapshot.description)
        if snapshot.adapters:
            save_tensors(temporary / ADAPTERS, snapshot.adapters)
        # Given a path, torch.save would hide why the file can't be written.
        with (temporary / OPTIMIZERS).open("wb") as file:
            torch.save(snapshot.optimizers, file)
        sync_file(temporary / OPTIMIZERS)
        if snapshot.replay:
            save_tensors(temporary / REPLAY, snapshot.replay)
        write_json(temporary / MANIFEST, {path.name: _identity(path) for path in sorted(temporary.iterdir())})
        put_aside(final)
        temporary.replace(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(parent)
    return final


def prune(run: Path, stage: str, keep: int) -> None:
    """Drop a stage's checkpoints but the last `keep` and its best."""
    best = best_checkpoints(run).get(stage)
    for old in list_checkpoints(run, stage)[:-keep]:
        if old != best:
            hidden = _hidden(old)
            if hidden.exists():
                shutil.rmtree(hidden)
            # Half deleted under its own name it would look like a checkpoint.
            shutil.rmtree(old.replace(hidden))


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process left of checkpoints that it was writing or dropping."""
    for path in (run / FOLDER).glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def list_checkpoints(run: Path, stage: str | None = None) -> list[Path]:
    """Finished checkpoints, oldest first: stages in name order, then steps."""
    found = [path for path in (run / FOLDER).glob("*-*") if (path / DESCRIPTION).is_file() and path.name[0] != "."]
    return sorted(path for path in found if stage is None or path.name.rsplit("-", 1)[0] == stage)


def holds_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint's folder, a run's with at least one, or a run's checkpoints/best."""
    return (path / DESCRIPTION).is_file() or bool(list_checkpoints(path)) or _named_best(path) is not None


def latest_checkpoint(path: Path) -> Path:
    """The checkpoint `path` means: a checkpoint's own folder, a run's newest one, or (<run>/checkpoints/best) its best.

    Raises UserError when there is none.
    """
    if (path / DESCRIPTION).is_file():
        return path
    best = _named_best(path)
    if best is not None:
        return best
    found = list_checkpoints(path)
    if not found:
        raise UserError(
            f"There is no agent in {path}: give a run's folder, one of its checkpoints, or published files "
            "(JOWA_<size>.pt beside tokenizer.pt)."
        )
    return found[-1]


def read_best(run: Path) -> dict[str, dict[str, Any]]:
    """{stage: {"step", "metric", "value", "measured"}} of the best checkpoints that are still there."""
    path = run / FOLDER / BEST
    try:
        noted: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        there = {path.name for path in list_checkpoints(run)}
        return {stage: best for stage, best in noted.items() if Place(stage, best["step"]).folder_name in there}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged; delete it: the next best checkpoint will be noted anew.") from error


def best_checkpoints(run: Path) -> dict[str, Path]:
    """The best checkpoint of each stage that has one."""
    return {stage: run / FOLDER / Place(stage, best["step"]).folder_name for stage, best in read_best(run).items()}


def _named_best(path: Path) -> Path | None:
    """The best checkpoint of the last stage that has one, if `path` is <run>/checkpoints/best."""
    found = best_checkpoints(path.parent.parent) if path.parts[-2:] == (FOLDER, "best") else {}
    return found[max(found)] if found else None


def check_intact(checkpoint: Path) -> None:
    """Raises UserError, naming the file and the checkpoint before, unless every file is as it was written."""
    try:
        noted = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, identity in noted.items() if _identity(checkpoint / name) != identity]
        missing = {WEIGHTS, DESCRIPTION, OPTIMIZERS} - set(noted)
        reason = f"{(damaged + sorted(missing))[0]} isn't as it was written" if damaged or missing else None
    except (OSError, ValueError, AttributeError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else f"{MANIFEST} can't be read"
    if reason is None:
        return
    before = [path for path in list_checkpoints(checkpoint.parent.parent) if path < checkpoint]
    what = f"delete it to go on from {before[-1].name}" if before else "there is none before it: start a new run"
    raise UserError(f"The checkpoint {checkpoint} is damaged ({reason}): {what}.")


def restore(checkpoint: Path, learner: Learner) -> Place:
    """Fill a learner of the same settings from a checkpoint. Raises UserError when it was made with others."""
    description = read_description(checkpoint)
    for part, module in (("model", learner.model), ("tokenizer", learner.tokenizer)):
        ours, theirs = vars(module.config), description[part]
        differing = [key for key in ours if key not in FREE and _plain(ours[key]) != _plain(theirs.get(key))]
        if differing:
            key = differing[0]
            raise UserError(
                f"The checkpoint {checkpoint} is another agent's: its {part}.{key} is {theirs.get(key)}, "
                f"the one to train has {ours[key]}; make {part} the same, or choose another folder."
            )
    load_weights(checkpoint, learner.tokenizer, learner.model)
    return Place(str(description["stage"]), int(description["step"]))


FREE = {"perceptual_weights"}


def load_optimizers(checkpoint: Path, optimizers: Optimizers) -> None:
    """Restore the optimisers' state; only tensors and plain values are ever unpickled."""
    path = checkpoint / OPTIMIZERS
    try:
        optimizers.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # state that doesn't fit fails in many ways
        if not path.is_file():
            raise UserError(
                f"{path} is missing: put it back, or move {checkpoint} elsewhere to go on from the one before it."
            ) from error
        raise UserError(
            f"{path} can't be read or fits other stage settings; delete {checkpoint} to go on from the one before it."
        ) from error


def check_size(checkpoint: Path, size: str | None) -> None:
    """Raises UserError when the checkpoint's model isn't of the size asked for; None asks for nothing."""
    name = read_description(checkpoint)["model"].get("name")
    if size is not None and name != size:
        raise UserError(f"The checkpoint {checkpoint} is of size {name}, not {size}: drop size or choose another ckpt.")


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
