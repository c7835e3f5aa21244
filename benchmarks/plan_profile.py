"""Where a plan's time goes, and how fast its weights are read."""

from __future__ import annotations

import torch
from plan_roofline import large_copy
from rounds import Rounds, Work
from torch.autograd import DeviceType
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile, record_function

from jowa.models.world_action_model import WorldActionModel

PLAN = "a plan"
KINDS = {
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product", "aten::_flash_attention", "aten::_efficient_attention"),
    "between operations": (PLAN,),
}
"""How the names of each kind's operations begin."""


def shares(plan: Work, rounds: int, device: torch.device) -> dict[str, float]:
    """What share of so many plans' seconds each kind of operation takes, by torch.profiler, which slows short ones.

    On a GPU they are shares of its kernels' seconds, and what it waits for between them is not seen.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler, record_function(PLAN):
        for _ in range(rounds):
            plan()
    seconds = dict.fromkeys((*KINDS, "other operations"), 0.0)
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CPU:
            kinds = (kind for kind, names in KINDS.items() if event.key.startswith(names))
            seconds[next(kinds, "other operations")] += getattr(
                event, "self_device_time_total" if on_gpu else "self_cpu_time_total"
            )
    return {kind: found / sum(seconds.values()) for kind, found in seconds.items()}


def reading(model: WorldActionModel, rounds: int) -> dict[str, float]:
    """GB/s at which products of one row read the trunk's weights, beside what a large copy reads and writes."""
    weights = [weight for weight in model.trunk.parameters() if weight.dim() == 2]
    rows = {weight.shape[1]: weight.new_ones(1, weight.shape[1]) for weight in weights}
    copy, copied = large_copy(model.device, weights[0].dtype)
    works: dict[str, Work] = {
        "products of one row": lambda: [linear(rows[weight.shape[1]], weight) for weight in weights],
        "a copy": copy,
    }
    moved = {"products of one row": sum(weight.nbytes for weight in weights), "a copy": copied}
    with torch.inference_mode():
        Rounds(works, 2, model.device)
        found = Rounds(works, rounds, model.device)
    return {name: moved[name] / found.median(name) / 1e9 for name in works}
