"""Low-rank additions to the trunk's linear maps, W + (alpha / rank) B A (LoRA, Hu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jowa.models.world_action_model import WorldActionModel

_ORIGINAL = "parametrizations.weight.original"
_FACTORS = ("parametrizations.weight.0.a", "parametrizations.weight.0.b")


class LowRank(nn.Module):
    """A weight W (out, in) becomes W + (alpha / rank) B A, with A (rank, in) random and B (out, rank) 0 at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = alpha / rank
        outputs, inputs = weight.shape
        bound = 1 / math.sqrt(inputs)
        a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(weight.new_zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        # In half precision the map trained would be another than the one saved.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.b @ self.a)


def add_low_rank(model: WorldActionModel, rank: int, alpha: float, seed: int) -> None:
    """Give every linear map of the trunk a low-rank addition, which is zero as yet."""
    generator = torch.Generator().manual_seed(seed)
    maps = [module for module in model.trunk.modules() if isinstance(module, nn.Linear)]
    for module in maps:
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, alpha, generator))


def low_rank_maps(model: WorldActionModel) -> Iterator[tuple[str, nn.Module]]:
    """The maps that have an addition, by their names in the model."""
    return ((name, module) for name, module in model.named_modules() if parametrize.is_parametrized(module, "weight"))


@torch.no_grad()
def merged_state(model: WorldActionModel) -> dict[str, Tensor]:
    """The model's tensors under the names it has without additions, these being added to their maps."""
    state: dict[str, Tensor] = model.state_dict()
    for name, module in low_rank_maps(model):
        state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.parametrizations.")}
        state[f"{name}.weight"] = module.get_submodule("parametrizations.weight")()
    return state


def low_rank_state(model: WorldActionModel) -> dict[str, Tensor]:
    """What `merged_state` doesn't tell: of each map that has an addition the original and both factors."""
    parts = [f"{name}.{part}" for name, _ in low_rank_maps(model) for part in (_ORIGINAL, *_FACTORS)]
    return {name: model.get_parameter(name).detach() for name in parts}


@torch.no_grad()
def load_low_rank_state(model: WorldActionModel, state: dict[str, Tensor]) -> None:
    """Fill the originals and the factors. Raises ValueError unless `state` has exactly those of this model."""
    own = low_rank_state(model)
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise ValueError("tensors of other names or shapes")
    for name, tensor in own.items():
        tensor.copy_(state[name])
