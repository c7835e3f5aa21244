"""What is counted, not timed: operations of a plan, waits for the device, graphs compiled.

An operation is what PyTorch's dispatcher gives to a kernel: composite ones (`linear`, `scaled_dot_product_attention`)
count as what they run on the device at hand, dropout in eval mode as nothing, and views, which touch no numbers, are
left out. To see that, the plan runs without gradients but not in inference mode, in which composite operations pass
the counter whole; the kernels are the same.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from host_syncs import HostSyncs

from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.tree_dream import TreeDream

TASKS = 26
"""Random contexts are of the first so many games: another number draws others, of which drafts guess more or less."""


class Operations(TorchDispatchMode):
    """Counts by name, within the `with` block, what is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        if not function.is_view:
            self.found[function.overloadpacket.__name__] += 1
        return function(*arguments, **(options or {}))


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """The search and the dream as they are below their `inference_mode` decorators."""
    with ExitStack() as stack:
        for owner in (BeamSearch, TreeDream):
            for name, method in vars(owner).items():
                if hasattr(method, "__wrapped__"):
                    stack.enter_context(patch.object(owner, name, method.__wrapped__))
        yield


def random_contexts(
    model: WorldActionModel, environments: int, frames: int, seed: int = 0
) -> tuple[Context, torch.Tensor]:
    """Full contexts of random codes on the model's device, and as legal all actions (N, 18)."""
    random = torch.Generator().manual_seed(seed)
    context = Context(
        torch.randint(model.vocabulary, (environments, frames, model.tokens_per_frame), generator=random),
        torch.randint(model.config.actions, (environments, frames), generator=random),
        torch.full((environments,), frames),
        torch.randint(TASKS, (environments,), generator=random),
    )
    legal = torch.ones(environments, model.config.actions, dtype=torch.bool)
    return context.to(model.device), legal.to(model.device)


def plan_operations(model: WorldActionModel, environments: int, width: int, horizon: int, frames: int) -> Counter[str]:
    """Of a whole plan: reading the context, decoding and searching."""
    context, legal = random_contexts(model, environments, frames)
    with without_inference_mode(), torch.no_grad(), Operations() as operations:
        BeamSearch(width, horizon).plan(TreeDream(model), context, legal)
    return operations.found


def token_operations(model: WorldActionModel, width: int, horizon: int, frames: int) -> float:
    """A decoded position: what one more imagined step adds to a plan, search and cache included, over its positions."""
    more, less = (plan_operations(model, 1, width, steps, frames).total() for steps in (horizon, horizon - 1))
    return (more - less) / model.block_tokens


def small_twin(model: WorldActionModel, device: torch.device) -> WorldActionModel:
    """A model of the same layers, heads and networks, but narrow: a plan has as many operations in it."""
    narrow = replace(model.config, width=8 * model.config.heads, q_width=8)
    return WorldActionModel(narrow, 64, model.tokens_per_frame).eval().to(device)


def host_syncs(model: WorldActionModel, width: int, horizon: int, frames: int) -> int:
    """How often the host waits for the device in a plan for 2 environments.

    On a GPU CUDA raises an error at the first wait. Elsewhere a narrow twin without data, on the meta device, stands
    for a GPU: reading a number from it is an error too, and what would make the host wait otherwise is counted. (On a
    CPU itself the dream reads its depth, to refuse paths that are too long; there is nothing to wait for.)
    """
    if model.device.type == "cuda":
        context, legal = random_contexts(model, 2, frames)
        torch.cuda.set_sync_debug_mode("error")
        try:
            BeamSearch(width, horizon).plan(TreeDream(model), context, legal)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return 0
    twin = small_twin(model, torch.device("meta"))
    context, legal = random_contexts(twin, 2, frames)
    with without_inference_mode(), torch.no_grad(), HostSyncs() as syncs:
        BeamSearch(width, horizon).plan(TreeDream(twin), context, legal)
    return syncs.found.total()
