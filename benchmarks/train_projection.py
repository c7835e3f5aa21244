"""What the paper's training would need on a GPU that isn't here: rules from shapes, said beside the figures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from train_products import convolutions

from jowa.models.published import MODELS
from jowa.pretrain import PretrainConfig, new_agent
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.loop import total_counts
from jowa.training.parts import Part
from jowa.training.run_plan import checkpoint_bytes, state_bytes
from jowa.training.speed import PEAK_TFLOPS, workload

PRESETS = ("nano", *MODELS)
SHARE = 0.40
"""Of the nominal peak; what the best public programs for small language models reach."""
FLOAT32_TFLOPS = 67.0
"""An H200's in float32 without tensor cores, from its maker's data sheet."""
CPU = torch.device("cpu")
Make = Callable[[str, int, int], tuple[PretrainConfig, Learner, Part]]
"""(preset, stage, sequences) → its configuration, learner and a part of so many sequences, LPIPS included."""

RULES = f"""\
Projected for one H200, not measured.
Hours: {SHARE:.0%} of its nominal {PEAK_TFLOPS["H200"]:.0f} TFLOP/s for matrix products and convolutions, LPIPS too;
but {SHARE:.0%} of {FLOAT32_TFLOPS:.0f} TFLOP/s (float32, no tensor cores) for stage 1's choice of codes, whose hours
are also given alone. Steps and batch of +exp=atari15.
State: weights, gradients and moments. Activations: what autograd keeps of a sequence, counted on a CPU under bfloat16,
attention maps not stored, nothing compiled; 512 sequences are a step's batch."""


def projection(make: Make) -> str:
    """A table of presets and stages."""
    columns = ("model", "stage", "TFLOP a step", "hours", "for codes", "state", "activations a sequence", "of 512",
               "a checkpoint")  # fmt: skip
    lines = [RULES, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for preset in PRESETS:
        for stage in (1, 2):
            lines.append(row(make, preset, stage))
    return "\n".join(lines)


def row(make: Make, preset: str, stage: int) -> str:
    config, learner, part = make(preset, stage, 1)
    sequences, steps = 512, config.stages[f"stage{stage}"].steps
    load = workload(learner.model, learner.stage, sequences, CPU)
    fast = load.tokens * load.flops
    slow = 0.0
    for convolution, count in convolutions(learner, part, torch.bfloat16).items():
        if convolution.dtype == torch.float32:
            slow += sequences * count * convolution.flops
        else:
            fast += sequences * count * convolution.flops
    codes = steps * slow / (FLOAT32_TFLOPS * 1e12 * SHARE) / 3600
    hours = steps * fast / (PEAK_TFLOPS["H200"] * 1e12 * SHARE) / 3600 + codes
    # Under autocast the first sequence also keeps the weights in bfloat16.
    kept = kept_bytes(*make(preset, stage, 2)[1:]) - kept_bytes(learner, part)
    # As the dry run does: of an agent of which no stage has frozen anything.
    agent = new_agent(config)
    return (
        f"| {preset} | {stage} | {(fast + slow) / 1e12:.2f} | {hours:.1f} | {codes:.1f} | "
        f"{state_bytes(*agent, learner.stage) / 1e9:.2f} GB | {kept / 1e6:.0f} MB | {kept * sequences / 1e9:.0f} GB | "
        f"{checkpoint_bytes(*agent) / 1e9:.2f} GB |"
    )


def kept_bytes(learner: Learner, part: Part) -> int:
    """Bytes that autograd keeps for the backward pass under bfloat16, parameters not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*learner.parameters(), *learner.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held on to, so that no later tensor gets the same address.
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    part = part.to(CPU)
    counts = total_counts(learner, [part], Distribution(0, 1, CPU))
    with torch.autocast("cpu", torch.bfloat16), saved_tensors_hooks(keep, lambda tensor: tensor):
        learner(part, counts)
    return sum(size for size, _ in kept.values())
