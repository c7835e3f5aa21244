"""Published checkpoints on disk: `tokenizer.pt` and `JOWA_<size>.pt`, found, read and checked.

Only tensors are ever unpickled, and a file is believed only when every tensor has the name, shape and type that one of
the published sizes has. The size follows from the tensors; the file's name must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import jowa
from jowa.errors import UserError
from jowa.games import PRETRAINING_GAMES
from jowa.models.agent_files import FORMAT, Agent
from jowa.models.published import (
    LPIPS_PREFIX,
    MODELS,
    TOKENIZER,
    candidates,
    lpips_shapes,
    model_from_published,
    model_shapes,
    tokenizer_shapes,
)
from jowa.models.state_dicts import load_tensors
from jowa.models.tokenizer import Tokenizer
from jowa.models.unfilled import Unfilled
from jowa.models.world_action_model import ModelConfig, WorldActionModel

TOKENIZER_FILE = "tokenizer.pt"
BUFFERS = {f"head_{name}.indices" for name in ("observations", "rewards", "ends", "q", "q_target")}


class PublishedFiles(NamedTuple):
    """Where the two halves of a published agent are."""

    tokenizer: Path
    model: Path


@dataclass(frozen=True)
class PublishedAgent:
    """What the two files hold, under published names without wrappers.

    Attributes:
        files: where it was read.
        config: the model's size, recognised from its tensors.
        model: the world-action model's tensors.
        tokenizer: the tokenizer's.
        lpips: the perceptual distance's, empty where the tokenizer came without.
        buffers: the integer `indices` of the model's file, which carry nothing and are kept for the way back.
    """

    files: PublishedFiles
    config: ModelConfig
    model: dict[str, Tensor]
    tokenizer: dict[str, Tensor]
    lpips: dict[str, Tensor]
    buffers: dict[str, Tensor]


def find_published(path: Path, size: str | None = None) -> PublishedFiles | None:
    """The published files that `path` means, a model's file or a folder; None where there are none.

    `size` chooses among several models of a folder by their names.

    Raises:
        UserError: one half is missing, or the choice isn't clear.
    """
    if path.is_file() and path.suffix not in (".pt", ".pth"):
        return None
    folder = path.parent if path.is_file() else path
    models = [path] if path.is_file() and path.name != TOKENIZER_FILE else sorted(folder.glob("JOWA_*.pt"))
    tokenizer = folder / TOKENIZER_FILE
    if not models and not tokenizer.is_file():
        return None
    if not models:
        raise UserError(f"{folder} holds a {TOKENIZER_FILE} but no model JOWA_<size>.pt: put one beside it.")
    if not tokenizer.is_file():
        raise UserError(f"{folder} holds no {TOKENIZER_FILE}: put the published tokenizer beside {models[0].name}.")
    wanted = [model for model in models if size is not None and model.stem == f"JOWA_{size}"] or models
    if len(wanted) > 1:
        names = ", ".join(model.name for model in wanted)
        raise UserError(f"{folder} holds the models {names}: name one of these files, or choose by size=….")
    return PublishedFiles(tokenizer, wanted[0])


def read_published(files: PublishedFiles, size: str | None = None) -> PublishedAgent:
    """Read and check both files.

    Raises:
        UserError: naming the file and the tensor, when a file is damaged, holds anything but tensors, or holds tensors
            of other names, shapes or types than a published agent's; or when the model isn't of the size asked for, or
            of the one its file's name says.
    """
    model, buffers = _read_tensors(files.model)
    config = _recognise(files.model, model)
    _check_claims(files.model, config, model, size)
    tokenizer, _ = _read_tensors(files.tokenizer)
    lpips = {name: tensor for name, tensor in tokenizer.items() if name.startswith(LPIPS_PREFIX)}
    tokenizer = {name: tensor for name, tensor in tokenizer.items() if name not in lpips}
    _check_tensors(files.tokenizer, tokenizer, tokenizer_shapes(), "the published tokenizer")
    if lpips:
        _check_tensors(files.tokenizer, lpips, lpips_shapes(), "LPIPS")
    return PublishedAgent(files, config, model, tokenizer, lpips, buffers)


def build_agent(published: PublishedAgent) -> Agent:
    """The agent itself, on the CPU, in eval mode."""
    with Unfilled():
        tokenizer, model = Tokenizer(TOKENIZER), WorldActionModel(published.config, TOKENIZER.vocabulary)
    tokenizer.load_state_dict(published.tokenizer)
    model.load_state_dict(model_from_published(published.model, published.config.layers))
    description = {
        "format": FORMAT,
        "model": asdict(published.config),
        "tokenizer": asdict(TOKENIZER),
        "jowa": jowa.__version__,
        "games": list(PRETRAINING_GAMES),
        "data": None,
        "holdout": None,
        "stage": "published",
        "published": {part: str(path.resolve()) for part, path in published.files._asdict().items()},
    }
    return Agent(tokenizer.eval(), model.eval(), description)


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The file's (weights, integer buffers that carry nothing)."""
    tensors = load_tensors(path)
    buffers = {
        name: tensor
        for name, tensor in tensors.items()
        if name in BUFFERS and tensor.dim() == 1 and tensor.dtype in (torch.int64, torch.int32)
    }
    return {name: tensor for name, tensor in tensors.items() if name not in buffers}, buffers


def _recognise(path: Path, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """The size whose tensors the file holds, all of them. Raises UserError at the first that isn't as it should be."""

    def agreeing(config: ModelConfig) -> int:
        shapes = model_shapes(config)
        return sum(name in shapes and shapes[name] == tensor.shape for name, tensor in tensors.items())

    # Not the first size alone: the one nearest to the file gives the most helpful message when none fits.
    best = max(candidates(), key=lambda config: agreeing(config) / len(model_shapes(config)))
    _check_tensors(path, tensors, model_shapes(best), f"a {best.name} model")
    return best


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], what: str) -> None:
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"{path} lacks the tensor {name} of {what}.")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise UserError(f"The tensor {name} in {path} has shape {tuple(tensor.shape)}, in {what} {tuple(shape)}.")
        if tensor.dtype != torch.float32:
            raise UserError(f"The tensor {name} in {path} is {tensor.dtype}, in {what} float32.".replace("torch.", ""))
        if not bool(tensor.isfinite().all()):
            raise UserError(f"The tensor {name} in {path} holds values that are no finite numbers.")
    for name in tensors:
        if name not in shapes:
            raise UserError(f"{path} holds the tensor {name}, which {what} does not have.")


def _check_claims(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], size: str | None) -> None:
    """Raises UserError when the file's name, or the user, says another size than its tensors show."""
    claimed = re.fullmatch(rf"JOWA_({'|'.join(MODELS)})\.pt", path.name)
    claims = [(claimed.group(1), "its name says")] if claimed else []
    claims += [(size, "size says")] if size is not None else []
    for name, who in claims:
        if name != config.name:
            raise UserError(f"{path} holds a {config.name} model, not the {name} that {who}{_evidence(name, tensors)}.")


def _evidence(size: str, tensors: Mapping[str, Tensor]) -> str:
    """The first tensor whose shape isn't that of `size`."""
    for config in candidates():
        if config.name == size:
            for name, shape in model_shapes(config).items():
                if name in tensors and tensors[name].shape != shape:
                    return f": its tensor {name} is {tuple(tensors[name].shape)}, not {tuple(shape)}"
    return ""
