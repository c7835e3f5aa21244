"""Agents between the published files and ours, both ways, tensor by tensor and bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jowa.errors import UserError
from jowa.files import replacing
from jowa.models.agent_files import Agent, save_agent, save_tensors
from jowa.models.published import LPIPS_PREFIX, TOKENIZER, candidates, model_to_published
from jowa.models.published_files import TOKENIZER_FILE, PublishedAgent, PublishedFiles, build_agent

LPIPS_FILE = "lpips.safetensors"
BUFFERS_FILE = "published_buffers.safetensors"
"""Integer tensors of the published model that carry nothing; kept so that the way back loses none."""


def write_agent(folder: Path, published: PublishedAgent) -> Agent:
    """Write a published agent into an existing folder in our format; LPIPS goes into a file of its own."""
    agent = build_agent(published)
    digests = {path.name: _sha256(path) for path in published.files}
    facts = {key: value for key, value in agent.description.items() if key not in ("format", "model", "tokenizer")}
    save_agent(folder, agent.tokenizer, agent.model, facts | {"published_sha256": digests})
    lpips = {name.removeprefix(LPIPS_PREFIX): tensor for name, tensor in published.lpips.items()}
    for name, tensors in ((LPIPS_FILE, lpips), (BUFFERS_FILE, published.buffers)):
        if tensors:
            save_tensors(folder / name, _plain(tensors))
    return agent


def write_published(
    folder: Path, agent: Agent, lpips: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> PublishedFiles:
    """Write tokenizer.pt and JOWA_<size>.pt into an existing folder; `lpips` has LPIPS' own names."""
    files = PublishedFiles(folder / TOKENIZER_FILE, folder / f"JOWA_{published_size(agent)}.pt")
    model = model_to_published(agent.model.state_dict(), agent.model.config.layers)
    tokenizer = agent.tokenizer.state_dict() | {LPIPS_PREFIX + name: tensor for name, tensor in lpips.items()}
    for path, tensors in ((files.tokenizer, tokenizer), (files.model, model | dict(buffers))):
        with replacing(path) as temporary:
            torch.save(_plain(tensors), temporary)
    return files


def published_size(agent: Agent) -> str:
    """The published size an agent is of.

    Raises:
        UserError: it is of none. A published file says nothing of its sizes, so nobody could read it.
    """
    model, tokenizer = agent.model.config, agent.tokenizer.config
    for key in ("widths", "encoder_blocks", "decoder_blocks", "factors", "embedding_width", "vocabulary"):
        mine, theirs = np.array(getattr(tokenizer, key)), np.array(getattr(TOKENIZER, key))
        if not np.array_equal(mine, theirs):
            raise UserError(f"This agent has no published form: its tokenizer.{key} is {mine}, the published {theirs}.")
    for key in ("blocks", "task_embedding", "tasks", "actions", "action_set"):
        own, published = getattr(model, key), getattr(candidates()[0], key)
        if own != published:
            raise UserError(f"This agent has no published form: its model.{key} is {own}, the published {published}.")
    sizes = [key for key in vars(model) if key != "name" and "dropout" not in key]
    for config in candidates():
        if all(getattr(config, key) == getattr(model, key) for key in sizes):
            return config.name
    raise UserError(f"This agent has no published form: its model ({model.name}) is of none of the published sizes.")


def kept_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """What `write_agent` left beside the agent in a file of that name; empty where there is none."""
    if not (folder / name).is_file():
        return {}
    try:
        return dict(load_file(folder / name))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / name} can't be read ({error}): convert the original again.") from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own storage in the ordinary memory layout."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
