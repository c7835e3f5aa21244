"""Weights anyone can draw again from a tensor's name: the rule behind the golden vectors, and our names for theirs."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("JOWA_GOLDEN", Path(__file__).parent / "golden"))


def keys(part: str) -> dict[str, tuple[tuple[int, ...], str]]:
    table = json.loads((FOLDER / "official_checkpoint_keys.json").read_text())[part]
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
    """The tensors of one published file under their published names."""
    state = {}
    for name, (shape, dtype) in keys(part).items():
        if "int" in dtype or name.startswith("lpips."):
            continue
        if mse and name.endswith((".params.8", ".params.9")):
            shape = (shape[0], 18, *shape[2:])
        state[name] = golden_tensor(name, shape, salt)
    return state


Q_NAMES = ("weight1", "bias1", "gain1", "shift1", "weight2", "bias2", "gain2", "shift2", "weight3", "bias3")


def from_published(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Published names of the world-action model → ours."""
    ours = {
        "position_embedding.weight": state["pos_emb.weight"],
        "action_task_embedding.weight": state["task_emb.embedding_tables.0.weight"],
        "code_task_embedding.weight": state["task_emb.embedding_tables.1.weight"],
        "action_embedding.weight": state["embedder.embedding_tables.0.weight"],
        "code_embedding.weight": state["embedder.embedding_tables.1.weight"],
    }
    parts = ("weight", "bias")
    for part in parts:
        ours[f"trunk.norm.{part}"] = state[f"transformer.ln_f.{part}"]
        for theirs, mine in (("observations", "observation"), ("rewards", "reward"), ("ends", "end")):
            for i in (0, 2):
                ours[f"{mine}_head.{i}.{part}"] = state[f"head_{theirs}.head_module.{i}.{part}"]
        for layer in range(layers):
            old, new = f"transformer.blocks.{layer}", f"trunk.layers.{layer}"
            ours[f"{new}.attention_norm.{part}"] = state[f"{old}.ln1.{part}"]
            ours[f"{new}.mlp_norm.{part}"] = state[f"{old}.ln2.{part}"]
            qkv = [state[f"{old}.attn.{name}.{part}"] for name in ("query", "key", "value")]
            ours[f"{new}.qkv.{part}"] = torch.cat(qkv)
            ours[f"{new}.projection.{part}"] = state[f"{old}.attn.proj.{part}"]
            for i in (0, 2):
                ours[f"{new}.mlp.{i}.{part}"] = state[f"{old}.mlp.{i}.{part}"]
    for mine, theirs in (("q_networks", "head_q"), ("q_target", "head_q_target")):
        for i, name in enumerate(Q_NAMES):
            ours[f"{mine}.{name}"] = state[f"{theirs}.head_module.params.{i}"]
    return ours
