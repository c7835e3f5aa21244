"""Checkpoints of a run: `checkpoints/<stage>-<step>/` with the agent's files and the optimisers' state."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jowa.errors import UserError
from jowa.files import sync_file, sync_folder
from jowa.models.agent_files import DESCRIPTION, load_weights, read_description, save_agent
from jowa.training.learner import Learner
from jowa.training.optimization import Optimizers

FOLDER = "checkpoints"
OPTIMIZERS = "optimizers.pt"


@dataclass(frozen=True)
class Place:
    """How far a run has come: `step` optimiser steps of stage `stage` are done."""

    stage: str
    step: int

    @property
    def folder_name(self) -> str:
        return f"{self.stage}-{self.step:08d}"


def save_checkpoint(
    run: Path, place: Place, learner: Learner, optimizers: Optimizers | None, facts: dict[str, Any], keep: int
) -> Path:
    """Write one checkpoint under a temporary name, rename it, then drop this stage's older ones beyond `keep`."""
    parent = run / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    final, temporary = parent / place.folder_name, parent / f".{place.folder_name}.tmp"
    if final.exists():
        return final
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_agent(temporary, learner.tokenizer, learner.model, facts | {"stage": place.stage, "step": place.step})
    if optimizers is not None:
        torch.save(optimizers.state_dict(), temporary / OPTIMIZERS)
        sync_file(temporary / OPTIMIZERS)
    temporary.replace(final)
    sync_folder(parent)
    for old in list_checkpoints(run, place.stage)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(run: Path, stage: str | None = None) -> list[Path]:
    """Finished checkpoints, oldest first: stages in name order, then steps."""
    found = [path for path in (run / FOLDER).glob("*-*") if (path / DESCRIPTION).is_file() and path.name[0] != "."]
    return sorted(path for path in found if stage is None or path.name.rsplit("-", 1)[0] == stage)


def holds_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint's folder or a run's with at least one."""
    return (path / DESCRIPTION).is_file() or bool(list_checkpoints(path))


def latest_checkpoint(path: Path) -> Path:
    """The checkpoint `path` means: a checkpoint's own folder, or a run's newest one.

    Raises UserError when there is none.
    """
    if (path / DESCRIPTION).is_file():
        return path
    found = list_checkpoints(path)
    if not found:
        raise UserError(
            f"There is no agent in {path}: give a run's folder, one of its checkpoints, or published files "
            "(JOWA_<size>.pt beside tokenizer.pt)."
        )
    return found[-1]


def restore(checkpoint: Path, learner: Learner) -> Place:
    """Fill a learner of the same sizes from a checkpoint. Raises UserError when it is of another size."""
    description = read_description(checkpoint)
    for part, module in (("model", learner.model), ("tokenizer", learner.tokenizer)):
        ours = {key: value for key, value in vars(module.config).items() if key not in NOT_SIZES}
        theirs = {key: value for key, value in description[part].items() if key not in NOT_SIZES}
        differing = [key for key in ours if _plain(ours[key]) != _plain(theirs.get(key))]
        if differing:
            key = differing[0]
            raise UserError(
                f"The checkpoint {checkpoint} is of another size: its {part}.{key} is {theirs.get(key)}, "
                f"the configuration asks for {ours[key]}; make {part} the same, or choose another folder."
            )
    load_weights(checkpoint, learner.tokenizer, learner.model)
    return Place(str(description["stage"]), int(description["step"]))


NOT_SIZES = {"name", "dropout", "attention_dropout", "q_dropout", "squared_weight", "perceptual", "perceptual_weights"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_optimizers(checkpoint: Path, optimizers: Optimizers) -> None:
    """Restore the optimisers' state; only tensors and plain values are ever unpickled."""
    path = checkpoint / OPTIMIZERS
    if not path.is_file():
        raise UserError(f"{checkpoint} holds no optimiser state, so training can't go on from it.")
    try:
        optimizers.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # damaged files fail in many ways
        raise UserError(f"{path} can't be read or fits other stage settings; delete {checkpoint} to go on from the one "
                        "before it.") from error


def check_size(checkpoint: Path, size: str | None) -> None:
    """Raises UserError when the checkpoint's model isn't of the size asked for; None asks for nothing."""
    name = read_description(checkpoint)["model"].get("name")
    if size is not None and name != size:
        raise UserError(f"The checkpoint {checkpoint} is of size {name}, not {size}: drop size or choose another ckpt.")
