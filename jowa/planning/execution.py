"""How imagination is computed on the machine at hand. None of it changes what is chosen, up to rounding.

bfloat16 rounds most: see benchmarks/README.md for how many decisions it changes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import Tensor

from jowa.errors import UserError
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.buckets import BucketedDream
from jowa.planning.compiled import CompiledTrunk
from jowa.planning.decoder import BlockDecoder, Decoder
from jowa.planning.drafting import DraftingDecoder, FewDrafted
from jowa.planning.graphs import GraphedDecoder
from jowa.planning.tree_dream import TreeDream

DRAFT_ROWS = 16
"""On a CPU drafting saves time for so few rows: see benchmarks/README.md."""


@dataclass(frozen=True)
class ExecutionConfig:
    """draft_rows: guess a new frame from the present one and verify the guess, instead of decoding code by code, where
    so few frames (environments times futures) are imagined at once; 0 for never; null for 16 on a CPU and 0 on a GPU.
    With graphs, searches of 32 imagined frames and more are not drafted.

    graphs: on a GPU, replay one CUDA graph an imagined frame. compile: compile the trunk with torch.compile.
    precision: float32, or bf16, in which a copy of the model imagines; expected Q is computed in single precision.
    memory: GiB a plan may take, more environments than fit are planned for in parts; null for 90 % of what is free.
    """

    draft_rows: int | None = None
    graphs: bool = True
    compile: bool = False
    precision: str = "float32"
    memory: float | None = None


def check_execution(config: ExecutionConfig) -> None:
    """Raises UserError for settings that can't work, naming the key."""
    if config.draft_rows is not None and config.draft_rows < 0:
        raise UserError(f"execution.draft_rows must not be negative, but is {config.draft_rows}.")
    if config.precision not in ("float32", "bf16"):
        raise UserError(f"execution.precision must be float32 or bf16, not {config.precision}.")
    if config.memory is not None and not 0 < config.memory < math.inf:
        raise UserError(f"execution.memory must be above 0 GiB and finite, not {config.memory}.")


def make_dream(model: WorldActionModel, config: ExecutionConfig) -> TreeDream | BucketedDream:
    """Imagination in a model that is on its device already."""
    if config.precision == "bf16":
        support, model = model.support, copy.deepcopy(model).bfloat16()
        model.support = support
    on_gpu = model.device.type == "cuda"
    decode: Decoder = BlockDecoder(model, _likeliest)
    if config.compile:
        decode = BlockDecoder(model, _likeliest, CompiledTrunk(model), static=True)
    graphed = on_gpu and config.graphs
    if graphed:
        decode = GraphedDecoder(model, decode)
    rows = config.draft_rows if config.draft_rows is not None else 0 if on_gpu else DRAFT_ROWS
    if rows:
        decode = FewDrafted(DraftingDecoder(model), decode, rows)
    memory = None if config.memory is None else int(config.memory * 2**30)
    dream = TreeDream(model, decode=decode, memory=memory, graphed=graphed, draft_rows=rows)
    return BucketedDream(dream) if graphed or config.compile else dream


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)
