"""A run's folder: made once, by rank 0, and never written over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jowa.errors import UserError
from jowa.files import require_writable_folder, write_text

CONFIG = "config.yaml"


def prepare_run_folder(path: str, resume: bool, config: Any) -> Path:
    """Make the folder and keep the configuration in it.

    Raises UserError when it can't be written, or holds a run already and `resume` is false.
    """
    folder = Path(path)
    if folder.is_dir() and not resume and any(folder.iterdir()):
        raise UserError(f"out={path} isn't empty: choose another out, or go on with its run by resume=true.")
    require_writable_folder(folder, "out")
    number = len(list(folder.glob("config*.yaml")))
    name = CONFIG if number == 0 else f"config-resumed-{number}.yaml"
    write_text(folder / name, OmegaConf.to_yaml(OmegaConf.structured(config)))
    return folder
