"""Reading other programs' weights: a pickle may hold code, so only plain tensors are let in."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from jowa.errors import UserError

WRAPPERS = ("module.", "_orig_mod.")
"""What data parallelism and compilation put before a tensor's name."""


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict saved by torch.save, under its tensors' names without wrappers; nothing else is ever unpickled.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            pointer = file.read(24) == b"version https://git-lfs."
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error
    if pointer:
        raise UserError(f"{path} is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'.")
    try:
        # torch.load does not look at the archive's checksums.
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip() is not None:
            raise zipfile.BadZipFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what matters is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        call = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it wants to run {call.group(1)}" if call else "its content isn't that of a PyTorch file"
        raise UserError(f"{path} holds more or other than tensors ({what}): it is refused, nothing was run.") from error
    except Exception as error:  # damaged files fail in many ways
        raise UserError(f"{path} is truncated or damaged: fetch it again.") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no state dict (names with tensors) but a {type(content).__name__}.")
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"{path} holds no plain state dict: {name!r} is no name of a tensor.")
        if not isinstance(value, Tensor):
            raise UserError(f"{path} holds no plain state dict: '{name}' is a {type(value).__name__}, not a tensor.")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"The tensor {name} in {path} is sparse, quantised or empty, not a plain one.")
    return _unwrapped(path, content)


def _unwrapped(path: Path, wrapped: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in wrapped.items():
        while name.startswith(WRAPPERS):
            name = name.split(".", 1)[1]
        if name in tensors:
            raise UserError(f"{path} holds the tensor {name} twice, under different prefixes.")
        tensors[name] = tensor
    return tensors
