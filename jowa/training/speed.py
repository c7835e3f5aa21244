"""How much arithmetic a training step is, and what share of the hardware's peak it reaches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jowa.models.world_action_model import WorldActionModel
from jowa.training.config import StageConfig

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "GH200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "A10": 125.0,
               "4090": 165.0, "3090": 71.0, "V100": 125.0, "T4": 65.0}  # fmt: skip
"""Nominal dense peaks in half precision with float32 accumulation, of each GPU's fastest form (H100: SXM)."""


@dataclass(frozen=True)
class Workload:
    """One training step of all processes: its sequences, tokens and the trunk's and heads' operations a token.

    flops: of the world-action model, forwards and backwards, without the tokenizer's. peak: of one processor, FLOP/s;
    None where it isn't known. imagining_flops: of steps half of which is imagined, that half without the world's heads.
    What imagining takes is in the time, not in the operations: MFU falls by it.
    """

    sequences: int
    tokens: int
    flops: float
    peak: float | None
    imagining_flops: float = 0.0

    def speed(self, steps: int, seconds: float, processors: int, imagining: int = 0) -> dict[str, float]:
        """Rates of all processes together, and model FLOP utilisation (MFU), the share of the nominal peak.

        imagining: how many of the steps were half imagined.
        """
        values = {
            "speed/step_seconds": seconds / max(steps, 1),
            "speed/sequences_per_second": steps * self.sequences / seconds,
            "speed/tokens_per_second": steps * self.tokens / seconds,
        }
        if self.peak is not None:
            flops = (steps - imagining) * self.flops + imagining * self.imagining_flops
            values["speed/mfu"] = self.tokens * flops / seconds / (self.peak * processors)
        return values


def workload(model: WorldActionModel, stage: StageConfig, batch_size: int, device: torch.device) -> Workload:
    flops = flops_per_token(model, stage), flops_per_token(model, stage, imagined=0.5)
    return Workload(batch_size, batch_size * model.positions, flops[0], peak_flops(device), flops[1])


def flops_per_token(model: WorldActionModel, stage: StageConfig, imagined: float = 0.0) -> float:
    """Operations of the matrix products a token of a training step, 2 for each multiplication with its addition.

    Attention counts as full, not as causal, as is usual for MFU. Backwards is twice forwards; the target copy of the
    Q networks runs forwards alone. imagined: the share of the sequences that the world's heads don't see.
    """
    config = model.config
    width, block = config.width, model.block_tokens
    trunk = config.layers * (12 * width**2 + 2 * model.positions * width)
    codes = (block - 1) / block
    world = codes * (width**2 + width * model.vocabulary) + (2 * width**2 + 5 * width) / block
    outputs = model.q_networks.actions * model.q_networks.atoms
    q = config.q_networks * (width * config.q_width + config.q_width**2 + config.q_width * outputs) / block
    forwards = trunk + (world * (1 - imagined) if stage.world_weight > 0 else 0) + (q if stage.trains_q else 0)
    return 6 * forwards + (2 * q if stage.trains_q else 0)


def peak_flops(device: torch.device) -> float | None:
    """The GPU's nominal peak by its name; None for other devices."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peaks = [peak for part, peak in PEAK_TFLOPS.items() if part in name.replace("-", " ").split()]
    return peaks[0] * 1e12 if peaks else None
