"""Weights anyone can draw again from a tensor's name: the rule behind the golden vectors."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_OURS = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("JOWA_GOLDEN") or _OURS)


def keys(part: str) -> dict[str, tuple[tuple[int, ...], str]]:
    name = "official_checkpoint_keys.json"
    table = json.loads((FOLDER / name if (FOLDER / name).is_file() else _OURS / name).read_text())[part]
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in table.items()}


def draw(name: str, shape: tuple[int, ...], salt: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def golden_tensor(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    n = draw(name, shape, salt)
    place = name.rsplit(".", 1)[-1]
    if len(shape) == 1:
        value = 1 + 0.1 * n if name.endswith("weight") else 0.05 * n
    elif "head_q" in name and ".params." in name:
        gain = 1 + 0.1 * n if place in ("2", "6") else 0.05 * n
        value = n * 2 / math.sqrt(shape[-1]) if len(shape) == 3 else gain
    elif "emb" in name.lower():
        value = 0.5 * n
    else:
        value = n * 1.5 / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def golden_lpips_tensor(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    n = draw(name, shape, salt)
    if "lin" in name.split(".")[1]:
        value = np.abs(n) * 0.1
    elif len(shape) == 1:
        value = 0.05 * n
    else:
        value = n * 1.5 / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def golden_state(part: str, salt: str, mse: bool = False) -> dict[str, Tensor]:
    """The tensors of one published file under their published names, without LPIPS and `indices`."""
    state = {}
    for name, (shape, dtype) in keys(part).items():
        if "int" in dtype or name.startswith("lpips."):
            continue
        if mse and name.endswith((".params.8", ".params.9")):
            shape = (shape[0], 18, *shape[2:])
        state[name] = golden_tensor(name, shape, salt)
    return state


def golden_lpips(salt: str) -> dict[str, Tensor]:
    """The LPIPS tensors of the published tokenizer.pt under their published names."""
    constants = {"shift": (-0.030, -0.088, -0.188), "scale": (0.458, 0.448, 0.450)}
    state = {}
    for name, (shape, _) in keys("tokenizer").items():
        if "scaling_layer" in name:
            state[name] = torch.tensor(constants[name.rsplit(".", 1)[-1]]).view(shape)
        elif name.startswith("lpips."):
            state[name] = golden_lpips_tensor(name, shape, salt)
    return state


def golden_files(size: str, salt: str = "", mse: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a published agent's (tokenizer.pt, JOWA_<size>.pt) hold, the integer tensors included."""
    part = f"JOWA_{size}"
    counts = {name: torch.arange(math.prod(shape)).view(shape)
              for name, (shape, dtype) in keys(part).items() if "int" in dtype}  # fmt: skip
    return golden_state("tokenizer", salt) | golden_lpips(salt), golden_state(part, salt, mse) | counts
