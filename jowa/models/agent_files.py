"""An agent on disk: `weights.safetensors` (tokenizer and world-action model) and `agent.json` (their sizes)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jowa.errors import UserError
from jowa.files import sync_file, write_json
from jowa.games import GAMES, register_rows, registered
from jowa.models.low_rank import merged_state
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.unfilled import Unfilled
from jowa.models.world_action_model import ModelConfig, WorldActionModel

FORMAT = 1
WEIGHTS = "weights.safetensors"
DESCRIPTION = "agent.json"


@dataclass(frozen=True)
class Agent:
    """A tokenizer, the world-action model that reads its codes, and what is known of their making."""

    tokenizer: Tokenizer
    model: WorldActionModel
    description: dict[str, Any]


def save_agent(folder: Path, tokenizer: Tokenizer, model: WorldActionModel, facts: dict[str, Any]) -> None:
    """Write the agent's two files into an existing folder; `facts` (JSON values) are kept in the description."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in agent_tensors(tokenizer, model).items()}
    write_agent(folder, tensors, describe(tokenizer, model) | facts)


def agent_tensors(tokenizer: Tokenizer, model: WorldActionModel) -> dict[str, Tensor]:
    """What the weights' file holds, where the modules hold it; low-rank additions are merged into their maps."""
    tensors = {f"tokenizer.{name}": tensor for name, tensor in tokenizer.state_dict().items()}
    return tensors | {f"model.{name}": tensor for name, tensor in merged_state(model).items()}


def describe(tokenizer: Tokenizer, model: WorldActionModel) -> dict[str, Any]:
    """What a description begins with: the sizes, and the games that the rows 60, 61, … are for."""
    games = registered()[: model.config.tasks - len(GAMES)]
    return {
        "format": FORMAT,
        "model": asdict(model.config),
        "tokenizer": asdict(tokenizer.config),
        "environments": [game.spec() for game in games],
    }


def write_agent(folder: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write contiguous tensors on the CPU and the description into an existing folder."""
    save_tensors(folder / WEIGHTS, tensors)
    write_json(folder / DESCRIPTION, description)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write contiguous tensors on the CPU as safetensors, readable by whom the user's umask lets read."""
    save_file(tensors, path)
    umask = os.umask(0)
    os.umask(umask)
    # safetensors leaves a file to its owner alone, which shared clusters don't want.
    path.chmod(0o666 & ~umask)
    sync_file(path)


def read_description(folder: Path) -> dict[str, Any]:
    """The description of an agent's folder. Raises UserError when there is none or it can't be read."""
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"{DESCRIPTION}: {error}"
        raise UserError(f"{folder} holds no readable agent ({reason}); choose another checkpoint.") from error
    if not isinstance(description, dict):
        raise UserError(f"{folder / DESCRIPTION} is damaged; choose another checkpoint.")
    if description.get("format") != FORMAT:
        raise UserError(f"{folder} was written in format {description.get('format')}, this jowa reads {FORMAT}.")
    if not all(isinstance(description.get(part), dict) for part in ("model", "tokenizer")):
        raise UserError(f"{folder / DESCRIPTION} is damaged: it lacks the agent's sizes; choose another checkpoint.")
    return description


def sizes_of(description: dict[str, Any]) -> tuple[ModelConfig, TokenizerConfig]:
    """The configurations inside a description; keys this version doesn't know are refused (UserError)."""
    for schema, name in ((ModelConfig, "model"), (TokenizerConfig, "tokenizer")):
        unknown = set(description[name]) - {field.name for field in fields(schema)}
        if unknown:
            raise UserError(f"The checkpoint's {name} has unknown settings {sorted(unknown)}: it needs a newer jowa.")
    return ModelConfig(**description["model"]), TokenizerConfig(**description["tokenizer"])


def load_agent(folder: Path) -> Agent:
    """Build the agent a folder describes, on the CPU, in eval mode. The games it has further rows for get known by it.

    Raises UserError for a damaged or missing one, and where these rows are other games' in this process.
    """
    description = read_description(folder)
    register_rows(description.get("environments", []))
    model_config, tokenizer_config = sizes_of(description)
    try:
        with Unfilled():
            tokenizer = Tokenizer(tokenizer_config)
            model = WorldActionModel(model_config, tokenizer_config.vocabulary, tokenizer.tokens_per_frame)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}); choose another checkpoint.") from error
    load_weights(folder, tokenizer, model)
    return Agent(tokenizer.eval(), model.eval(), description)


def load_weights(folder: Path, tokenizer: Tokenizer, model: WorldActionModel) -> None:
    """Fill existing modules. Raises UserError when the file is damaged or holds tensors of other names or shapes."""
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} can't be read ({error}); choose another checkpoint.") from error
    modules: dict[str, nn.Module] = {"tokenizer": tokenizer, "model": model}
    expected = {
        f"{part}.{name}": tensor.shape
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise UserError(f"{folder / WEIGHTS} holds a checkpoint of another size than its {DESCRIPTION} describes.")
    for part, module in modules.items():
        prefix = f"{part}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


def check_finite(agent: Agent, source: Path) -> None:
    """Raises UserError naming the first tensor that holds NaN or infinity: nothing such weights say means anything."""
    for part, module in (("tokenizer", agent.tokenizer), ("model", agent.model)):
        for name, tensor in module.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise UserError(f"{source} has NaN or infinity in {part}.{name}: choose another checkpoint.")


def weights_hash(agent: Agent) -> str:
    """Sixteen hexadecimal digits that name an agent's weights, whatever files they came from."""
    digest = hashlib.sha256()
    for part in (agent.tokenizer, agent.model):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Sixteen hexadecimal digits that name the tokenizer's encoding half: what decides a frame's codes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith(("encoder.", "pre_quant_conv.", "embedding.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
